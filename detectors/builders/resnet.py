"""ResNet (He et al. 2015, arXiv 1512.03385) and RegNet (Radosavovic et al. 2020, arXiv 2003.13678)."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import onnx
from pydantic import Field

from detectors.builders.architecture import Architecture
from detectors.builders.convolution import ACTIVATIONS, ConvolutionGraph, ConvolutionNumbers, narrowed
from detectors.builders.numeric import Array
from detectors.models.hf_config import ModelConfig, Positive


class ResNetConfig(ModelConfig):
    """The shape of a ResNet, with transformers' defaults for what its file leaves out."""

    num_channels: Literal[3] = 3
    embedding_size: Positive = 64
    hidden_sizes: list[Positive] = Field([256, 512, 1024, 2048], min_length=1)
    depths: list[Positive] = Field([3, 4, 6, 3], min_length=1)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: str | None = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False


class RegNetConfig(ModelConfig):
    """The shape of a RegNet, with transformers' defaults for what its file leaves out."""

    num_channels: Literal[3] = 3
    embedding_size: Positive = 32
    hidden_sizes: list[Positive] = Field([128, 192, 512, 1088], min_length=1)
    depths: list[Positive] = Field([2, 6, 12, 2], min_length=1)
    groups_width: Positive = 64
    layer_type: Literal["x", "y"] = "y"
    hidden_act: str | None = "relu"


class ResNet(Architecture):
    """The network of residual blocks, whose batch normalizations are part of its convolutions."""

    graph_name = "ResNet graph"
    shape: ClassVar[type[ModelConfig]] = ResNetConfig
    prefix = "resnet"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config: Any = self.shape.read(folder)

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation is known, and each stage has a size and a depth."""
        own: Any = narrowed(config, cls.shape)
        return own is None or (own.hidden_act in ACTIVATIONS and len(own.hidden_sizes) == len(own.depths))

    def build(self, height: int, width: int) -> onnx.ModelProto:
        """Build the graph."""
        graph = ConvolutionGraph(self.weights)
        self._run(graph)
        return graph.model(self.prefix, height, width, graph.weight("classifier.1.weight").shape[0])

    def forward(self, pixels: Array) -> Array:
        """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
        logits: Array = self._run(ConvolutionNumbers(self.weights, pixels))
        return logits

    def _run(self, layers: Any) -> Any:
        """Pass the input through the network: as nodes of a graph or as numbers."""
        value = self.stem(layers)
        size = self.config.embedding_size
        for stage, (width, depth) in enumerate(zip(self.config.hidden_sizes, self.config.depths, strict=True)):
            for block in range(depth):
                stride = 2 if block == 0 and (stage > 0 or self.halves_first) else 1
                name = f"{self.prefix}.encoder.stages.{stage}.layers.{block}."
                changed = self.block(layers, name, value, size, width, stride)
                if stride > 1 or size != width:
                    value = self.unit(layers, name + "shortcut", value, stride=stride)
                value = layers.activate(self.config.hidden_act, layers.add(changed, value))
                size = width
        return layers.head("classifier.1", layers.mean(value))

    @property
    def halves_first(self) -> bool:
        """Whether the first stage halves the plane."""
        return bool(self.config.downsample_in_first_stage)

    def stem(self, layers: Any) -> Any:
        """Return what comes before the first stage."""
        value = self.unit(layers, "resnet.embedder.embedder", layers.start(), stride=2, act=True)
        return layers.max_pool(value)

    def block(self, layers: Any, name: str, value: Any, size: int, width: int, stride: int) -> Any:
        """Return what a block adds to its input; inside it ReLU is the activation, whatever config.json says."""
        if self.config.layer_type == "basic":
            value = layers.activate("relu", self.unit(layers, name + "layer.0", value, stride=stride))
            return self.unit(layers, name + "layer.1", value)
        first, second = (stride, 1) if self.config.downsample_in_bottleneck else (1, stride)
        value = layers.activate("relu", self.unit(layers, name + "layer.0", value, stride=first))
        value = layers.activate("relu", self.unit(layers, name + "layer.1", value, stride=second))
        return self.unit(layers, name + "layer.2", value)

    def unit(self, layers: Any, name: str, value: Any, *, stride: int = 1, groups: int = 1, act: bool = False) -> Any:
        """Return a convolution with its normalization; `act`: and the activation."""
        margin = layers.weight(name + ".convolution.weight").shape[-1] // 2
        found = layers.convolution(
            name + ".convolution", value, norm=name + ".normalization", stride=stride, pads=(margin, margin),
            groups=groups,
        )  # fmt: skip
        return layers.activate(self.config.hidden_act, found) if act else found


class RegNet(ResNet):
    """The ResNet of grouped convolutions; its Y layers weigh the channels by squeeze and excitation."""

    graph_name = "RegNet graph"
    shape = RegNetConfig
    prefix = "regnet"
    halves_first = True

    def stem(self, layers: Any) -> Any:
        """Return what comes before the first stage."""
        return self.unit(layers, "regnet.embedder.embedder", layers.start(), stride=2, act=True)

    def block(self, layers: Any, name: str, value: Any, size: int, width: int, stride: int) -> Any:
        """Return what a block adds to its input."""
        groups = max(1, width // self.config.groups_width)
        value = self.unit(layers, name + "layer.0", value, act=True)
        value = self.unit(layers, name + "layer.1", value, stride=stride, groups=groups, act=True)
        if self.config.layer_type == "x":
            return self.unit(layers, name + "layer.2", value)
        few = layers.activate("relu", layers.convolution(name + "layer.2.attention.0", layers.mean(value)))
        value = layers.gate(value, layers.convolution(name + "layer.2.attention.2", few))
        return self.unit(layers, name + "layer.3", value)
