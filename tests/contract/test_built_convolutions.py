"""Convolutional networks that are built without torch, against torch and against numpy."""

import builtins
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from detectors.backends.torch import ensure_torchvision, load_model
from detectors.base import RunOptions
from detectors.builders.architecture import ARCHITECTURES, Architecture, find_architecture
from detectors.errors import ModelError, ModelFileError
from detectors.export.export import prepare
from detectors.models.config import DetectorConfig
from detectors.models.hf_config import ModelConfig
from detectors.models.manifest import BETTER_TODAY, CURRENT_BUILDERS, Manifest, is_outdated
from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
from tests.models import LABELS, photo

STAGES = {"hidden_sizes": [16, 24, 32], "depths": [1, 2, 1]}
BLOCKS = {
    "width_coefficient": 0.3, "depth_coefficient": 1.1, "hidden_dim": 384, "strides": [1, 2, 2, 2, 1, 2, 1],
    "depthwise_padding": [3, 6], "num_block_repeats": [1, 1, 2, 1, 1, 1, 1],
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnext": ("ConvNext", STAGES | {"num_stages": 3}),
    "convnext without scales": ("ConvNext", STAGES | {"num_stages": 3, "layer_scale_init_value": 0.0}),
    "convnextv2": ("ConvNextV2", STAGES | {"num_stages": 3}),
    "convnextv2 of other patches": ("ConvNextV2", STAGES | {"num_stages": 3, "patch_size": 3, "hidden_act": "silu"}),
    "efficientnet": ("EfficientNet", BLOCKS),
    "efficientnet with relu6": ("EfficientNet", BLOCKS | {"hidden_act": "relu6"}),
    "resnet": ("ResNet", STAGES | {"embedding_size": 8}),
    "resnet of basic layers": ("ResNet", STAGES | {"embedding_size": 16, "layer_type": "basic"}),
    "resnet of basic layers with silu": (
        "ResNet",
        STAGES | {"embedding_size": 8, "layer_type": "basic", "hidden_act": "silu"},
    ),
    "resnet that halves early": (
        "ResNet",
        STAGES | {"downsample_in_first_stage": True, "downsample_in_bottleneck": True, "hidden_act": "gelu"},
    ),
    "regnet x": ("RegNet", STAGES | {"layer_type": "x", "groups_width": 8}),
    "regnet y": ("RegNet", STAGES | {"layer_type": "y", "groups_width": 8, "embedding_size": 16}),
}
SIZES = [(64, 64), (97, 131), (75, 64)]


def make(folder: Path, kind: str) -> Path:
    """Write a tiny network whose every parameter and statistic is drawn: initial values would hide errors."""
    ensure_torchvision()
    import transformers

    name, values = KINDS[kind]
    torch.manual_seed(1)
    labels = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    config = getattr(transformers, f"{name}Config")(**values, **labels)
    model = getattr(transformers, f"{name}ForImageClassification")(config).train()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "grn" not in parameter_name:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            elif parameter_name.endswith("bias"):
                parameter.normal_(0, 0.3)
            else:
                parameter.uniform_(0.5, 1.5)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        model(torch.randn(4, 3, 96, 96))  # statistics that keep the numbers within reach of float32
        model.eval().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 80}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "model", request.param)


@pytest.fixture
def convnextv2(tmp_path: Path) -> Path:
    return make(tmp_path / "model", "convnextv2")


def architecture(folder: Path) -> Architecture:
    found = find_architecture(ModelConfig.read(folder))
    assert found is not None
    return found(folder)


def run(graph: onnx.ModelProto, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return softmax(session.run(None, {"pixel_values": pixels[None]})[0][0])


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum())


def assert_equal(folder: Path, height: int, width: int) -> None:
    pixels = np.random.default_rng(height).standard_normal((3, height, width)).astype(np.float32)
    with torch.no_grad():
        logits = load_model(folder)(torch.from_numpy(pixels[None])).logits[0].numpy()
    network = architecture(folder)
    assert run(network.build(height, width), pixels) == pytest.approx(softmax(logits), abs=2e-6)
    assert softmax(network.forward(pixels)) == pytest.approx(softmax(logits), abs=1e-5)
    assert network.forward(pixels) == pytest.approx(logits, abs=1e-5 * max(1.0, float(np.abs(logits).max())))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_graph_and_numpy_are_torchs(made: Path, height: int, width: int) -> None:
    assert_equal(made, height, width)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits(made: Path, tmp_path: Path, kind: torch.dtype) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    halves = {name: value.to(kind) if value.is_floating_point() else value for name, value in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    assert_equal(folder, 64, 80)


def test_a_box_without_torch_exports_and_compares_with_numpy(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import detectors.export.hf as module

    real = builtins.__import__

    def without_torch(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in {"torch", "transformers", "optimum"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(builtins, "__import__", without_torch)
    manifest = Manifest.read(prepare("ViT", DetectorConfig(hf_repo=str(made), path=made / "x.yaml"), tmp_path))
    assert manifest.parity.reference == "numpy"
    assert manifest.parity.max_difference < 1e-5
    assert "torch" not in manifest.made_with
    assert architecture(made).graph_name in manifest.made_with
    assert not is_outdated(manifest, tmp_path / manifest.name / manifest.revision)


def test_only_what_is_built_is_better_than_what_optimum_traced() -> None:
    assert set(ARCHITECTURES) > BETTER_TODAY


def test_a_missing_weight_is_named(made: Path, tmp_path: Path) -> None:
    weights = load_file(made / "model.safetensors")
    name = sorted(name for name in weights if not name.endswith("num_batches_tracked"))[-1]
    folder = Path(shutil.copytree(made, tmp_path / "model"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    network = architecture(folder)
    with pytest.raises(ModelError, match=rf"hold no {name}:"):
        network.build(64, 64)
    with pytest.raises(ModelError, match=rf"hold no {name}:"):
        network.forward(np.zeros((3, 64, 64), np.float32))


def test_batch_normalizations_are_part_of_the_convolutions(made: Path) -> None:
    nodes = Counter(node.op_type for node in architecture(made).build(64, 64).graph.node)
    assert nodes["Conv"] > 3
    assert not nodes["BatchNormalization"]


def test_gates_that_are_open_are_left_out(tmp_path: Path) -> None:
    folder = make(tmp_path, "efficientnet with relu6")
    assert Counter(node.op_type for node in architecture(folder).build(64, 64).graph.node)["Sigmoid"] > 3
    weights = load_file(folder / "model.safetensors")
    gates = [name for name in weights if "squeeze_excite.expand" in name]
    opened = {name: torch.full_like(weights[name], 20.0 if name.endswith("bias") else 0.0) for name in gates}
    save_file(weights | opened, folder / "model.safetensors", metadata={"format": "pt"})
    pixels = np.random.default_rng(1).standard_normal((3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        logits = load_model(folder)(torch.from_numpy(pixels[None])).logits[0].numpy()
    graph = architecture(folder).build(64, 64)
    assert run(graph, pixels) == pytest.approx(softmax(logits), abs=1e-4)
    assert architecture(folder).forward(pixels) == pytest.approx(logits, rel=1e-4)
    nodes = Counter(node.op_type for node in graph.graph.node)
    assert not nodes["Sigmoid"]
    assert nodes["GlobalAveragePool"] == 1


def test_the_global_response_is_a_product(convnextv2: Path) -> None:
    graph = architecture(convnextv2).build(64, 64).graph
    nodes = Counter(node.op_type for node in graph.node)
    assert not nodes.keys() & {"ReduceL2", "ReduceSumSquare", "ReduceSum"}
    assert nodes["Transpose"] == 2 * nodes["Conv"] - 1, "only around convolutions, and the pixels come as planes"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("convnext", {"hidden_act": "mish"}),
        ("convnextv2", {"num_stages": 2}),
        ("efficientnet", {"pooling_type": "max"}),
        ("efficientnet", {"hidden_act": "gelu_new"}),
        ("efficientnet", {"strides": [1, 2]}),
        ("resnet", {"hidden_act": "leaky_relu"}),
        ("regnet x", {"depths": [1]}),
    ],
)
def test_what_is_not_known_is_left_to_the_exporter(tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    path = make(tmp_path, kind) / "config.json"
    assert find_architecture(ModelConfig.read(tmp_path)) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    assert find_architecture(ModelConfig.read(tmp_path)) is None


@pytest.mark.parametrize("kind", ["convnextv2", "efficientnet", "resnet", "regnet x"])
def test_a_wrong_value_is_named_by_its_key(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_channels": 4}))
    with pytest.raises(ModelFileError, match="num_channels"):
        architecture(tmp_path)


def test_each_graph_has_a_version(made: Path) -> None:
    name = architecture(made).graph_name
    assert architecture(made).versions() == {name: CURRENT_BUILDERS[name]}


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", ["convnextv2", "efficientnet", "regnet y"])
def test_the_graphs_are_quantised(tmp_path: Path, kind: str, backend: str) -> None:
    folder = make(tmp_path / "model", kind)
    prepared = prepare("ViT", DetectorConfig(hf_repo=str(folder), path=tmp_path / "x.yaml"), tmp_path / "models")
    photos = CalibrationPhotos([photo(320, 240, seed=seed) for seed in range(9)])
    request = PrecisionRequest("int8", backend, tmp_path / "models", RunOptions(), photos, 0.5)
    gate = Manifest.read(make_faster(prepared, request)).gate
    assert gate is not None
    assert 0 < gate.max_difference < 0.3
