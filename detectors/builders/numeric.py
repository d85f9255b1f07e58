"""Layers in numpy, in float32 as torch computes them."""

import math

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


def gelu_tanh(value: Array) -> Array:
    """The GELU by its approximation with a tanh, which some networks were trained with."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (value + np.float32(0.044715) * value**3)
    return np.asarray(0.5 * value * (1 + np.tanh(inner)), dtype=np.float32)


def swiglu(value: Array) -> Array:
    """SiLU of the first half of the last axis times the second half (Shazeer 2020, arXiv 2002.05202)."""
    first, second = np.split(value, 2, axis=-1)
    return np.asarray(first / (1 + np.exp(-first)) * second, dtype=np.float32)


def resized(grid: Array, rows: int, columns: int, *, antialias: bool) -> Array:
    """Return a grid of shape (old rows, old columns, size) in another size, as torch's bicubic interpolation has it."""
    vertical = _bicubic(grid.shape[0], rows, antialias=antialias)
    horizontal = _bicubic(grid.shape[1], columns, antialias=antialias)
    return np.asarray(np.einsum("yi,xj,ijs->yxs", vertical, horizontal, grid, optimize=True), dtype=np.float32)


def _bicubic(old: int, new: int, *, antialias: bool) -> NDArray[np.float64]:
    """Return each new place's shares of the old ones, shape (new, old).

    As in torch's UpSampleKernel.cpp with align_corners=False: with antialias places out of bounds do not count, and the
    filter is as wide as what a new place stands for, with Pillow's a; else the places at the border count for them.
    Positions are in float32 as there: in float64 the shares would differ by 1e-6.
    """
    ratio = np.float32(old) / np.float32(new)
    width, sharpness = (max(float(ratio), 1.0), -0.5) if antialias else (1.0, -0.75)
    shares = np.zeros((new, old))
    for place in range(new):
        middle = float(ratio) * (place + 0.5)
        centre = float(np.float32(middle)) - 0.5 if antialias else float(np.float32(middle - 0.5))
        near = np.arange(math.floor(centre - 2 * width) + 1, math.floor(centre + 2 * width) + 1)
        if antialias:
            near = near[(near >= 0) & (near < old)]
        weights = _cubic(np.abs(near - centre) / width, sharpness)
        np.add.at(shares[place], near.clip(0, old - 1), weights / weights.sum())
    return shares


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Return the cubic convolution (Keys 1981) at distances from its centre."""
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, inner, np.where(distance < 2, outer, 0))
