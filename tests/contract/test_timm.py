"""Checkpoints of timm, in its own form and in that of transformers' TimmWrapper: served as timm itself answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detectors.backends.torch import ensure_torchvision
from detectors.base import ModelFiles, RunOptions
from detectors.errors import DetectorConfigError, ModelError, ModelFileError
from detectors.export.export import prepare
from detectors.models.config import DetectorConfig
from detectors.models.hf_config import ModelConfig, ProcessorConfig
from detectors.models.manifest import Manifest
from detectors.network import ViT
from detectors.photos.synthetic import scene
from detectors.preprocess import from_processor_config
from detectors.registry import backend_class

pytestmark = pytest.mark.export
LABELS = ["no_roadwork", "roadwork"]
NAMED = {"architecture": "resnet18", "num_classes": 2}
# Of one of each kind of layer; ViTs with fewer layers than published.
SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"depth": 2},
    "resnet18": {},
    "resnetv2_50": {},
    "convnext_atto": {"depths": [1, 1, 1, 1]},
    "efficientnet_lite0": {},
    "mobilenetv3_small_050": {},
}
SIZES = [(640, 360), (360, 641), (224, 224), (37, 29), (301, 225), (258, 257)]
CHANGES: list[dict[str, Any]] = [
    {"crop_pct": 0.9, "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]},
    {"crop_pct": 1.0, "interpolation": "lanczos", "crop_mode": "squash"},
    {"crop_pct": 0.95, "crop_mode": "squash", "input_size": [3, 160, 161]},
    {"crop_pct": 0.875, "crop_mode": "border", "input_size": [3, 97, 97], "mean": [0.1, 0.2, 0.9]},
    {"crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"},
    {"crop_pct": 0.77, "input_size": [3, 97, 64], "interpolation": "nearest"},
    {"interpolation": "box"},
    {"source": "nowhere"},  # nothing of the pictures
]


def make_timm(folder: Path, name: str, labels: list[str] | None = LABELS, classes: int = 2, **values: Any) -> Path:
    """Write a network of timm in its hub's form; every weight is drawn at random, those of scales and norms too."""
    ensure_torchvision()
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes, **SMALL[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif key.endswith("running_var"):
                buffer.uniform_(0.8, 1.2)
        # A head that tells pictures apart: by itself it says 0 or 1 of all of them.
        shape = model.pretrained_cfg["input_size"]
        logits = model(torch.randn(8, *shape))
        head = next(
            layer for layer in model.get_classifier().modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        )
        head.weight /= logits.std()
        head.bias.copy_((head.bias - logits.mean(0)) / logits.std())
    named = {} if labels is None else {"label_names": labels}
    timm.models._hub.save_for_hf(model, folder, model_config=named, model_args=SMALL[name], safe_serialization=True)
    change(folder, pretrained_cfg=json.loads((folder / "config.json").read_text())["pretrained_cfg"] | values)
    return folder


def change(folder: Path, **values: Any) -> None:
    """Change some keys of config.json; None removes one."""
    known = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


def timms_own(
    folder: Path, score: Callable[[Any], Any] = lambda logits: logits.softmax(1)
) -> Callable[[Image.Image], float]:
    """Return what timm says itself, without transformers around it."""
    import timm
    import torch

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def probability(picture: Image.Image) -> float:
        with torch.inference_mode():
            return float(score(model(transform(picture)[None]))[0, -1])

    return probability


def prepared(folder: Path, **keys: Any) -> Path:
    return prepare("ViT", DetectorConfig(hf_repo=str(folder), path=folder / "x.yaml", **keys), folder / "models")


@pytest.mark.parametrize("name", SMALL)
def test_a_network_of_timm_answers_as_timm_does(tmp_path: Path, name: str) -> None:
    original = make_timm(tmp_path / "timm", name)
    folder = prepared(original)
    manifest = Manifest.read(folder)
    assert manifest.output.labels == LABELS
    assert manifest.output.index == 1
    assert manifest.parity.max_difference <= 1e-4
    assert "timm" in manifest.made_with
    served = ViT(ModelFiles(folder, manifest, None), backend_class("onnx"), RunOptions())
    own = timms_own(original)
    answers = [(served.judge(picture).probability, own(picture)) for picture in pictures()]
    assert max(abs(one - other) for one, other in answers) <= 1e-4
    assert len({round(one, 6) for one, _ in answers}) > 1


def test_a_single_output_is_a_sigmoid(tmp_path: Path) -> None:
    original = make_timm(tmp_path / "timm", "mobilenetv3_small_050", ["roadwork"], 1)
    folder = prepared(original)
    manifest = Manifest.read(folder)
    assert manifest.output.activation == "sigmoid"
    own = timms_own(original, lambda logits: logits.sigmoid())
    served = ViT(ModelFiles(folder, manifest, None), backend_class("onnx"), RunOptions())
    assert all(served.judge(picture).probability == pytest.approx(own(picture), abs=1e-4) for picture in pictures())


def test_a_config_without_pretrained_cfg_is_refused_by_that_name(tmp_path: Path) -> None:
    original = make_timm(tmp_path / "timm", "mobilenetv3_small_050")
    change(original, pretrained_cfg=None)
    with pytest.raises(ModelError, match=r"config\.json: architecture='mobilenetv3_small_050'.*pretrained_cfg"):
        prepared(original)


def test_the_form_of_transformers_is_the_same_model(tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    original = make_timm(tmp_path / "timm", "resnet18")
    change(original, model_args=None)  # timm 1.0.31 says num_classes there again, which transformers 4.57 chokes on
    AutoModelForImageClassification.from_pretrained(original).save_pretrained(tmp_path / "wrapped")
    assert ModelConfig.read(tmp_path / "wrapped").model_type == "timm_wrapper"
    one, other = (Manifest.read(prepared(folder)) for folder in (original, tmp_path / "wrapped"))
    assert one.output == other.output
    assert one.known_answer == pytest.approx(other.known_answer, abs=1e-6)


def pictures() -> list[Image.Image]:
    return [Image.fromarray(scene(width, height, seed=3)) for width, height in SIZES]


@pytest.mark.parametrize("values", CHANGES, ids=lambda values: "-".join(map(str, values.values())))
def test_the_preprocessing_is_that_of_timms_transform(tmp_path: Path, values: dict[str, Any]) -> None:
    ensure_torchvision()
    import timm

    (tmp_path / "config.json").write_text(json.dumps(NAMED | {"pretrained_cfg": values}))
    config = timm.data.resolve_data_config(pretrained_cfg=values)
    transform = timm.data.create_transform(**config)
    ours = from_processor_config(ProcessorConfig.read(tmp_path))
    for picture in pictures():
        expected = transform(picture)[None].numpy()
        result = ours(picture)
        assert result.shape == expected.shape == ours.shape
        np.testing.assert_allclose(result, expected, atol=1e-6, rtol=1e-6)


def test_without_label_names_the_configuration_says_which_output_counts(tmp_path: Path) -> None:
    original = make_timm(tmp_path / "timm", "mobilenetv3_small_050", labels=None)
    with pytest.raises(DetectorConfigError, match="LABEL_0"):
        prepared(original)
    output = Manifest.read(prepared(original, roadwork_class_index=1)).output
    assert (output.index, output.labels) == (1, ["LABEL_0", "LABEL_1"])


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("pretrained_cfg.input_size", {"pretrained_cfg": {"input_size": [224, 224]}}),
    ("pretrained_cfg", {"pretrained_cfg": {"input_size": [1, 224, 224]}}),
    ("pretrained_cfg.interpolation", {"pretrained_cfg": {"interpolation": "random"}}),
    ("pretrained_cfg.crop_mode", {"pretrained_cfg": {"crop_mode": "corner"}}),
    ("pretrained_cfg.crop_pct", {"pretrained_cfg": {"crop_pct": 0}}),
    ("pretrained_cfg.std", {"pretrained_cfg": {"std": [0.5, 0.5, 0]}}),
    ("label_names", {"label_names": {"0": "roadwork"}}),
    ("label_names", {"label_names": ["a", "b", "c"]}),
    ("num_classes", {"num_classes": None}),
    ("architecture", {"architecture": None}),
    ("architecture", {"architecture": "hf-hub:somebody/else"}),
    ("model_args", {"model_args": []}),
    ("input_size", {}),
]


@pytest.mark.parametrize(("key", "values"), WRONG)
def test_a_wrong_value_is_named_with_its_file(tmp_path: Path, key: str, values: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(NAMED | {"pretrained_cfg": {}} | values))
    with pytest.raises(ModelFileError) as caught:
        ProcessorConfig.read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert key.rpartition(".")[2] in str(caught.value)


def test_keys_of_timm_may_hold_anything_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "num_classes": 0, "label_names": {"a": 1}}))
    assert len(ModelConfig.read(tmp_path).labels) == 2


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    original = make_timm(tmp_path / "timm", "resnet18")
    change(original, architecture="resnet34")
    with pytest.raises(ModelError, match="layer"):
        prepared(original)
    change(original, architecture="resnet18", model_args={"checkpoint_path": "pickle.bin"})
    with pytest.raises(ModelError, match="checkpoint_path"):
        prepared(original)
    change(original, architecture="resnet_of_nobody", model_args=None)
    with pytest.raises(ModelError, match="resnet_of_nobody"):
        prepared(original)
