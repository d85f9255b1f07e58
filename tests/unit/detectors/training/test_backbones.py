"""Backbones from packages: the same answers as the network they come from, and nothing else under their name."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.builders.efficientnet import EfficientNet
from detectors.errors import ModelError
from detectors.models.hf_config import NOTICE_FILE
from detectors.network import ViT
from detectors.photos.image import decode
from detectors.training import backbones, hf_model
from detectors.training.backbones import BACKBONES, backbone_folder
from detectors.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[4]

# Of deploy/images/street.jpg, by the authors of the packages (efficientnet_lite_pytorch 0.1.0): class and logit.
SAID = {
    "lite0": {539: 6.0827, 549: 5.6267, 919: 5.3660, 723: 4.9475},
    "lite2": {549: 6.2919, 620: 5.7909, 480: 4.2444, 446: 4.1963},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def pixels(folder: Path) -> np.ndarray:
    return ViT.read_preprocessing(folder)(decode((ROOT / "deploy/images/street.jpg").read_bytes())).reshape(
        ViT.read_preprocessing(folder).shape[-3:]
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_it_says_what_the_network_says_that_it_comes_from(name: str, cache: Path) -> None:
    folder = backbone_folder(name, cache)
    from transformers import AutoModelForImageClassification

    array = pixels(folder)
    with torch.inference_mode():
        model, missing = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
        logits = model.eval()(torch.from_numpy(array)[None]).logits[0]
    assert not any(missing.values())
    top = logits.topk(4)
    assert dict(zip(top.indices.tolist(), top.values.tolist(), strict=True)) == pytest.approx(SAID[name], abs=1e-3)
    assert EfficientNet(folder).forward(array) == pytest.approx(logits.numpy(), abs=1e-3)  # the exporter's, torch-free


@pytest.mark.parametrize("name", BACKBONES)
def test_a_training_starts_from_it_with_two_classes(name: str, cache: Path, tmp_path: Path) -> None:
    found = hf_model.find_folder(TrainConfig.make({"data": "photos", "model": name}), cache)
    model = hf_model.load(found.path, 0)
    assert hf_model.head_of(model).out_features == 2
    hf_model.save(model, found.path, tmp_path / "model")
    assert "Apache" in (tmp_path / "model" / NOTICE_FILE).read_text()


def test_gates_stay_open_while_every_weight_learns(cache: Path) -> None:
    model = hf_model.load(backbone_folder("lite0", cache), 0)
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    hf_model.logits_of(model, torch.randn(1, 3, 224, 224)).sum().backward()
    optimizer.step()
    gates = {name: value for name, value in model.named_parameters() if "squeeze_excite.expand.bias" in name}
    assert len(gates) == 16
    assert all(torch.sigmoid(value).eq(1).all() for value in gates.values())


def test_another_file_and_a_missing_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = BACKBONES["lite0"]
    others = {"other": replace(known, sum="0" * 64), "missing": replace(known, package="no-such-package")}
    monkeypatch.setattr(backbones, "BACKBONES", others)
    with pytest.raises(ModelError, match="SHA-256"):
        backbone_folder("other", tmp_path)
    with pytest.raises(ModelError, match="no-such-package"):
        backbone_folder("missing", tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_two_at_once_write_one_folder(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(backbone_folder("lite0", tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert [path.name for path in (tmp_path / "backbones").iterdir()] == [found[0].name]


def test_the_default_needs_no_hub() -> None:
    assert TrainConfig.make({"data": "photos"}).model in hf_model.OFFLINE
    assert TrainConfig.make({"data": "photos", "detector": "YOLOClassifier"}).model == "small"


def test_where_the_hub_is_not_reached_the_offline_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("tiny", "someone/something"):
        with pytest.raises(ModelError, match=", ".join(hf_model.OFFLINE)):
            hf_model.find_folder(TrainConfig.make({"data": "photos", "model": name}), tmp_path)
