"""YAML files of detectors."""

import logging
from pathlib import Path

import pytest

from detectors.errors import DetectorConfigError, NoConfig
from detectors.models.config import SHIPPED, read_config


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_shipped_ones_are_found_by_name() -> None:
    for path in SHIPPED.glob("*.yaml"):
        assert read_config(path.name).path == path


def test_the_original_keys_work(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "hf_repo: 'a/b'\nconfig_name: 'config.yaml'\nweights: 'model.safetensors'\n"))
    assert (config.hf_repo, config.revision, config.roadwork_label) == ("a/b", "main", None)
    config = read_config(write(tmp_path, "weights_path: best.pt\nroadwork_class_index: 0\nroadwork_label: 0\n"))
    assert (config.weights_path, config.roadwork_class_index, config.roadwork_label) == (tmp_path / "best.pt", 0, "0")


def test_a_revision_of_digits_only_needs_no_quotes(tmp_path: Path) -> None:
    digits = "12345678901234567890" * 2
    assert read_config(write(tmp_path, f"hf_repo: a/b\nrevision: {digits}\n")).revision == digits


def test_relative_paths_count_from_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    assert read_config(write(tmp_path, "hf_repo: vit\n")).hf_repo == str(tmp_path / "vit")
    assert read_config(write(tmp_path, "model_folder: ./x\n")).model_folder == tmp_path / "x"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "a mapping"),
        ("- a", "a mapping"),
        ("a: 1\nb: [", "YAML: line 2"),
        ("revision: main", "found none"),
        ("hf_repo: a/b\nweights_path: c.pt", "found hf_repo and weights_path"),
        ("weights_path: c.pt\nroadwork_class_index: -1", "roadwork_class_index=-1"),
        ("weights_path: c.pt\nroadwork_class_index: one", "roadwork_class_index='one'"),
        ("onnx_path: a.onnx\noutput: logit", "output='logit': 'logits' or 'probability' is allowed"),
        ("branches: {one: {hf_repo: a/b}}\nfusion: {kind: mean}", "fusion.branches is needed"),
    ],
)
def test_a_wrong_file_is_a_fault_in_one_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(DetectorConfigError) as caught:
        read_config(write(tmp_path, text))
    assert fault in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_shipped_ones() -> None:
    with pytest.raises(DetectorConfigError, match=r"no detector configuration 'nosuch.yaml'; .*starter.yaml"):
        read_config("nosuch.yaml")


def test_an_unknown_key_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_config(write(tmp_path, "hf_repo: a/b\nmodel_type: x\n"))
    assert "unknown key model_type" in caplog.text


@pytest.mark.parametrize("key", ["treshold: 0.35", "revison: abc", "hf_repos: a/b"])
def test_a_misspelt_key_is_refused_as_it_would_be_passed_over(tmp_path: Path, key: str) -> None:
    with pytest.raises(DetectorConfigError, match=f"mine.yaml: unknown key {key.split(':', maxsplit=1)[0]}: "):
        read_config(write(tmp_path, f"hf_repo: a/b\n{key}\n"))


PAIR = """
branches:
  one: {hf_repo: a/b, subfolder: one, letterbox: true}
  two: {detector: YOLOClassifier, weights_path: two.pt}
"""
MEASURED = "measured: {photos: 9, accuracy: %s, mcc: 0.5, reward: 0.4, reward_low: 0.3, reward_high: 0.5}"


def test_branches_are_configurations_of_their_own_and_their_mean_is_the_default(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, PAIR))
    assert config.branches is not None
    one, two = config.branches.values()
    assert (one.source, one.letterbox, one.detector) == ("a/b/one", True, "ViT")
    assert (two.weights_path, two.detector) == (tmp_path / "two.pt", "YOLOClassifier")
    assert config.fusion is not None
    assert config.fusion.words == "mean of one + two"
    assert config.source == f"a/b/one + {tmp_path / 'two.pt'}"


def test_the_class_of_an_ensemble_is_each_branchs_own(tmp_path: Path) -> None:
    with pytest.raises(DetectorConfigError, match="roadwork_label=works"):
        read_config(write(tmp_path, f"{PAIR}roadwork_label: works\n"))
    (tmp_path / "yolo.yaml").write_text("weights_path: best.pt\nroadwork_class_index: 0\n")
    config = read_config(write(tmp_path, "branches:\n  y: {config: yolo.yaml, roadwork_class_index: 1}\n"))
    assert config.branches is not None
    assert config.branches["y"].roadwork_class_index == 1


def test_a_branch_may_be_another_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "yolo.yaml").write_text("weights_path: best.pt\nroadwork_class_index: 0\n")
    text = "branches:\n  y: {detector: YOLOClassifier, config: sub/yolo.yaml}\n  v: {hf_repo: a/b}\n"
    config = read_config(write(tmp_path, text))
    assert config.branches is not None
    found = config.branches["y"]
    assert (found.weights_path, found.roadwork_class_index) == (tmp_path / "sub" / "best.pt", 0)
    assert found.detector == "YOLOClassifier"


def test_a_branchs_file_is_looked_for_beside_the_file_and_not_where_the_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "yolo.yaml").write_text("weights_path: best.pt\n")
    (elsewhere / "starter.yaml").write_text("hf_repo: c/d\n")
    monkeypatch.chdir(elsewhere)
    path = write(tmp_path, "branches:\n  y: {config: yolo.yaml}\n  v: {hf_repo: a/b}\n")
    with pytest.raises(DetectorConfigError) as caught:
        read_config(path)
    assert not isinstance(caught.value, NoConfig)  # which would be looked for in other folders
    assert str(caught.value).startswith("mine.yaml: branches.y: config='yolo.yaml': ")
    assert f" {tmp_path} " in str(caught.value)
    config = read_config(write(tmp_path, "branches:\n  y: {config: starter.yaml}\n  v: {hf_repo: a/b}\n"))
    assert config.branches is not None
    assert config.branches["y"].model_folder == SHIPPED.parent / "starter"


def test_keys_beside_another_file_win_over_those_in_it(tmp_path: Path) -> None:
    (tmp_path / "vit.yaml").write_text("hf_repo: a/b\nrevision: abc\nroadwork_class_index: 0\n")
    config = read_config(write(tmp_path, "branches:\n  v: {config: vit.yaml, letterbox: true, revision: def}\n"))
    assert config.branches is not None
    found = config.branches["v"]
    assert (found.hf_repo, found.letterbox, found.revision, found.roadwork_class_index) == ("a/b", True, "def", 0)
    with pytest.raises(DetectorConfigError, match="found hf_repo and weights_path"):
        read_config(write(tmp_path, "branches:\n  v: {config: vit.yaml, weights_path: best.pt}\n"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hf_repo: a/b\nsubfolder: ../c", "subfolder='../c'"),
        ("weights_path: c.pt\nsubfolder: c", "only hf_repo has subfolders"),
        ("branches:\n  one: {}", "branches.one: exactly one of"),
        ("branches:\n  one: {branches: {two: {hf_repo: a/b}}}", "a branch can't"),
        (PAIR + "fusion: {branches: [one]}", "all branches"),
        (PAIR + "fusion: {branches: [one, two], threshold: 2}", "fusion.threshold=2"),
        (PAIR + "fallbacks: [{branches: [one, two]}]", "some of these"),
        (PAIR + "fallbacks: [{branches: [one]}]", "not measured"),
        (PAIR + "fallbacks: [{branches: [one], " + MEASURED % 0.7 + "}]", "above 0.75"),
        (PAIR + "stages: [{branches: [one, two], band: [0.1, 0.9]}]", "are needed"),
        (PAIR + "stages: [{branches: [three], band: [0.1, 0.9]}]", "are needed"),
        (PAIR + "stages: [{branches: [one], band: [0.1, 0.9]}]", "not measured"),
        (PAIR + "stages: [{branches: [one], band: [0.1, 0.9], " + MEASURED % 0.7 + "}]", "above 0.75"),
        (PAIR + "stages: [{branches: [one], " + MEASURED % 0.8 + "}]", "band"),
        (PAIR + "stages: [{branches: [one], band: [0.6, 0.9], " + MEASURED % 0.8 + "}]", "around 0.5"),
        (PAIR + "stages: [{branches: [one], band: [0.1], " + MEASURED % 0.8 + "}]", "band=[0.1]"),
        ("hf_repo: a/b\nstages: [{branches: [one], band: [0, 1], " + MEASURED % 0.8 + "}]", "only an Ensemble"),
        ("branches:\n  one: {hf_repo: a/b, fusion: {branches: [two]}}", "only an Ensemble"),
        ("branches: {}", "branches={}"),
        (PAIR + "fusion: {branches: [one, two], " + (MEASURED % 0.8).replace("mcc: ", "mcc: 1") + "}", "mcc"),
        ("hf_repo: a/b\nletterbox: true\nviews: [whole, letterbox]", "letterbox: true"),
        ("model_folder: a\nletterbox: true", "letterbox: true"),
        ("hf_repo: a/b\nViews: [flip]", "views is meant"),
        ("hf_repo: a/b\nviews: [flip]\nviews: [whole]", "stands there twice"),
        (PAIR + "threshold: 0.4\nstages: [{branches: [one], band: [0, 1], " + MEASURED % 0.8 + "}]", "of its own"),
    ],
)
def test_a_wrong_ensemble_is_a_fault_in_one_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(DetectorConfigError) as caught:
        read_config(write(tmp_path, text))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_merged_may_be_said_anew(tmp_path: Path) -> None:
    text = "one: &one {hf_repo: a/b, threshold: 0.4}\n<<: *one\nthreshold: 0.3\n"
    config = read_config(write(tmp_path, text))
    assert (config.hf_repo, config.threshold) == ("a/b", 0.3)


def test_a_measured_stage_is_taken(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, PAIR + "stages: [{branches: [one], band: [0, 1], " + MEASURED % 0.8 + "}]"))
    assert [(stage.words, stage.is_unsure(0.001)) for stage in config.stages] == [("one", True)]


def test_a_measured_fallback_is_taken(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, PAIR + "fallbacks: [{branches: [one], " + MEASURED % 0.8 + "}]"))
    assert [fallback.words for fallback in config.fallbacks] == ["one"]


@pytest.mark.parametrize(
    "text",
    [
        "revision: 2024-13-45", "hf_repo: !!int x", "hf_repo: !!timestamp x", "hf_repo: !!bool x", "[" * 2000,
        'hf_repo: "\\0"', 'hf_repo: "\\uD800"', "hf_repo: ~nobody-of-this-name/x",
        "weights_path: ~nobody-of-this-name/x", "{hf_repo: a/b, fusion: x}",
        f"weights_path: {'x' * 5000}", "hf_repo: [[[[1]]]]", "branches: [a]", "branches: {~: {hf_repo: a/b}}",
        "branches: &a {one: {branches: *a}}", "branches: {one: {config: mine.yaml}}", "branches: {one: 3}",
        "branches: {one: {config: ~nobody-of-this-name/x}}", "letterbox: maybe\nhf_repo: a/b",
    ],
)  # fmt: skip
def test_a_file_of_any_kind_is_a_fault_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(DetectorConfigError) as caught:
        read_config(write(tmp_path, text))
    assert "mine.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["~nobody-of-this-name/mine.yaml", "x" * 5000])
def test_a_name_that_can_be_no_file_is_refused(name: str) -> None:
    with pytest.raises(DetectorConfigError, match="no detector configuration"):
        read_config(name)


@pytest.mark.parametrize(("written", "label"), [("1", "1"), ("true", "True"), ("0.5", "0.5"), ("'true'", "true")])
def test_a_label_needs_no_quotes(tmp_path: Path, written: str, label: str) -> None:
    assert read_config(write(tmp_path, f"hf_repo: a/b\nroadwork_label: {written}\n")).roadwork_label == label


def test_a_branch_may_name_a_shipped_file(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "branches:\n  small: {config: starter.yaml}\n  v: {hf_repo: a/b}\n"))
    assert config.branches is not None
    assert config.branches["small"].model_folder == SHIPPED.parent / "starter"
    (tmp_path / "starter.yaml").write_text("hf_repo: c/d\n")  # one beside the file goes before it
    config = read_config(write(tmp_path, "branches:\n  small: {config: starter.yaml}\n  v: {hf_repo: a/b}\n"))
    assert config.branches is not None
    assert config.branches["small"].hf_repo == "c/d"
