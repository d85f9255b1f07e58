"""A ViTForImageClassification as a plain ONNX graph, straight from its safetensors file: no torch.

The architecture of Dosovitskiy et al. 2020 (arXiv 2010.11929) with the parameter names of transformers. A small server
then never needs torch's two gigabytes; the graph runs as fast as an exporter's.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from detectors.errors import ModelError
from detectors.models.checkpoint import read_weights, refuse_missing
from detectors.models.hf_config import ViTConfig
from detectors.photos.image import decode
from detectors.preprocess import Preprocessing

OPSET = 20  # the first with Gelu
IR_VERSION = 10

Array = NDArray[np.float32]


def build_graph(folder: Path, height: int, width: int) -> onnx.ModelProto:
    """Build the graph: `pixel_values` (1, 3, height, width) to `logits` (1, classes).

    Raises:
        ModelError: a weight is missing, or has another shape than `config.json` says.
    """
    config = ViTConfig.read(folder)
    builder = _Builder(read_weights(folder))
    tokens = builder.embeddings(height // config.patch_size, width // config.patch_size)
    heads, eps = config.num_attention_heads, config.layer_norm_eps
    last = config.num_hidden_layers - 1
    for layer in range(last + 1):
        tokens = builder.layer(f"vit.encoder.layer.{layer}.", tokens, heads, eps, only_first=layer == last)
    logits = builder.linear(
        "classifier", builder.norm("vit.layernorm", builder.reshape(tokens, [1, -1]), eps), output="logits"
    )
    classes = builder.weight("classifier.weight").shape[0]
    graph = helper.make_graph(
        builder.nodes,
        "vit",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, [1, classes])],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="roadwork-miner")
    model.ir_version = IR_VERSION
    return model


class _Builder:
    """Collects nodes and initializers; every method returns the name of its output."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def embeddings(self, rows: int, columns: int) -> str:
        projection = "vit.embeddings.patch_embeddings.projection"
        kernel = self.weight(projection + ".weight")
        size, patch = kernel.shape[0], list(kernel.shape[2:])
        position = self.weight("vit.embeddings.position_embeddings")
        if position.shape != (1, rows * columns + 1, size):
            raise ModelError(
                f"the preprocessing gives {rows}×{columns} patches; the model has positions for {position.shape[1] - 1}"
            )
        names = [
            "pixel_values",
            self.constant("patch.weight", kernel),
            self.constant("patch.bias", self.weight(projection + ".bias")),
        ]
        patches = self.node("Conv", names, kernel_shape=patch, strides=patch)
        flat = self.reshape(patches, [1, size, rows * columns])
        sequence = self.node("Transpose", [flat], perm=[0, 2, 1])
        token = self.constant("cls_token", self.weight("vit.embeddings.cls_token"))
        tokens = self.node("Concat", [token, sequence], axis=1)
        return self.node("Add", [tokens, self.constant("position", position)])

    def layer(self, prefix: str, tokens: str, heads: int, eps: float, *, only_first: bool) -> str:
        """Add a layer; of the last one only the first token is asked for, which saves 7 % of a ViT-base's work."""
        known = self.norm(prefix + "layernorm_before", tokens, eps)
        asking, tokens = (self.first(known), self.first(tokens)) if only_first else (known, tokens)
        tokens = self.node("Add", [self.attention(prefix + "attention.", asking, known, heads), tokens])
        hidden = self.linear(prefix + "intermediate.dense", self.norm(prefix + "layernorm_after", tokens, eps))
        return self.node("Add", [self.linear(prefix + "output.dense", self.node("Gelu", [hidden])), tokens])

    def first(self, tokens: str) -> str:
        return self.node("Gather", [tokens, self.constant("zero", np.array([0], np.int64))], axis=1)

    def attention(self, prefix: str, asking: str, known: str, heads: int) -> str:
        size = self.weight(prefix + "attention.query.weight").shape[0]
        depth = size // heads
        query = self.linear(prefix + "attention.query", asking, scale=1 / math.sqrt(depth))
        key = self.linear(prefix + "attention.key", known)
        value = self.linear(prefix + "attention.value", known)
        split = [1, -1, heads, depth]
        query = self.node("Transpose", [self.reshape(query, split)], perm=[0, 2, 1, 3])
        key = self.node("Transpose", [self.reshape(key, split)], perm=[0, 2, 3, 1])
        value = self.node("Transpose", [self.reshape(value, split)], perm=[0, 2, 1, 3])
        scores = self.node("Softmax", [self.node("MatMul", [query, key])], axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [scores, value])], perm=[0, 2, 1, 3])
        return self.linear(prefix + "output.dense", self.reshape(mixed, [1, -1, size]))

    def linear(self, name: str, value: str, scale: float = 1.0, output: str | None = None) -> str:
        weight = self.constant(
            name + ".weight", np.ascontiguousarray(self.weight(name + ".weight").T * np.float32(scale))
        )
        product = self.node("MatMul", [value, weight])
        if name + ".bias" not in self.weights:  # qkv_bias: false
            return product
        bias = self.constant(name + ".bias", self.weight(name + ".bias") * np.float32(scale))
        return self.node("Add", [product, bias], output=output)

    def norm(self, name: str, value: str, eps: float) -> str:
        names = [self.constant(f"{name}.{part}", self.weight(f"{name}.{part}")) for part in ("weight", "bias")]
        return self.node("LayerNormalization", [value, *names], axis=-1, epsilon=eps)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [value, self.constant(f"shape {list(shape)}", np.array(shape, np.int64))])

    def node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if all(tensor.name != name for tensor in self.initializers):
            self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str) -> Array:
        refuse_missing([name] if name not in self.weights else [])
        return self.weights[name]


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
