"""The architectures that are built without torch, by the class of transformers that config.json names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from detectors.builders.numeric import Array
from detectors.models.checkpoint import Weights
from detectors.models.hf_config import ModelConfig
from detectors.models.manifest import CURRENT_BUILDERS
from detectors.photos.image import decode
from detectors.preprocess import Preprocessing

# The class in config.json's `architectures` -> module:class of its builder.
ARCHITECTURES = {
    "ConvNextForImageClassification": "detectors.builders.convnext:ConvNext",
    "ConvNextV2ForImageClassification": "detectors.builders.convnext:ConvNextV2",
    "DeiTForImageClassification": "detectors.builders.vit:DeiT",
    "DeiTForImageClassificationWithTeacher": "detectors.builders.vit:DistilledDeiT",
    "Dinov2ForImageClassification": "detectors.builders.vit:DINOv2",
    "Dinov2WithRegistersForImageClassification": "detectors.builders.vit:DINOv2WithRegisters",
    "EfficientNetForImageClassification": "detectors.builders.efficientnet:EfficientNet",
    "RegNetForImageClassification": "detectors.builders.resnet:RegNet",
    "ResNetForImageClassification": "detectors.builders.resnet:ResNet",
    "SiglipForImageClassification": "detectors.builders.vit:SigLIP",
    "ViTForImageClassification": "detectors.builders.vit:PlainViT",
}


class Architecture(ABC):
    """One kind of network, built and run without torch, so that a small server never needs its two gigabytes.

    Attributes:
        graph_name: of its graphs in a manifest's `made_with`; `CURRENT_BUILDERS` has its version.
    """

    graph_name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.weights: Mapping[str, Array] = Weights(folder)

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether it knows this network of its kind; the exporter takes the others."""
        return True

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the version of its graphs, for the manifest."""
        return {cls.graph_name: CURRENT_BUILDERS[cls.graph_name]}

    @abstractmethod
    def build(self, height: int, width: int) -> onnx.ModelProto:
        """Build the graph: `pixel_values` (1, 3, height, width) to `logits` (1, classes).

        Raises:
            ModelError: a weight is missing, or has another shape than `config.json` says.
        """

    @abstractmethod
    def forward(self, pixels: Array) -> Array:
        """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""


def find_architecture(config: ModelConfig) -> type[Architecture] | None:
    """Return what builds this network without torch; None: the exporter does."""
    names = config.architectures or []
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        return None
    module, _, name = ARCHITECTURES[names[0]].partition(":")
    found: type[Architecture] = getattr(import_module(module), name)
    return found if found.builds(config) else None


def numpy_reference(
    network: Architecture, preprocessing: Preprocessing, index: int, multiple: bool
) -> Callable[[bytes], float]:
    """Return a network as a function from an encoded photo to the probability of output `index`.

    Args:
        network: runs in numpy.
        preprocessing: of the model.
        index: of the output.
        multiple: whether each output has a sigmoid of its own; else all share a softmax.
    """

    def probability(data: bytes) -> float:
        logits = network.forward(preprocessing(decode(data))[0]).astype(np.float64)
        if multiple:
            return float(1 / (1 + np.exp(-logits[index])))
        powers = np.exp(logits - logits.max())
        return float(powers[index] / powers.sum())

    return probability
