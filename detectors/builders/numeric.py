"""Layers in numpy, in float32 as torch computes them."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def softmax(scores: Array) -> Array:
    """Return the shares along the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), dtype=np.float32)


def layer_norm(value: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Return the layer normalization along the last axis."""
    centred = value - value.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(eps))
    return np.asarray(scaled * weight + bias, dtype=np.float32)


def gelu(value: Array) -> Array:
    """The exact form; erf by Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is below float32's own."""
    x = np.abs(value) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * x)
    polynomial = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial = (polynomial + np.float32(factor)) * t
    erf = np.sign(value) * (1 - polynomial * np.exp(-x * x))
    return np.asarray(0.5 * value * (1 + erf), dtype=np.float32)


def patches(pixels: Array, kernel: Array, bias: Array) -> Array:
    """Return the tokens, shape (patches, size), of pixels (3, height, width) and a kernel (size, 3, patch, patch)."""
    size, channels, patch, _ = kernel.shape
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    squares = pixels[:, : rows * patch, : columns * patch].reshape(channels, rows, patch, columns, patch)
    flat = squares.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    return np.asarray(flat @ kernel.reshape(size, -1).T + bias, dtype=np.float32)
