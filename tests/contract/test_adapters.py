"""LoRA adapters of real peft: merged as peft merges them, served with the labels of their training, or refused."""

import builtins
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from detectors.backends.torch import ensure_torchvision
from detectors.base import RunOptions
from detectors.errors import DetectorConfigError, ModelError
from detectors.export import hf
from detectors.export.export import prepare
from detectors.load import is_prepared, load_detector
from detectors.models.adapter import merge
from detectors.models.checkpoint import ADAPTER_CONFIG, ADAPTER_FILE, WEIGHTS_FILE
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.models.sources import find_original, model_folder
from detectors.registry import exporter_class
from tests.models import make_pair, make_resnet, make_vit, photo

pytestmark = pytest.mark.export
HEAD = ["classifier"]
ATTENTION = {"target_modules": ["query", "value"], "modules_to_save": HEAD}


@dataclass(frozen=True)
class Kind:
    """A base model, and the keys of peft's LoraConfig."""

    make: Callable[[Path], Path]
    keys: dict[str, Any]


def make_convnext(folder: Path) -> Path:
    return make_pair(folder.parent / "pair") / "convnextv2"


KINDS = {
    "vit": Kind(make_vit, ATTENTION | {"r": 4, "lora_alpha": 12}),
    "vit, with biases": Kind(make_vit, ATTENTION | {"bias": "all"}),
    "vit, patterns": Kind(
        make_vit,
        {
            "target_modules": ["query", "dense", "projection", "classifier"],
            "rank_pattern": {"layer.1.attention.attention.query": 2, "attention.output.dense": 3},
            "alpha_pattern": {r"layer\.\d\.output\.dense": 30},
        },
    ),
    "vit, rank-stabilised": Kind(make_vit, ATTENTION | {"use_rslora": True, "r": 9}),
    "resnet, kernels of 7, 3 and 1": Kind(
        make_resnet, {"target_modules": ["convolution"], "modules_to_save": HEAD, "r": 3}
    ),
    "convnextv2": Kind(make_convnext, {"target_modules": ["pwconv1", "pwconv2", "downsampling_layer.1"]}),
}


def adapt(base: Path, adapter: Path, **keys: Any) -> Any:
    """Write an adapter whose weights are all drawn at random, and return peft's own network with it."""
    ensure_torchvision()
    import peft
    from transformers import AutoModelForImageClassification

    torch.manual_seed(1)
    model = AutoModelForImageClassification.from_pretrained(base)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**keys)).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * (0.3 if "lora_" in name else 0.05))
    wrapped.save_pretrained(adapter)
    return wrapped


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, where the merged weights stay; of each test its own."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made")
    adapt(make_vit(home / "base"), home / "adapter", **ATTENTION)
    settle(home / "adapter", base_model_name_or_path="../base")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A base and an adapter of each test's own."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def config_of(home: Path, **keys: Any) -> DetectorConfig:
    return DetectorConfig(hf_repo=str(home / "adapter"), path=home / "x.yaml", **keys)


def settle(folder: Path, name: str = ADAPTER_CONFIG, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], name: str = ADAPTER_FILE) -> None:
    save_file(change(load_file(folder / name)), folder / name, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # of peft
def test_the_merged_weights_are_those_of_peft(tmp_path: Path, kind: str) -> None:
    base = KINDS[kind].make(tmp_path / "base")
    original = load_file(base / WEIGHTS_FILE)
    wrapped = adapt(base, tmp_path / "adapter", **KINDS[kind].keys)
    merge(tmp_path / "adapter", base, tmp_path / "merged")
    merged, expected = load_file(tmp_path / "merged" / WEIGHTS_FILE), wrapped.merge_and_unload().state_dict()
    assert merged.keys() == original.keys()
    for name, value in merged.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, rtol=1e-5, err_msg=name)
    changed = [name for name, value in merged.items() if not torch.equal(value, original[name])]
    assert len(changed) >= 4
    prepared = prepare(
        "ViT", DetectorConfig(hf_repo=str(tmp_path / "adapter"), path=tmp_path / "x.yaml"), tmp_path / "models"
    )
    assert Manifest.read(prepared).parity.max_difference < 1e-4


def test_it_answers_as_peft_does_and_the_references_find_the_same_weights(home: Path) -> None:
    import peft
    from transformers import AutoModelForImageClassification, pipeline

    models = home / "models"
    manifest = Manifest.read(prepare("ViT", config_of(home), models))
    served = load_detector("ViT", config_of(home), models, "onnx", RunOptions())
    reference = load_detector("ViT", config_of(home), models, "torch", RunOptions())
    found = find_original(config_of(home), manifest.revision).path
    bench = exporter_class("ViT")(found, config_of(home)).reference()
    model = AutoModelForImageClassification.from_pretrained(home / "base")
    with pytest.warns(match="") if False else _quiet():
        merged = peft.PeftModel.from_pretrained(model, home / "adapter").merge_and_unload().eval()
    classify = pipeline("image-classification", model=merged, image_processor=str(home / "base"), device="cpu")
    for seed in range(3):
        picture = photo(640, 360, seed=seed)
        from io import BytesIO

        from PIL import Image

        scores = {row["label"]: row["score"] for row in classify(Image.open(BytesIO(picture)))}
        for answer in (served.predict(picture).probability, reference.predict(picture).probability, bench(picture)):
            assert answer == pytest.approx(scores["Roadwork"], abs=1e-4)
