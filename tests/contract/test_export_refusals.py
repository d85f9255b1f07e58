"""Weights that can't become a detector, each refused with what is wrong."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detectors.errors import DetectorConfigError, ModelError
from detectors.export.export import prepare
from detectors.models.config import DetectorConfig
from tests.models import make_vit, make_yolo


def vit(folder: Path, **values: object) -> DetectorConfig:
    return DetectorConfig(hf_repo=str(folder), path=folder / "x.yaml", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "labels", [{0: "None", 1: "cones"}, {0: "LABEL_0", 1: "LABEL_1"}, {0: "Roadwork", 1: "Roadwork"}]
)
def test_a_vit_without_the_label_is_refused_with_the_labels_it_has(tmp_path: Path, labels: dict[int, str]) -> None:
    folder = make_vit(tmp_path / "vit", labels=labels)
    with pytest.raises(DetectorConfigError, match=f"'Roadwork'.*its labels are '{labels[0]}'"):
        prepare("ViT", vit(folder), tmp_path / "models")


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_vit_folder_with_a_file_missing_is_refused(tmp_path: Path, missing: str) -> None:
    folder = make_vit(tmp_path / "vit")
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=missing.replace("model", "")):
        prepare("ViT", vit(folder), tmp_path / "models")


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit")
    with pytest.raises(ModelError, match=r"/dev/null/out .*: Not a directory"):
        prepare("ViT", vit(folder), tmp_path / "models", out=Path("/dev/null/out"))


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow above 64 bytes, as where a disk is full; a copy fails in its middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_is_the_targets_and_not_the_sources(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit")
    with small_files(), pytest.raises(ModelError) as caught:
        prepare("ViT", vit(folder), tmp_path / "models")
    assert str(caught.value).startswith(str(tmp_path / "models" / "vit"))


def test_a_processor_we_do_not_know_is_refused(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "DonutImageProcessor"}))
    with pytest.raises(ModelError, match="DonutImageProcessor"):
        prepare("ViT", vit(folder), tmp_path / "models")


def test_a_yolo_class_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = make_yolo(tmp_path / "best.pt")
    config = DetectorConfig(weights_path=path, roadwork_class_index=2, path=path)
    with pytest.raises(DetectorConfigError, match=r"roadwork_class_index=2: .* 0 to 1"):
        prepare("YOLOClassifier", config, tmp_path / "models")


def test_a_number_that_the_names_contradict_is_refused_with_both_names(tmp_path: Path) -> None:
    path = make_yolo(tmp_path / "best.pt", names={0: "roadwork", 1: "safe"})
    config = DetectorConfig(weights_path=path, roadwork_class_index=1, path=path)
    with pytest.raises(DetectorConfigError, match=r"roadwork_class_index=1.*'roadwork', 'safe'"):
        prepare("YOLOClassifier", config, tmp_path / "models")


@pytest.mark.parametrize(("detector", "index"), [("YOLOClassifier", 0), ("YOLOClassifier", None), ("ViT", 0)])
def test_a_softmax_over_one_class_is_refused(tmp_path: Path, detector: str, index: int | None) -> None:
    if detector == "ViT":
        folder = make_vit(tmp_path / "vit", labels={0: "Roadwork"}, problem_type="single_label_classification")
        config = vit(folder, roadwork_class_index=index)
    else:
        path = make_yolo(tmp_path / "best.pt", names={0: "roadwork"})
        config = DetectorConfig(weights_path=path, roadwork_class_index=index, path=path)
    with pytest.raises(DetectorConfigError, match="one class"):
        prepare(detector, config, tmp_path / "models")


def test_a_single_output_that_was_trained_as_a_regression_is_refused(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit", labels={0: "Roadwork"}, problem_type="regression")
    with pytest.raises(DetectorConfigError, match="problem_type='regression'"):
        prepare("ViT", vit(folder), tmp_path / "models")


def test_a_head_of_other_outputs_than_the_labels_is_refused(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit", labels={0: "Roadwork"})
    values = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {"0": "None", "1": "Roadwork"}, "label2id": {"None": 0, "Roadwork": 1}}
    (folder / "config.json").write_text(json.dumps(values | labels))
    with pytest.raises(ModelError, match=r"1 outputs; .* 2 labels"):
        prepare("ViT", vit(folder), tmp_path / "models")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"best.pt can't be read"):
        prepare("YOLOClassifier", DetectorConfig(weights_path=path, path=path), tmp_path / "models")
