"""Convolutional networks: what their graphs and their runs in numpy have in common."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from detectors.builders.graph import LOGITS, PIXELS, GraphBuilder
from detectors.builders.numeric import Array, gelu
from detectors.models.checkpoint import refuse_missing
from detectors.models.hf_config import ModelConfig

ACTIVATIONS = {  # transformers' name -> ours
    "gelu": "Gelu", "relu": "Relu", "relu6": "Clip", "silu": "Swish", "swish": "Swish"
}  # fmt: skip
RELU6 = {"relu6.low": 0.0, "relu6.high": 6.0}
BATCH_NORM_EPS = 1e-5  # torch's default

Config = TypeVar("Config", bound=ModelConfig)


def narrowed(config: ModelConfig, kind: type[Config]) -> Config | None:
    """Return a file's values as those of a kind of network; None: one is wrong, and reading the file names it."""
    try:
        return kind.model_validate(config.model_dump(exclude_unset=True))
    except ValidationError:
        return None


class ConvolutionGraph(GraphBuilder):
    """Adds convolutions, with their batch normalization folded in, and what stands between them."""

    def start(self) -> str:
        """Return the name of the input."""
        return PIXELS

    def convolution(
        self,
        name: str,
        value: str,
        *,
        norm: str | None = None,
        eps: float = BATCH_NORM_EPS,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        groups: int = 1,
    ) -> str:
        """Add a convolution; `pads` are the zeros before and after, the same along both axes."""
        kernel, bias = self.weight(name + ".weight"), None
        if norm is None:
            bias = self.weight(name + ".bias")
        else:
            parts = (self.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var"))
            with np.errstate(over="ignore", invalid="ignore"):  # the known picture's answer shows it
                scale, shift = _affine(*parts, eps=eps)
                kernel, bias = kernel * scale[:, None, None, None], shift
        names = [value, self.constant(name + ".weight", kernel), self.constant(name + ".bias", bias)]
        before, after = pads
        shape = list(kernel.shape[2:])
        return self.node(
            "Conv", names, kernel_shape=shape, strides=[stride] * 2, pads=[before] * 2 + [after] * 2, group=groups
        )

    def activate(self, kind: str, value: str) -> str:
        """Add an activation by transformers' name."""
        operator = ACTIVATIONS[kind]
        if operator == "Swish":  # no operator of its own before opset 24
            return self.node("Mul", [value, self.node("Sigmoid", [value])])
        if operator == "Clip":
            bounds = [self.constant(name, np.array(bound, dtype=np.float32)) for name, bound in RELU6.items()]
            return self.node("Clip", [value, *bounds])
        return self.node(operator, [value])

    def gate(self, value: str, scores: str) -> str:
        """Add a product with the sigmoid of scores."""
        return self.node("Mul", [value, self.node("Sigmoid", [scores])])

    def add(self, first: str, second: str) -> str:
        """Add a sum."""
        return self.node("Add", [first, second])

    def mean(self, value: str) -> str:
        """Add the mean over the plane, whose axes stay."""
        return self.node("GlobalAveragePool", [value])

    def max_pool(self, value: str) -> str:
        """Add the largest of each 3×3, every second one."""
        return self.node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def head(self, name: str, value: str) -> str:
        """Add the last layer, of values whose plane is a single point."""
        return self.linear(name, self.reshape(value, [1, -1]), output=LOGITS)


class ConvolutionNumbers:
    """Does in numpy what the graph does, but keeps the batch normalization apart; values have shape (c, h, w)."""

    def __init__(self, weights: Mapping[str, Array], pixels: Array) -> None:
        self.weights = weights
        self.pixels = pixels

    def start(self) -> Array:
        """Return the input."""
        return self.pixels

    def weight(self, name: str) -> Array:
        """Return a weight of the checkpoint.

        Raises:
            ModelError: there is none of this name.
        """
        refuse_missing([name] if name not in self.weights else [])
        return self.weights[name]

    def convolution(
        self,
        name: str,
        value: Array,
        *,
        norm: str | None = None,
        eps: float = BATCH_NORM_EPS,
        stride: int = 1,
        pads: tuple[int, int] = (0, 0),
        groups: int = 1,
    ) -> Array:
        """Return a convolution; `pads` are the zeros before and after, the same along both axes."""
        found = convolve(value, self.weight(name + ".weight"), stride, pads, groups)
        if norm is None:
            return found + self.weight(name + ".bias")[:, None, None]
        weight, bias, mean, variance = (
            self.weight(f"{norm}.{part}")[:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.asarray((found - mean) / np.sqrt(variance + np.float32(eps)) * weight + bias, dtype=np.float32)

    def activate(self, kind: str, value: Array) -> Array:
        """Return an activation by transformers' name."""
        operator = ACTIVATIONS[kind]
        if operator == "Gelu":
            return gelu(value)
        if operator == "Swish":
            return value * _sigmoid(value)
        return np.clip(value, np.float32(0), np.float32(6 if operator == "Clip" else np.inf))

    def gate(self, value: Array, scores: Array) -> Array:
        """Return a product with the sigmoid of scores."""
        return value * _sigmoid(scores)

    def add(self, first: Array, second: Array) -> Array:
        """Return a sum."""
        return first + second

    def mean(self, value: Array) -> Array:
        """Return the mean over the plane, whose axes stay."""
        return np.asarray(value.mean((1, 2), keepdims=True), dtype=np.float32)

    def max_pool(self, value: Array) -> Array:
        """Return the largest of each 3×3, every second one."""
        padded = np.pad(value, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        rows, columns = ((side - 1) // 2 + 1 for side in value.shape[1:])
        found = np.full((len(value), rows, columns), -np.inf, dtype=np.float32)
        for row in range(3):
            for column in range(3):
                np.maximum(found, padded[:, row : row + 2 * rows : 2, column : column + 2 * columns : 2][
                    :, :rows, :columns
                ], out=found)  # fmt: skip
        return found

    def head(self, name: str, value: Array) -> Array:
        """Return the last layer, of values whose plane is a single point."""
        return np.asarray(self.weight(name + ".weight") @ value.ravel() + self.weight(name + ".bias"), np.float32)


def convolve(value: Array, kernel: Array, stride: int, pads: tuple[int, int], groups: int) -> Array:
    """Return the convolution of values of shape (c, h, w) with a kernel of shape (outputs, c / groups, k, k)."""
    padded = np.pad(np.ascontiguousarray(value), ((0, 0), pads, pads))  # channels last would be read column by column
    outputs, inputs, size, _ = kernel.shape
    rows, columns = ((side - size) // stride + 1 for side in padded.shape[1:])
    if inputs == 1 and outputs == groups:  # depthwise: a sum of shifted planes
        found, product = np.zeros((2, outputs, rows, columns), dtype=np.float32)
        for row in range(size):
            for column in range(size):
                plane = padded[:, row : row + stride * rows : stride, column : column + stride * columns : stride]
                found += np.multiply(plane[:, :rows, :columns], kernel[:, 0, row, column, None, None], out=product)
        return np.asarray(found, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    flat = windows.transpose(0, 3, 4, 1, 2).reshape(groups, inputs * size * size, rows * columns)
    return np.asarray(kernel.reshape(groups, outputs // groups, -1) @ flat, np.float32).reshape(outputs, rows, columns)


def _affine(weight: Array, bias: Array, mean: Array, variance: Array, *, eps: float) -> tuple[Array, Array]:
    """Return a batch normalization's factors and terms, in double precision until the end."""
    scale = weight.astype(np.float64) / np.sqrt(variance.astype(np.float64) + eps)
    return scale.astype(np.float32), (bias - mean * scale).astype(np.float32)


def _sigmoid(value: Array) -> Array:
    """Return the sigmoid, without overflow on either side."""
    powers = np.exp(-np.abs(value))
    return np.asarray(np.where(value < 0, powers, np.float32(1)) / (1 + powers), dtype=np.float32)
