"""The graphs of the ViT family that are built without torch, against torch and against numpy."""

import builtins
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate

from detectors.backends.torch import ensure_torchvision, load_transformers
from detectors.builders.architecture import Architecture, find_architecture
from detectors.builders.graph import LOGITS, PIXELS
from detectors.builders.numeric import resized
from detectors.errors import ModelError
from detectors.export.export import prepare
from detectors.models.checkpoint import WEIGHTS_FILE
from detectors.models.config import DetectorConfig
from detectors.models.hf_config import ModelConfig
from detectors.models.manifest import Manifest, is_outdated
from detectors.photos.synthetic import parity_pictures
from tests.models import LABELS
from tests.stored_dinov2 import ANSWERS, write_stored_dinov2

WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
INNER = {"intermediate_size": 48}


class Kind(NamedTuple):
    """A class of transformers, the values of its configuration, and a size of picture."""

    name: str
    values: dict[str, Any]
    height: int
    width: int


KINDS = {
    "vit": Kind("ViT", INNER | {"image_size": [48, 80]}, 48, 80),
    "vit without bias": Kind("ViT", INNER | {"image_size": 64, "qkv_bias": False}, 64, 64),
    "vit with tanh": Kind("ViT", INNER | {"image_size": 64, "hidden_act": "gelu_pytorch_tanh"}, 64, 64),
    "deit": Kind("DeiT", INNER | {"image_size": [80, 48]}, 80, 48),
    "distilled deit": Kind("DeiT WithTeacher", INNER | {"image_size": 64}, 64, 64),
    "dinov2": Kind("Dinov2", {"image_size": 70}, 70, 70),
    "dinov2 larger": Kind("Dinov2", {"image_size": 56}, 98, 126),
    "dinov2 smaller": Kind("Dinov2", {"image_size": 126, "qkv_bias": False}, 71, 44),  # no multiples of a patch
    "dinov2 turned": Kind("Dinov2", {"image_size": 56}, 28, 112),  # as many patches, in another shape
    "giant dinov2": Kind("Dinov2", {"image_size": 70, "use_swiglu_ffn": True, "hidden_act": "relu"}, 70, 98),
    "registers": Kind("Dinov2WithRegisters", {"image_size": 64}, 64, 64),
    "registers larger": Kind("Dinov2WithRegisters", {"image_size": 56, "patch_size": 14}, 98, 126),
    "registers smaller": Kind("Dinov2WithRegisters", {"image_size": 518, "patch_size": 14}, 112, 84),
    "giant registers": Kind("Dinov2WithRegisters", {"use_swiglu_ffn": True, "num_register_tokens": 3}, 64, 80),
    "siglip": Kind("Siglip", INNER | {"image_size": 72, "patch_size": 14}, 72, 72),  # of which the last 2 pixels go
    "siglip with erf": Kind("Siglip", INNER | {"image_size": 64, "hidden_act": "gelu"}, 64, 64),
}


def make(kind: Kind, folder: Path) -> Path:
    """Write a tiny network, everything in it drawn at random: scales and registers, too, begin as ones and zeros."""
    ensure_torchvision()
    import transformers

    name, _, suffix = kind.name.partition(" ")
    values = WIDTHS | kind.values
    labels = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    values = {"vision_config": values} if name == "Siglip" else values
    torch.manual_seed(1)
    network = getattr(transformers, f"{name}ForImageClassification{suffix}")(
        getattr(transformers, f"{name}Config")(**labels, **values)
    )
    with torch.no_grad():
        for place, weight in network.named_parameters():
            is_gain = "norm" in place and place.endswith("weight")
            weight.copy_(torch.randn_like(weight) * 0.2 + is_gain)
    network.save_pretrained(folder)
    size = {"height": kind.height, "width": kind.width}
    processor = {"image_processor_type": "ViTImageProcessor", "size": size, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(kind, tmp_path_factory.mktemp("made") / "model")


def network_of(folder: Path) -> Architecture:
    found = find_architecture(ModelConfig.read(folder))
    assert found is not None
    return found(folder)


def probabilities(logits: Any) -> Any:
    return torch.from_numpy(np.asarray(logits)).double().softmax(-1).numpy()


def run(network: Architecture, pixels: Any) -> Any:
    *_, height, width = pixels.shape
    session = onnxruntime.InferenceSession(network.build(height, width).SerializeToString())
    return session.run([LOGITS], {PIXELS: pixels})[0]


def assert_both_agree_with_torch(folder: Path, height: int, width: int) -> None:
    pixels = np.random.default_rng(3).standard_normal((4, 1, 3, height, width)).astype(np.float32)
    theirs, network = load_transformers(folder), network_of(folder)
    with torch.inference_mode():
        expected = np.concatenate([probabilities(theirs(torch.from_numpy(one))) for one in pixels])
    assert np.ptp(expected[:, 1]) > 1e-3, "the pictures make a difference"
    assert probabilities(np.concatenate([run(network, one) for one in pixels])) == pytest.approx(expected, abs=2e-6)
    assert probabilities([network.forward(one[0]) for one in pixels]) == pytest.approx(expected, abs=1e-5)


def test_graph_and_numpy_say_what_torch_says(kind: Kind, folder: Path) -> None:
    assert_both_agree_with_torch(folder, kind.height, kind.width)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["distilled deit", "giant registers", "siglip"])
def test_weights_of_16_bits_are_read_as_torch_reads_them(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    kind = KINDS[name]
    folder = make(kind, tmp_path / "model")
    narrow = {name: value.to(dtype) for name, value in load_file(folder / WEIGHTS_FILE).items()}
    save_file(narrow, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    assert_both_agree_with_torch(folder, kind.height, kind.width)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def block() -> None:
        real = builtins.__import__

        def imported(name: str, *rest: Any) -> Any:
            if name.partition(".")[0] in {"torch", "transformers", "optimum"}:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *rest)

        monkeypatch.setattr(importlib.import_module("detectors.export.hf"), "find_spec", lambda name: None)
        monkeypatch.setattr(builtins, "__import__", imported)

    return block


def export(folder: Path, models: Path) -> Manifest:
    return Manifest.read(prepare("ViT", DetectorConfig(hf_repo=str(folder), path=folder / "x.yaml"), models))


def test_a_box_without_torch_prepares_it(folder: Path, tmp_path: Path, without_torch: Callable[[], None]) -> None:
    """And one with torch finds the same answer to the known picture."""
    expected = export(folder, tmp_path / "with")
    assert expected.parity.reference == "transformers.pipeline"
    assert expected.parity.max_difference < 1e-5
    without_torch()
    manifest = export(folder, tmp_path / "without")
    assert manifest.parity.reference == "numpy"
    assert manifest.parity.max_difference < 1e-5
    assert manifest.known_answer == pytest.approx(expected.known_answer, abs=1e-7)
    assert "torch" not in manifest.made_with
    assert not is_outdated(manifest, folder)
    network = network_of(folder)
    older = manifest.model_copy(update={"made_with": manifest.made_with | {network.graph_name: "0"}})
    assert is_outdated(older, folder)


def test_a_large_graph_has_its_weights_beside_it(
    tmp_path: Path, without_torch: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(KINDS["registers smaller"], tmp_path / "model")
    small = export(folder, tmp_path / "small")
    monkeypatch.setattr(importlib.import_module("detectors.models.store"), "LARGE_GRAPH_BYTES", 1000)
    without_torch()
    large = export(folder, tmp_path / "large")
    assert large.files.keys() - small.files.keys() == {"model.onnx.data"}
    assert large.known_answer == pytest.approx(small.known_answer, abs=1e-7)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "large").rglob("model.onnx*")}
    assert sizes["model.onnx"] < sizes["model.onnx.data"]


def test_every_weight_that_is_missing_is_named(kind: Kind, folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    unused = ("mask_token", ".head.", "distillation_classifier.b", "pooler")
    for name in [name for name in weights if "layer.0" not in name and "layers.0" not in name]:
        if name.endswith(".bias") and "norm" not in name and "patch" not in name:
            continue  # a linear layer may have none
        rest = {other: value for other, value in weights.items() if other != name}
        save_file(rest, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
        if any(part in name for part in unused):
            network_of(tmp_path).build(kind.height, kind.width)
        else:
            with pytest.raises(ModelError, match=f"hold no {re.escape(name)}"):
                network_of(tmp_path).build(kind.height, kind.width)


@pytest.mark.parametrize("name", ["deit", "siglip"])
def test_a_size_that_the_positions_do_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    folder = make(KINDS[name]._replace(height=128, width=112), tmp_path / "model")
    with pytest.raises(ModelError, match=r"8×7 patches; .* 15|9×8 patches; .* 25"):
        export(folder, tmp_path / "models")


def test_positions_that_are_no_square_are_refused(tmp_path: Path) -> None:
    folder = make(Kind("Dinov2", {"image_size": [70, 56]}, 56, 56), tmp_path / "model")
    with pytest.raises(ModelError, match="20 positions"):
        export(folder, tmp_path / "models")


def test_a_head_for_other_labels_is_refused(tmp_path: Path, without_torch: Callable[[], None]) -> None:
    folder = make(KINDS["dinov2"], tmp_path / "model")
    values = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {"0": "None", "1": "Roadwork", "2": "Both"}, "label2id": None}
    (folder / "config.json").write_text(json.dumps(values | labels))
    without_torch()
    with pytest.raises(ModelError, match=r"2 outputs.* 3 labels"):
        export(folder, tmp_path / "models")


@pytest.mark.parametrize(
    ("name", "values", "built"),
    [
        ("ViT", {}, True),
        ("ViT", {"pruned_heads": {"0": [1]}}, False),
        ("DeiT", {"hidden_act": "relu"}, False),
        ("Dinov2", {"hidden_act": "relu"}, False),
        ("Dinov2", {"hidden_act": "relu", "use_swiglu_ffn": True}, True),
        ("Dinov2WithRegisters", {}, True),
        ("Siglip", {}, True),
        ("Siglip", {"hidden_act": "relu"}, True),  # of no part of it
        ("Siglip", {"vision_config": {"hidden_act": "gelu"}}, True),
        ("Siglip", {"vision_config": {"hidden_act": "quick_gelu"}}, False),
        ("Siglip", {"vision_config": 3}, False),
        ("Siglip2", {}, False),
    ],
)
def test_which_networks_are_built(name: str, values: dict[str, Any], built: bool) -> None:
    config = ModelConfig.model_validate({"architectures": [f"{name}ForImageClassification"]} | values)
    assert (find_architecture(config) is not None) is built


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (18, 11), (31, 40), (14, 14), (1, 3)])
def test_a_grid_is_resized_as_torch_does_it(size: tuple[int, int], antialias: bool) -> None:
    grid = torch.randn(1, 5, 14, 14, generator=torch.Generator().manual_seed(0))
    expected = interpolate(grid, size=size, mode="bicubic", align_corners=False, antialias=antialias)
    ours = resized(grid[0].permute(1, 2, 0).numpy(), *size, antialias=antialias)
    assert ours.transpose(2, 0, 1) == pytest.approx(expected[0].numpy(), abs=5e-6)


def test_the_stored_answers_are_torchs(tmp_path: Path) -> None:
    """Those that an environment without torch is held to, in tests/process/test_pythons.py."""
    from detectors.export.hf import ViTExporter

    folder = write_stored_dinov2(tmp_path / "dinov2")
    exporter = ViTExporter(folder, DetectorConfig(hf_repo=str(folder), path=folder / "x.yaml"))
    assert exporter.reference_name == "transformers.pipeline"
    reference = exporter.reference()
    assert [reference(picture) for picture in parity_pictures()] == pytest.approx(ANSWERS, abs=1e-5)
