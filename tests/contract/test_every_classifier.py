"""Every type of `AutoModelForImageClassification`: its graph answers as it does, or it is refused by name.

All numbers of the tiny networks are drawn: those that a network begins with (a layer scale near 0, a GRN of 0, a batch
norm's mean of 0) would hide a part that the graph lacks.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from detectors.backends.torch import ensure_torchvision
from detectors.errors import ModelError
from detectors.export.hf_graph import REFUSED, export_graph, refuse_type
from detectors.models import MODEL_FILE

ensure_torchvision()

import transformers  # noqa: E402
from transformers.modeling_utils import no_init_weights  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES  # noqa: E402

CLASSES = [
    (kind, name) for kind, names in NAMES.items() for name in ([names] if isinstance(names, str) else list(names))
]
SIDE = 64
# Of transformers 4.57: its configuration lacks the hidden_size that this class asks for, so nobody can have one.
BROKEN = {"EfficientFormerForImageClassificationWithTeacher"}
PACKAGES = {"timm_wrapper": "timm"}  # without which transformers does not load the type
SIDES = dict.fromkeys(("PerceiverForImageClassificationFourier", "PerceiverForImageClassificationConvProcessing"), 224)

PLAIN = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": SIDE,
    "patch_size": 16,
}  # fmt: skip
STRETCHED = PLAIN | {"image_size": 96}  # positions for more patches than the picture has
BIASED = PLAIN | {"use_relative_position_bias": True, "use_absolute_position_embeddings": True}
TOWER = {"vision_config": PLAIN}
WINDOWS = {"image_size": SIDE, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
PYRAMID = STAGES | {"num_attention_heads": [1, 1, 2, 2]}
STEM = {
    "model_type": "bit", "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_groups": 4,
    "layer_type": "bottleneck", "out_features": ["stage3"], "embedding_dynamic_padding": True, "global_padding": "same",
}  # fmt: skip
PERCEIVER = {
    "num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 1, "num_blocks": 2, "num_cross_attention_heads": 1,
    "image_size": SIDE,
}  # fmt: skip
# Small values of each type's configuration; a type that is not here and not refused fails, until somebody adds it.
TINY: dict[str, dict[str, Any]] = {
    "beit": BIASED,
    "bit": {"embedding_size": 16, "hidden_sizes": [16, 32, 32, 32], "depths": [1, 1, 1, 1], "num_groups": 4},
    "clip": TOWER,
    "convnext": STAGES,
    "convnextv2": STAGES,
    "cvt": {"embed_dim": [16, 16, 16], "num_heads": [1, 2, 2], "depth": [2, 2, 3]},
    "data2vec-vision": BIASED,
    "deit": PLAIN,
    "dinov2": STRETCHED,
    "dinov2_with_registers": STRETCHED,
    "donut-swin": WINDOWS,
    "efficientformer": {
        "depths": [1, 1, 1, 2], "hidden_sizes": [8, 16, 16, 32], "dim": 32, "resolution": 2, "image_size": SIDE
    },
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320, "image_size": SIDE},
    "focalnet": {
        "image_size": SIDE, "embed_dim": 16, "depths": [1, 1], "hidden_sizes": [16, 32], "focal_levels": [2, 2],
        "focal_windows": [3, 3], "use_layerscale": True,
    },
    "hgnet_v2": {
        "stem_channels": [3, 8, 16], "hidden_sizes": [16, 32, 32, 32], "stage_in_channels": [16, 16, 32, 32],
        "stage_mid_channels": [8] * 4, "stage_out_channels": [16, 32, 32, 32], "stage_num_blocks": [1] * 4,
        "stage_numb_of_layers": [2] * 4,
    },
    "hiera": {"image_size": [SIDE, SIDE], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "ijepa": PLAIN,
    "levit": {
        "image_size": SIDE, "hidden_sizes": [16, 32, 32], "num_attention_heads": [1, 2, 2], "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "metaclip_2": TOWER,
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "mobilevit": {
        "image_size": SIDE, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
    },
    "mobilevitv2": {"image_size": SIDE, "width_multiplier": 0.25},
    "perceiver": PERCEIVER,
    "poolformer": STAGES,
    "pvt": PYRAMID | {"image_size": SIDE},
    "pvt_v2": PYRAMID | {"image_size": SIDE},
    "regnet": STAGES | {"embedding_size": 8, "groups_width": 4},
    "resnet": STAGES | {"embedding_size": 8},
    "segformer": PYRAMID,
    "siglip": TOWER,
    "swiftformer": {"image_size": SIDE, "depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16]},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "textnet": {
        "stem_out_channels": 8, "hidden_sizes": [8, 8, 8, 16, 16],
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]],
        "conv_layer_strides": [[1], [2], [2], [2]],
    },
    "timm_wrapper": {"architecture": "resnet10t"},
    "van": STAGES | {"image_size": SIDE},
    "vit": PLAIN,
    "vit_hybrid": PLAIN | {
        "backbone_config": STEM, "backbone": None, "patch_size": 1, "backbone_featmap_shape": [1, 16, 4, 4],
    },
    "vit_msn": PLAIN,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Threads cost tiny networks more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(model: Any) -> None:
    """Draw every number anew, so that each layer's output has about the size of its input."""
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=source) / max(1, value[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                value.copy_(torch.rand(value.shape, generator=source) + 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=source) / 2)
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn(value.shape, generator=source) / 3)
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=source) + 0.5)


def make(kind: str, name: str) -> Any:
    config = transformers.CONFIG_MAPPING[kind](**TINY[kind], num_labels=3)
    config._attn_implementation = "eager"
    with no_init_weights():
        model = getattr(transformers, name)(config)
    draw(model)
    return model.eval()  # at which some keep what follows from their weights


@pytest.mark.parametrize(("kind", "name"), CLASSES, ids=[name for _, name in CLASSES])
def test_a_classifier_becomes_an_equal_graph_or_is_refused_by_name(kind: str, name: str, tmp_path: Path) -> None:
    if kind in REFUSED:
        with pytest.raises(ModelError, match=f"{kind} .*{REFUSED[kind]}"):
            refuse_type(kind)
        return
    refuse_type(kind)
    if kind in PACKAGES and find_spec(PACKAGES[kind]) is None:
        with pytest.raises(ImportError, match=PACKAGES[kind]):
            make(kind, name)
        return
    if name in BROKEN:
        with pytest.raises(AttributeError, match="hidden_size"):
            make(kind, name)
        return
    model = make(kind, name)
    side = SIDES.get(name, SIDE)
    pictures = torch.randn(2, 1, 3, side, side, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = np.concatenate([model(pixel_values=picture).logits for picture in pictures])
    export_graph(model, tmp_path, side, side)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(tmp_path / MODEL_FILE, options).run
    found = np.concatenate([run(None, {"pixel_values": picture.numpy()})[0] for picture in pictures])
    (shape,) = [[one.dim_value for one in value.type.tensor_type.shape.dim] for value in graph(tmp_path).output]
    assert shape == [1, 3]
    assert np.abs(expected[0] - expected[1]).max() > 1e-6  # or nothing of the picture came through
    assert np.abs(found - expected).max() < 2e-6 * max(1, np.abs(expected).max())


def graph(folder: Path) -> Any:
    return onnx.load(folder / MODEL_FILE).graph


def test_what_is_refused_is_a_type_of_the_library() -> None:
    assert REFUSED.keys() <= NAMES.keys()


def test_the_padding_before_a_pool_stays_one_of_zeros(tmp_path: Path) -> None:
    """Without the axes onnxruntime takes the border for minus infinity."""
    export_graph(make("bit", "BitForImageClassification"), tmp_path, SIDE, SIDE)
    pooled = {node.input[0] for node in graph(tmp_path).node if node.op_type == "MaxPool"}
    pads = [node for node in graph(tmp_path).node if node.op_type == "Pad" and node.output[0] in pooled]
    assert pads
    assert all(len(node.input) == 4 for node in pads)
