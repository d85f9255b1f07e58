"""Which class an exported model takes for roadwork, held to what the original network says of each class."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.backends.torch import load_yolo
from detectors.base import Detector, RunOptions
from detectors.errors import DetectorConfigError, NotPrepared
from detectors.export.export import prepare
from detectors.load import PreparedModel, is_prepared, load_detector
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.models.sources import variant_folder
from detectors.photos.image import decode
from detectors.photos.synthetic import parity_pictures
from tests.models import make_vit, make_yolo


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a YOLO checkpoint whose first class is roadwork."""
    return make_yolo(tmp_path_factory.mktemp("yolo") / "best.pt", names={0: "roadwork", 1: "safe"})


def configured(folder: Path, text: str) -> DetectorConfig:
    (folder / "mine.yaml").write_text(text)
    return read_config(str(folder / "mine.yaml"))


def exported(detector: str, config: DetectorConfig, models: Path) -> Detector:
    prepare(detector, config, models)
    return load_detector(detector, config, models, "onnx", RunOptions())


def shares(weights: Path, data: bytes) -> Any:
    """Return what the original network says of each class."""
    (result,) = load_yolo(weights).predict(decode(data), verbose=False, device="cpu")
    return result.probs.data.numpy()


@pytest.mark.parametrize(
    ("keys", "right"),
    [
        ("", 0),  # by its name, where class 1 was taken
        ("roadwork_label: roadwork", 0),
        ("roadwork_label: 0", 0),
        ("roadwork_class_index: 0", 0),
        ("roadwork_label: safe", 1),  # the names may be wrong, for one who calls the class by its name
    ],
)
def test_a_yolo_network_whose_first_class_is_roadwork(tmp_path: Path, weights: Path, keys: str, right: int) -> None:
    config = configured(tmp_path, f"weights_path: {weights}\n{keys}\n")
    detector = exported("YOLOClassifier", config, tmp_path / "models")
    assert detector.manifest.output.index == right
    assert not detector.manifest.output.doubt
    for data in parity_pictures()[:3]:
        assert detector.predict(data).probability == pytest.approx(shares(weights, data)[right], abs=1e-3)


@pytest.mark.parametrize("key", ["roadwork_label: works", "roadwork_label: 0", "roadwork_class_index: 0", ""])
def test_a_vit_obeys_the_same_keys(tmp_path: Path, key: str) -> None:
    make_vit(tmp_path / "vit", labels={0: "works", 1: "clear"})
    detector = exported("ViT", configured(tmp_path, f"hf_repo: vit\n{key}\n"), tmp_path / "models")
    assert detector.manifest.output.words == "class 0 'works' of 'works', 'clear'"


def test_keys_that_name_two_classes_are_refused(tmp_path: Path, weights: Path) -> None:
    config = configured(tmp_path, f"weights_path: {weights}\nroadwork_label: roadwork\nroadwork_class_index: 1\n")
    with pytest.raises(DetectorConfigError, match=r"roadwork_class_index=1.*roadwork_label='roadwork'"):
        prepare("YOLOClassifier", config, tmp_path / "models")


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_a_single_logit_is_served_through_a_sigmoid(tmp_path: Path, problem: str | None) -> None:
    make_vit(tmp_path / "vit", labels={0: "Roadwork"}, problem_type=problem)
    detector = exported("ViT", configured(tmp_path, "hf_repo: vit\n"), tmp_path / "models")
    said = [detector.predict(data).probability for data in parity_pictures()]
    assert min(said) < 0.5 < max(said)
    assert detector.manifest.output.activation == "sigmoid"


def test_a_single_logit_without_a_name_needs_a_key(tmp_path: Path) -> None:
    folder = make_vit(tmp_path / "vit", labels={0: "Roadwork"})
    values = json.loads((folder / "config.json").read_text()) | {"num_labels": 1}
    del values["id2label"], values["label2id"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(DetectorConfigError, match="LABEL_0"):
        prepare("ViT", configured(tmp_path, "hf_repo: vit\n"), tmp_path / "models")
    detector = exported("ViT", configured(tmp_path, "hf_repo: vit\nroadwork_class_index: 0\n"), tmp_path / "models")
    assert np.ptp([detector.predict(data).probability for data in parity_pictures()]) > 0.1


def test_a_model_that_was_exported_with_the_wrong_class_still_loads_and_warns(
    tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(tmp_path, f"weights_path: {weights}\n")
    folder = prepare("YOLOClassifier", config, tmp_path / "models")
    values = json.loads((folder / "manifest.json").read_text())
    values["output"] = {"index": 1, "labels": ["roadwork", "safe"], "activation": "none"}  # as older versions wrote it
    (folder / "manifest.json").write_text(json.dumps(values))
    with caplog.at_level(logging.WARNING):
        detector = load_detector("YOLOClassifier", config, tmp_path / "models", "onnx", RunOptions())
    assert "likely reversed" in caplog.text
    assert detector.manifest.output.doubt
    assert is_prepared(config, tmp_path / "models")


def test_another_class_in_the_configuration_asks_for_another_export(tmp_path: Path) -> None:
    make_vit(tmp_path / "vit", labels={0: "one", 1: "two"})
    models = tmp_path / "models"
    folder = prepare("ViT", configured(tmp_path, "hf_repo: vit\nroadwork_class_index: 1\n"), models)
    config = configured(tmp_path, "hf_repo: vit\nroadwork_label: one\n")
    assert not is_prepared(config, models)
    with pytest.raises(NotPrepared, match="'one'"):
        load_detector("ViT", config, models, "onnx", RunOptions())
    prepare("ViT", config, models)
    assert is_prepared(config, models)
    assert Manifest.read(folder).output.index == 0
    config = configured(tmp_path, f"model_folder: {folder}\nroadwork_label: two\n")
    with pytest.raises(DetectorConfigError, match="'two'"):
        load_detector("ViT", config, models, "onnx", RunOptions())


def test_a_class_named_against_its_label_asks_for_another_export_once_the_key_is_gone(tmp_path: Path) -> None:
    make_vit(tmp_path / "vit", labels={0: "safe", 1: "Roadwork"})
    models = tmp_path / "models"
    folder = prepare("ViT", configured(tmp_path, "hf_repo: vit\nroadwork_label: safe\n"), models)
    assert Manifest.read(folder).output.index == 0
    config = configured(tmp_path, "hf_repo: vit\n")
    assert not is_prepared(config, models)
    with pytest.raises(NotPrepared, match="'safe'"):
        load_detector("ViT", config, models, "onnx", RunOptions())
    prepare("ViT", config, models)
    assert Manifest.read(folder).output.index == 1


def test_a_faster_variant_of_another_class_is_not_served(tmp_path: Path) -> None:
    make_vit(tmp_path / "vit", labels={0: "one", 1: "two"})
    models = tmp_path / "models"
    config = configured(tmp_path, "hf_repo: vit\nroadwork_class_index: 1\n")
    fp32 = prepare("ViT", config, models)
    faster = variant_folder(Manifest.read(fp32), models, "int8", "onnx")
    shutil.copytree(fp32, faster)
    assert PreparedModel.find(config, models).has("int8", "onnx")
    other = Manifest.read(fp32).output.model_copy(update={"index": 0})
    Manifest.read(faster).model_copy(update={"output": other}).write(faster)
    assert not PreparedModel.find(config, models).has("int8", "onnx")
    with pytest.raises(NotPrepared, match="another class"):
        load_detector("ViT", config, models, "onnx", RunOptions(), "int8")
