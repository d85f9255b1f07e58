"""The published pair of architectures, from two subfolders of one repository, in one YAML file."""

import io
import logging
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageOps

from detectors.backends.torch import ensure_torchvision
from detectors.base import RunOptions
from detectors.console import Steps
from detectors.ensemble import Ensemble
from detectors.errors import DetectorConfigError, ImageError, ModelError, NotPrepared
from detectors.export.export import prepare
from detectors.load import PreparedModel, is_prepared, load_detector
from detectors.models.config import SHIPPED, read_config
from detectors.models.manifest import MAKE_ANEW, Manifest, is_outdated
from detectors.models.sources import model_folder
from detectors.quantize.gate import renewal
from tests.models import photo

PHOTOS = [photo(1280, 720, seed=2), photo(360, 640, seed=4), photo(224, 224, seed=5), photo(640, 480, seed=7)]


def said_by_transformers(home: Path, data: bytes) -> list[float]:
    """Letterbox with Pillow alone, then ask transformers' models with only their own normalisation."""
    ensure_torchvision()
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    said = []
    for name in ("convnextv2", "dinov2"):
        folder = home / "repository" / name
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        resample = Image.Resampling(processor.resample)
        picture = ImageOps.pad(Image.open(io.BytesIO(data)).convert("RGB"), (224, 224), resample, (0, 0, 0))
        processor.do_resize = processor.do_center_crop = False
        inputs = processor(picture, return_tensors="pt")
        with torch.inference_mode():
            logits = AutoModelForImageClassification.from_pretrained(folder).eval()(**inputs).logits
        said.append(float(logits.softmax(1)[0, 1]))
    return said


def test_answers_are_the_mean_of_both_with_the_threshold_moved(home: Path) -> None:
    detector = load_detector("Ensemble", read_config(str(home / "pair.yaml")), home / "models", "onnx", RunOptions())
    assert isinstance(detector, Ensemble)
    assert detector.verify() > 0
    seen = []
    for data in PHOTOS:
        first, second = said_by_transformers(home, data)
        mean = (first + second) / 2
        answer = detector.predict(data).probability
        odds = mean / (1 - mean) / (0.72 / 0.28)
        assert answer == pytest.approx(odds / (1 + odds), abs=1e-3)
        assert (answer > 0.5) == (mean > 0.72)
        seen.append(answer)
    assert max(seen) - min(seen) > 0.05


def test_its_manifest_lists_the_branches(home: Path) -> None:
    folder = model_folder(read_config(str(home / "pair.yaml")), home / "models")
    manifest = Manifest.read(folder)
    assert manifest.branches is not None
    assert {name: branch.name for name, branch in manifest.branches.items()} == {
        "convnextv2": "convnextv2--letterbox",
        "dinov2": "dinov2--letterbox",
    }
    assert manifest.parity.max_difference <= 1e-3


def test_another_fusion_is_another_model_and_takes_no_export(home: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((home / "pair.yaml").read_text())
    values["fusion"]["threshold"] = 0.6
    for branch in values["branches"].values():
        branch["hf_repo"] = str(home / "repository")
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(values))
    config = read_config(str(tmp_path / "pair.yaml"))
    assert not is_prepared(config, home / "models")
    with pytest.raises(NotPrepared):
        load_detector("Ensemble", config, home / "models", "onnx", RunOptions())
    steps: list[str] = []
    prepare("Ensemble", config, home / "models", force=False, progress=Steps(steps.append))
    assert steps == ["mean of convnextv2 + dinov2, threshold 0.60"]
    load_detector("Ensemble", config, home / "models", "onnx", RunOptions()).verify()


def test_a_branch_that_was_replaced_or_damaged_is_found(home: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(home / "models", tmp_path / "models"))
    config = read_config(str(home / "pair.yaml"))
    assert config.branches is not None
    folder = model_folder(config.branches["dinov2"], models)
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"files": manifest.files | {"more.json": "0" * 64}}).write(folder)
    with pytest.raises(NotPrepared, match="a branch of pair"):
        load_detector("Ensemble", config, models, "onnx", RunOptions())
    assert not is_prepared(config, models)
    manifest.write(folder)
    assert is_prepared(config, models)
    shutil.rmtree(folder / "optimized")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match=r"model\.onnx .* sum in "):
        load_detector("Ensemble", config, models, "onnx", RunOptions())


def test_a_pair_of_release_0_2_serves_on_and_says_what_makes_it_anew(home: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(home / "models", tmp_path / "models"))
    config = read_config(str(home / "pair.yaml"))
    assert renewal(PreparedModel.find(config, models), "fp32", "onnx", {}) == ("", "")
    folders = {name: model_folder(branch, models) for name, branch in (config.branches or {}).items()}
    for folder in folders.values():
        made_with = {"torch": "2.13.0", "transformers": "4.57.6", "optimum": "2.1.0", "onnx": "1.23.2"}
        Manifest.read(folder).model_copy(update={"made_with": made_with}).write(folder)
    words, cure = renewal(PreparedModel.find(config, models), "int8", "onnx", {})  # it is not there: fp32 serves
    assert "convnextv2 and dinov2" in words
    assert cure == MAKE_ANEW
    load_detector("Ensemble", config, models, "onnx", RunOptions()).verify()
    alone = config.model_copy(update={"branches": None, "model_folder": folders["dinov2"]})
    words, cure = renewal(PreparedModel.find(alone, models), "fp32", "onnx", {})
    assert "dinov2--letterbox" in words
    assert "original weights" in cure
    prepare("Ensemble", config, models)
    assert renewal(PreparedModel.find(config, models), "fp32", "onnx", {}) == ("", "")
    starter = SHIPPED.parent / "starter"  # a MobileNet that optimum has traced
    assert not is_outdated(Manifest.read(starter), starter)


def test_a_repository_without_the_subfolder_is_named(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"hf_repo": str(home / "repository"), "subfolder": "vit"}))
    with pytest.raises(DetectorConfigError, match=r"repository/vit does not exist"):
        prepare("ViT", read_config(str(path)), tmp_path / "models")


def test_pictures_that_letterbox_can_show_nothing_of_are_refused(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector = load_detector("Ensemble", read_config(str(home / "pair.yaml")), home / "models", "onnx", RunOptions())
    with caplog.at_level(logging.WARNING), pytest.raises(ImageError, match="too long for"):
        detector.predict(photo(2000, 2, kind="PNG"))
    assert not caplog.records
