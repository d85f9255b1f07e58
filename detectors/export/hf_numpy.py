"""The same ViT by numpy alone: the reference of the parity check where there is no torch.

Written from the architecture and not from the graph; the tests hold it to torch's answers.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.models.checkpoint import read_weights
from detectors.models.model_config import ViTConfig
from detectors.photos.image import decode
from detectors.preprocess import Preprocessing

Array = NDArray[np.float32]


def numpy_reference(folder: Path, preprocessing: Preprocessing, index: int, multiple: bool) -> Callable[[bytes], float]:
    """Return the model as a function from an encoded photo to the probability of output `index`."""
    config = ViTConfig.read(folder)
    weights = read_weights(folder)

    def probability(data: bytes) -> float:
        logits = forward(weights, config, preprocessing(decode(data))[0]).astype(np.float64)
        if multiple:
            return float(1 / (1 + np.exp(-logits[index])))
        powers = np.exp(logits - logits.max())
        return float(powers[index] / powers.sum())

    return probability


def forward(weights: dict[str, Array], config: ViTConfig, pixels: Array) -> Array:
    """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
    heads, eps = config.num_attention_heads, config.layer_norm_eps

    def linear(name: str, value: Array) -> Array:
        product: Array = value @ weights[name + ".weight"].T
        return product + weights[name + ".bias"] if name + ".bias" in weights else product

    def norm(name: str, value: Array) -> Array:
        centred = value - value.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(eps))
        return np.asarray(scaled * weights[name + ".weight"] + weights[name + ".bias"], dtype=np.float32)

    def split(value: Array) -> Array:
        return value.reshape(len(value), heads, -1).swapaxes(0, 1)

    tokens = _patches(weights, pixels)
    for layer in range(config.num_hidden_layers):
        name = f"vit.encoder.layer.{layer}."
        before = norm(name + "layernorm_before", tokens)
        query, key, value = (
            split(linear(f"{name}attention.attention.{part}", before)) for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1]))
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (powers / powers.sum(-1, keepdims=True)) @ value
        tokens = tokens + linear(name + "attention.output.dense", mixed.swapaxes(0, 1).reshape(tokens.shape))
        hidden = linear(name + "intermediate.dense", norm(name + "layernorm_after", tokens))
        tokens = tokens + linear(name + "output.dense", _gelu(hidden))
    logits: Array = linear("classifier", norm("vit.layernorm", tokens[:1]))[0]
    return logits


def _patches(weights: dict[str, Array], pixels: Array) -> Array:
    """Return the tokens, shape (patches + 1, size), before the first layer."""
    kernel = weights["vit.embeddings.patch_embeddings.projection.weight"]
    size, channels, patch, _ = kernel.shape
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    squares = pixels[:, : rows * patch, : columns * patch].reshape(channels, rows, patch, columns, patch)
    flat = squares.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    embedded = flat @ kernel.reshape(size, -1).T + weights["vit.embeddings.patch_embeddings.projection.bias"]
    tokens = np.concatenate([weights["vit.embeddings.cls_token"][0], embedded])
    return np.asarray(tokens + weights["vit.embeddings.position_embeddings"][0], dtype=np.float32)


def _gelu(value: Array) -> Array:
    """The exact form; erf by Abramowitz and Stegun 7.1.26, whose error of 1.5e-7 is below float32's own."""
    x = np.abs(value) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * x)
    terms = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    polynomial = sum(np.float32(a) * t**power for power, a in enumerate(terms, start=1))
    erf = np.sign(value) * (1 - polynomial * np.exp(-x * x))
    return np.asarray(0.5 * value * (1 + erf), dtype=np.float32)
