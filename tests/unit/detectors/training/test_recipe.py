"""The recipe of the shipped starter."""

import json
from pathlib import Path

from detectors.training import hf_model
from detectors.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[4]
RECIPE = ROOT / "detectors" / "training" / "starter"


def test_the_recipe_is_one_of_train_and_names_the_network_that_is_shipped() -> None:
    recipe = TrainConfig.read(RECIPE / "recipe.yaml")
    assert (ROOT / recipe.model, recipe.method, recipe.micro_batch) == (RECIPE, "full", recipe.batch_size)
    for name in ("config.json", "preprocessor_config.json"):
        network, shipped = (json.loads((folder / name).read_bytes()) for folder in (RECIPE, ROOT / "detectors/starter"))
        assert network.items() <= shipped.items()
    folder = hf_model.find_folder(recipe.model_copy(update={"model": str(RECIPE)}), RECIPE).path
    assert not hf_model.has_weights(folder)
    assert sum(value.numel() for value in hf_model.load(folder, 0).parameters()) < 12e6 / 4
