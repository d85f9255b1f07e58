"""The recipe of the shipped starter."""

import json
from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.models.hf_config import NOTICE_FILE
from detectors.network import ViT
from detectors.photos.image import decode
from detectors.photos.synthetic import many_pictures
from detectors.training import hf_model
from detectors.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[4]
STARTER = ROOT / "detectors" / "starter"
RECIPE = ROOT / "detectors" / "training" / "starter" / "recipe.yaml"
OWN = {"id2label", "label2id", "batch_norm_momentum"}  # of a training, not of the network's shape


def test_the_recipe_is_one_of_train_and_names_the_network_that_is_shipped(tmp_path: Path) -> None:
    recipe = TrainConfig.read(RECIPE)
    assert recipe.model in hf_model.OFFLINE
    backbone = hf_model.find_folder(recipe, tmp_path).path
    for name in ("config.json", "preprocessor_config.json"):
        network, shipped = (json.loads((folder / name).read_bytes()) for folder in (backbone, STARTER))
        kept = {key: value for key, value in network.items() if key not in OWN}
        assert kept.items() <= shipped.items()
    assert (backbone / NOTICE_FILE).read_text() == (STARTER / NOTICE_FILE).read_text()


def test_a_training_goes_on_from_the_starter_that_serves(tmp_path: Path) -> None:
    found = hf_model.find_folder(TrainConfig.make({"data": "photos", "model": "starter"}), tmp_path)
    assert found.path == STARTER
    assert hf_model.has_weights(found.path)


def test_what_a_training_goes_on_from_answers_as_what_serves() -> None:
    import torch

    preprocessing, network = ViT.read_preprocessing(STARTER), hf_model.load(STARTER, 0).eval()
    served = load_detector("ViT", read_config("starter.yaml"), STARTER, "onnx", RunOptions())
    for data in many_pictures(4):
        picture = decode(data)
        with torch.no_grad():
            logits = hf_model.logits_of(network, torch.from_numpy(preprocessing(picture)))
        assert float(logits.softmax(1)[0, 1]) == pytest.approx(served.judge(picture).probability, abs=2e-3)
