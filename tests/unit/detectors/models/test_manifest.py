"""A model's folder and its sums."""

import json
from pathlib import Path

import pytest

from detectors.errors import ModelError, NotPrepared
from detectors.models.manifest import BranchModel, Manifest, Output, Parity, Source, as_served, same_branches, sha256
from detectors.photos.views import PooledViews


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    Manifest(
        name="m",
        revision="r",
        detector="ViT",
        source=Source(origin="here", revision="r"),
        output=Output(index=1, labels=["None", "Roadwork"], activation="softmax"),
        files={"model.onnx": sha256(tmp_path / "model.onnx")},
        known_answer=0.5,
        parity=Parity(reference="x", pictures=1, max_difference=0, mean_difference=0),
        made_with={},
    ).write(tmp_path)
    return tmp_path


def test_what_was_written_is_read_and_whole(folder: Path) -> None:
    manifest = Manifest.read(folder)
    assert manifest.output.labels[manifest.output.index] == "Roadwork"
    manifest.verify(folder)


def test_a_flipped_bit_is_found(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"grapi")
    with pytest.raises(ModelError, match=r"model.onnx .* sum in "):
        Manifest.read(folder).verify(folder)


def test_the_views_that_are_served_are_the_yaml_files_alone(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seen": "flip, mean"}))
    manifest = Manifest.read(folder)
    assert as_served(manifest, None, None).seen == as_served(manifest, 0.4, None).seen == ""
    views = PooledViews(("whole", "flip"), "max")
    assert as_served(manifest, None, views).seen == as_served(manifest, 0.4, views).seen == str(views)


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model.onnx is missing"):
        Manifest.read(folder).verify(folder)


def test_no_manifest_means_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(NotPrepared):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"format": 2}'])
def test_a_broken_manifest_is_named(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"manifest.json can't be read"):
        Manifest.read(folder)


def test_an_unknown_line_is_not_passed_over(folder: Path) -> None:
    values = json.loads((folder / "manifest.json").read_text()) | {"treshold": 0.7}
    (folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ModelError):
        Manifest.read(folder)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"0.5"', "true", "1.5"])
@pytest.mark.parametrize("key", ["known_answer", "threshold"])
def test_a_number_that_is_none_is_refused_by_its_key(folder: Path, key: str, value: str) -> None:
    path = folder / "manifest.json"
    values = json.loads(path.read_text()) | {key: "HERE"}
    path.write_text(json.dumps(values).replace('"HERE"', value))
    with pytest.raises(ModelError, match=rf"manifest.json can't be read: {key}="):
        Manifest.read(folder)


@pytest.mark.parametrize(
    "place", [("parity", "max_difference"), ("calibration", "temperature"), ("calibration", "evidence", "gain_low"),
              ("gate", "seconds"), ("gate", "answers", 1), ("gate", "labelled", "reward"), ("predictions", 3)]
)  # fmt: skip
def test_every_number_in_it_is_finite(folder: Path, place: tuple[str | int, ...]) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(FULL | {key: json.loads(path.read_text())[key] for key in ("files", "source")}))
    Manifest.read(folder)
    values = json.loads(path.read_text())
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = float("nan")
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=".".join(map(str, place))):
        Manifest.read(folder)


# As releases so far have written it.
FULL = {
    "format": 1, "name": "m", "revision": "r", "detector": "ViT", "precision": "int8", "backend": "onnx",
    "threshold": 0.5, "output": {"index": 1, "labels": ["None", "Roadwork"], "activation": "softmax"},
    "known_answer": 0.25, "made_with": {"onnx": "1.19.0"},
    "parity": {"reference": "numpy", "pictures": 8, "max_difference": 1e-07, "mean_difference": 0.0},
    "gate": {
        "recipe": "dynamic", "kept_fp32": [], "pictures": 64, "max_difference": 0.01, "mean_difference": 0.001,
        "flips": 0.0, "seconds": 0.1, "seconds_fp32": 0.2, "made_pictures": True, "answers": [0.1, 0.9],
        "labelled": {
            "pictures": 64, "accuracy_fp32": 0.9, "accuracy": 0.9, "reward_fp32": 0.64, "reward": 0.64
        },
    },
    "predictions": [0.1] * 10, "branches": None,
    "calibration": {
        "threshold": 0.72, "temperature": 1.0,
        "evidence": {
            "photos": 100, "folds": 5, "reward_before": 0.6, "reward": 0.7, "gain_low": 0.01, "gain_high": 0.2
        },
    },
}  # fmt: skip


def test_a_branch_is_another_one_once_another_class_counts() -> None:
    one = BranchModel(detector="ViT", name="a", revision="b", sums="c", index=1)
    assert same_branches({"x": one}, {"x": one})
    assert not same_branches({"x": one}, {"x": one.model_copy(update={"index": 0})})
    assert not same_branches({"x": one}, {"y": one})
    assert not same_branches(None, {"x": one})
    old = one.model_copy(update={"index": None})  # as the versions before wrote it
    assert same_branches({"x": old}, {"x": one})
    assert not same_branches({"x": old}, {"x": one.model_copy(update={"sums": "d"})})
