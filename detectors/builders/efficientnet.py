"""EfficientNet (Tan and Le 2019, arXiv 1905.11946), with the names of transformers."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
from pydantic import Field

from detectors.builders.architecture import Architecture
from detectors.builders.convolution import ACTIVATIONS, ConvolutionGraph, ConvolutionNumbers, narrowed
from detectors.builders.numeric import Array
from detectors.models.hf_config import ModelConfig, Positive

Coefficient = Annotated[float, Field(gt=0, le=100)]
STEM_SIZE = 32
OPEN = 20.0  # whose sigmoid is 1 in 32 bits


class EfficientNetConfig(ModelConfig):
    """The shape of an EfficientNet, with transformers' defaults for what its file leaves out."""

    num_channels: Literal[3] = 3
    width_coefficient: Coefficient = 2.0
    depth_coefficient: Coefficient = 3.1
    depth_divisor: Positive = 8
    kernel_sizes: list[Positive] = Field([3, 3, 5, 3, 5, 5, 3], min_length=1)
    in_channels: list[Positive] = Field([32, 16, 24, 40, 80, 112, 192])
    out_channels: list[Positive] = Field([16, 24, 40, 80, 112, 192, 320])
    depthwise_padding: list[int] = Field([])
    strides: list[Literal[1, 2]] = Field([1, 2, 2, 2, 1, 2, 1])
    num_block_repeats: list[Positive] = Field([1, 2, 2, 3, 3, 4, 1])
    expand_ratios: list[Positive] = Field([1, 6, 6, 6, 6, 6, 6])
    hidden_act: str | None = "swish"
    pooling_type: str = "mean"
    batch_norm_eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.001

    @property
    def is_even(self) -> bool:
        """Whether each kind of block has an entry in every list, and its kernel a middle."""
        lists = (self.in_channels, self.out_channels, self.strides, self.num_block_repeats, self.expand_ratios)
        return all(len(values) == len(self.kernel_sizes) for values in lists) and all(
            size % 2 for size in self.kernel_sizes
        )


class EfficientNet(Architecture):
    """The network of inverted bottlenecks, whose batch normalizations are part of its convolutions."""

    graph_name = "EfficientNet graph"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = EfficientNetConfig.read(folder)

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation and the pooling are known."""
        own = narrowed(config, EfficientNetConfig)
        return own is None or (own.hidden_act in ACTIVATIONS and own.pooling_type == "mean" and own.is_even)

    def build(self, height: int, width: int) -> onnx.ModelProto:
        """Build the graph."""
        graph = ConvolutionGraph(self.weights)
        self._run(graph)
        return graph.model("efficientnet", height, width, graph.weight("classifier.weight").shape[0])

    def forward(self, pixels: Array) -> Array:
        """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
        logits: Array = self._run(ConvolutionNumbers(self.weights, pixels))
        return logits

    def _run(self, layers: Any) -> Any:
        """Pass the input through the network: as nodes of a graph or as numbers."""
        config = self.config
        name = "efficientnet.embeddings."
        value = self._unit(
            layers, name + "convolution", name + "batchnorm", layers.start(), stride=2, pads=(0, 1), act=True
        )
        number = 0
        kinds = zip(config.kernel_sizes, config.strides, config.expand_ratios, config.num_block_repeats, strict=True)
        for kernel, stride, ratio, repeats in kinds:
            for repeat in range(math.ceil(config.depth_coefficient * repeats)):
                first = repeat == 0
                value = self._block(layers, number, value, kernel, stride if first else 1, ratio > 1, adds=not first)
                number += 1
        name = "efficientnet.encoder.top_"
        value = self._unit(layers, name + "conv", name + "bn", value, act=True)
        return layers.head("classifier", layers.mean(value))

    def _block(
        self, layers: Any, number: int, value: Any, kernel: int, stride: int, expands: bool, *, adds: bool
    ) -> Any:
        name = f"efficientnet.encoder.blocks.{number}."
        found, half = value, kernel // 2
        if expands:
            found = self._unit(layers, name + "expansion.expand_conv", name + "expansion.expand_bn", found, act=True)
        # Of a plane that is halved, the file may ask for the same zeros on both sides; TensorFlow has one less before.
        before = half - 1 if stride > 1 and number not in self.config.depthwise_padding else half
        size = layers.weight(name + "depthwise_conv.depthwise_conv.weight").shape[0]
        found = self._unit(
            layers, name + "depthwise_conv.depthwise_conv", name + "depthwise_conv.depthwise_norm", found,
            stride=stride, pads=(before, half), groups=size, act=True,
        )  # fmt: skip
        if not self._is_open(layers, name + "squeeze_excite.expand"):
            squeezed = layers.convolution(name + "squeeze_excite.reduce", layers.mean(found))
            squeezed = layers.activate(self.config.hidden_act, squeezed)
            found = layers.gate(found, layers.convolution(name + "squeeze_excite.expand", squeezed))
        found = self._unit(layers, name + "projection.project_conv", name + "projection.project_bn", found)
        return layers.add(found, value) if adds else found

    def _is_open(self, layers: Any, name: str) -> bool:
        """Return whether a gate lets everything through: EfficientNet-Lite, which has none, is written so."""
        return not layers.weight(name + ".weight").any() and bool((layers.weight(name + ".bias") >= OPEN).all())

    def _unit(self, layers: Any, name: str, norm: str, value: Any, *, act: bool = False, **values: Any) -> Any:
        found = layers.convolution(name, value, norm=norm, eps=self.config.batch_norm_eps, **values)
        return layers.activate(self.config.hidden_act, found) if act else found
