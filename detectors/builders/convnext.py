"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545) and ConvNeXt V2 (Woo et al. 2023, arXiv 2301.00808)."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
from pydantic import Field

from detectors.builders.architecture import Architecture
from detectors.builders.convolution import ACTIVATIONS, ConvolutionGraph, ConvolutionNumbers, narrowed
from detectors.builders.graph import LOGITS, PIXELS
from detectors.builders.numeric import Array, layer_norm, patches
from detectors.models.hf_config import ModelConfig, Positive

NORM_EPS = 1e-6  # of every layer normalization but the last
RESPONSE_EPS = 1e-6
MARGIN = 3  # zeros around a plane, for the 7×7 kernels


class ConvNextConfig(ModelConfig):
    """The shape of a ConvNeXt of either version, with transformers' defaults for what its file leaves out."""

    num_channels: Literal[3] = 3
    patch_size: Positive = 4
    num_stages: Positive = 4
    hidden_sizes: list[Positive] | None = None
    depths: list[Positive] | None = None
    layer_norm_eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-12
    layer_scale_init_value: float = 1e-6

    @property
    def stages(self) -> list[int]:
        """The number of blocks of each stage."""
        return [3, 3, 9, 3] if self.depths is None else self.depths

    @property
    def is_even(self) -> bool:
        """Whether every stage has a size and a depth."""
        sizes = 4 if self.hidden_sizes is None else len(self.hidden_sizes)
        return self.num_stages == len(self.stages) == sizes


class ConvNext(Architecture):
    """The ConvNeXt whose last axis is the channels throughout; only its 7×7 convolutions see planes."""

    graph_name = "ConvNeXt graph"
    prefix = "convnext"
    responds = False  # whether its blocks have a global response normalization, or else a scale

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = ConvNextConfig.read(folder)

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation is known, and each stage has a size and a depth."""
        own = narrowed(config, ConvNextConfig)
        return own is None or (own.hidden_act in ACTIVATIONS and own.is_even)

    @property
    def scales(self) -> bool:
        """Whether what a block adds is scaled by learnt factors."""
        return not self.responds and self.config.layer_scale_init_value > 0

    def build(self, height: int, width: int) -> onnx.ModelProto:
        """Build the graph."""
        graph, prefix = _ConvNextGraph(self.weights), self.prefix
        patch = self.config.patch_size
        value = graph.last(graph.convolution(f"{prefix}.embeddings.patch_embeddings", PIXELS, stride=patch))
        value = graph.norm(f"{prefix}.embeddings.layernorm", value, NORM_EPS)
        rows, columns = height // patch, width // patch
        for stage, depth in enumerate(self.config.stages):
            name = f"{prefix}.encoder.stages.{stage}."
            if stage:
                value = graph.first(graph.norm(name + "downsampling_layer.0", value, NORM_EPS))
                value = graph.last(graph.convolution(name + "downsampling_layer.1", value, stride=2))
                rows, columns = rows // 2, columns // 2
            for block in range(depth):
                changed = self._block(graph, f"{name}layers.{block}.", value, rows * columns)
                value = graph.add(changed, value)
        axes = graph.constant("plane", np.array([1, 2], np.int64))
        value = graph.node("ReduceMean", [value, axes], keepdims=0)
        graph.linear("classifier", graph.norm(f"{prefix}.layernorm", value, self.config.layer_norm_eps), output=LOGITS)
        return graph.model(prefix, height, width, graph.weight("classifier.weight").shape[0])

    def _block(self, graph: "_ConvNextGraph", name: str, value: str, places: int) -> str:
        size = graph.weight(name + "dwconv.weight").shape[0]
        plane = graph.convolution(name + "dwconv", graph.first(value), pads=(MARGIN, MARGIN), groups=size)
        tokens = graph.norm(name + "layernorm", graph.last(plane), NORM_EPS)
        hidden = graph.activate(self.config.hidden_act or "", graph.linear(name + "pwconv1", tokens))
        weight, bias = graph.weight(name + "pwconv2.weight"), graph.weight(name + "pwconv2.bias")
        if self.responds:
            hidden = graph.respond(name + "grn", hidden, places)
            bias = bias + weight @ graph.weight(name + "grn.bias").ravel()
        if self.scales:
            scale = graph.weight(name + "layer_scale_parameter")
            weight, bias = weight * scale[:, None], bias * scale
        product = graph.node(
            "MatMul", [hidden, graph.constant(name + "pwconv2.weight", np.ascontiguousarray(weight.T))]
        )
        return graph.node("Add", [product, graph.constant(name + "pwconv2.bias", bias)])

    def forward(self, pixels: Array) -> Array:
        """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
        layers, prefix = ConvolutionNumbers(self.weights, pixels), self.prefix
        weight = layers.weight

        def norm(name: str, value: Array, eps: float = NORM_EPS) -> Array:
            return layer_norm(value, weight(name + ".weight"), weight(name + ".bias"), eps)

        def linear(name: str, value: Array) -> Array:
            return np.asarray(value @ weight(name + ".weight").T + weight(name + ".bias"), dtype=np.float32)

        def squares(name: str, value: Array) -> Array:
            """Return the convolution of squares that do not overlap, shape (rows, columns, size)."""
            kernel = weight(name + ".weight")
            rows, columns = (side // kernel.shape[-1] for side in value.shape[1:])
            return patches(value, kernel, weight(name + ".bias")).reshape(rows, columns, -1)

        value = norm(f"{prefix}.embeddings.layernorm", squares(f"{prefix}.embeddings.patch_embeddings", pixels))
        for stage, depth in enumerate(self.config.stages):
            name = f"{prefix}.encoder.stages.{stage}."
            if stage:
                value = norm(name + "downsampling_layer.0", value)
                value = squares(name + "downsampling_layer.1", value.transpose(2, 0, 1))
            for block in range(depth):
                own = f"{name}layers.{block}."
                plane = layers.convolution(
                    own + "dwconv", value.transpose(2, 0, 1), pads=(MARGIN, MARGIN), groups=value.shape[-1]
                )
                hidden = linear(own + "pwconv1", norm(own + "layernorm", plane.transpose(1, 2, 0)))
                hidden = layers.activate(self.config.hidden_act or "", hidden)
                if self.responds:
                    response = np.sqrt(np.square(hidden).sum((0, 1)))
                    response = response / (response.mean() + np.float32(RESPONSE_EPS))
                    hidden = weight(own + "grn.weight").ravel() * (hidden * response) + hidden
                    hidden = hidden + weight(own + "grn.bias").ravel()
                changed = linear(own + "pwconv2", hidden)
                value = value + (weight(own + "layer_scale_parameter") * changed if self.scales else changed)
        pooled = norm(f"{prefix}.layernorm", np.asarray(value.mean((0, 1))), self.config.layer_norm_eps)
        return linear("classifier", pooled)


class ConvNextV2(ConvNext):
    """The ConvNeXt whose blocks compare the responses of their channels over the whole plane."""

    graph_name = "ConvNeXtV2 graph"
    prefix = "convnextv2"
    responds = True


class _ConvNextGraph(ConvolutionGraph):
    def first(self, value: str) -> str:
        """Add a transposition that puts the channels first."""
        return self.node("Transpose", [value], perm=[0, 3, 1, 2])

    def last(self, value: str) -> str:
        """Add a transposition that puts the channels last."""
        return self.node("Transpose", [value], perm=[0, 2, 3, 1])

    def respond(self, name: str, value: str, places: int) -> str:
        """Add a global response normalization without its bias, which the next layer's takes up.

        The sum over the plane is a product with a row of ones: onnxruntime's ReduceL2 goes along the channels and takes
        a third of an int8 graph's time.
        """
        weight = self.weight(name + ".weight").ravel()
        squares = self.reshape(self.node("Mul", [value, value]), [places, weight.size])
        ones = self.constant(f"ones {places}", np.ones((1, places), np.float32))
        response = self.node("Sqrt", [self.node("MatMul", [ones, squares])])
        mean = self.node("ReduceMean", [response, self.constant("last", np.array([-1], np.int64))], keepdims=1)
        eps = self.constant("response.eps", np.array(RESPONSE_EPS, np.float32))
        share = self.node("Div", [response, self.node("Add", [mean, eps])])
        factors = self.node("Mul", [share, self.constant(name + ".weight", weight)])
        return self.node("Mul", [value, self.node("Add", [factors, self.constant("one", np.array(1, np.float32))])])
