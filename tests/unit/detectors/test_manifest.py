"""A model's folder and its sums."""

import json
from pathlib import Path

import pytest

from detectors.errors import ModelError, NotPrepared
from detectors.manifest import Manifest, Output, Parity, Source, sha256


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
    with pytest.raises(ModelError, match=r"model.onnx does not match its sum"):
        Manifest.read(folder).verify(folder)


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
