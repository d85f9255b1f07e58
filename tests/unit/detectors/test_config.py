"""YAML files of detectors."""

import logging
from pathlib import Path

import pytest

from detectors.config import SHIPPED, read_config
from detectors.errors import DetectorConfigError


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_the_shipped_ones_are_found_by_name() -> None:
    for path in SHIPPED.glob("*.yaml"):
        assert read_config(path.name).path == path


def test_the_original_keys_work(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "hf_repo: 'a/b'\nconfig_name: 'config.yaml'\nweights: 'model.safetensors'\n"))
    assert (config.hf_repo, config.revision, config.roadwork_label) == ("a/b", "main", "Roadwork")
    config = read_config(write(tmp_path, "weights_path: best.pt\nroadwork_class_index: 0\n"))
    assert (config.weights_path, config.roadwork_class_index) == (tmp_path / "best.pt", 0)


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
        ("a: [", "can't be read as YAML"),
        ("revision: main", "exactly one of hf_repo, weights_path, model_folder is needed; found none"),
        ("hf_repo: a/b\nweights_path: c.pt", "found hf_repo and weights_path"),
        ("weights_path: c.pt\nroadwork_class_index: -1", "roadwork_class_index=-1"),
        ("weights_path: c.pt\nroadwork_class_index: one", "roadwork_class_index='one'"),
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
        read_config(write(tmp_path, "hf_repo: a/b\nrevison: abc\n"))
    assert "unknown key revison (did you mean revision?)" in caplog.text
