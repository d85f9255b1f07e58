"""The plain ViT (Dosovitskiy et al. 2020, arXiv 2010.11929), with the names of transformers."""

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
from pydantic import Field, model_validator

from detectors.builders.architecture import Architecture
from detectors.builders.graph import LOGITS, PIXELS, GraphBuilder
from detectors.builders.numeric import Array, gelu, layer_norm, patches, softmax
from detectors.errors import ModelError
from detectors.models.hf_config import ModelConfig, Positive


class ViTConfig(ModelConfig):
    """The shape of a plain ViT, with transformers' defaults for what its file leaves out."""

    patch_size: Positive = 16
    hidden_size: Positive = 768
    num_hidden_layers: Positive = 12
    num_attention_heads: Positive = 12
    num_channels: Literal[3] = 3
    layer_norm_eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-12

    @model_validator(mode="after")
    def _heads_fit(self) -> "ViTConfig":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads}: a divisor of hidden_size={self.hidden_size} is needed"
            )
        return self


class PlainViT(Architecture):
    """The ViT with the exact GELU: its graph runs as fast as an exporter's."""

    graph_name = "plain ViT graph"
    shape = ViTConfig

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = ViTConfig.read(folder)

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation is the exact GELU."""
        return config.hidden_act == "gelu"

    def build(self, height: int, width: int) -> onnx.ModelProto:
        """Build the graph; the last layer computes the first token alone."""
        config = self.config
        builder = _ViTGraph(self.weights)
        tokens = builder.embeddings(height // config.patch_size, width // config.patch_size)
        heads, eps = config.num_attention_heads, config.layer_norm_eps
        last = config.num_hidden_layers - 1
        for layer in range(last + 1):
            tokens = builder.layer(f"vit.encoder.layer.{layer}.", tokens, heads, eps, only_first=layer == last)
        builder.linear(
            "classifier", builder.norm("vit.layernorm", builder.reshape(tokens, [1, -1]), eps), output=LOGITS
        )
        return builder.model("vit", height, width, builder.weight("classifier.weight").shape[0])

    def forward(self, pixels: Array) -> Array:
        """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
        heads, eps = self.config.num_attention_heads, self.config.layer_norm_eps
        weights = self.weights

        def linear(name: str, value: Array) -> Array:
            product: Array = value @ weights[name + ".weight"].T
            return product + weights[name + ".bias"] if name + ".bias" in weights else product

        def norm(name: str, value: Array) -> Array:
            return layer_norm(value, weights[name + ".weight"], weights[name + ".bias"], eps)

        def split(value: Array) -> Array:
            return value.reshape(len(value), heads, -1).swapaxes(0, 1)

        projection = "vit.embeddings.patch_embeddings.projection"
        embedded = patches(pixels, weights[projection + ".weight"], weights[projection + ".bias"])
        tokens = np.concatenate([weights["vit.embeddings.cls_token"][0], embedded])
        tokens = tokens + weights["vit.embeddings.position_embeddings"][0]
        for layer in range(self.config.num_hidden_layers):
            name = f"vit.encoder.layer.{layer}."
            before = norm(name + "layernorm_before", tokens)
            query, key, value = (
                split(linear(f"{name}attention.attention.{part}", before)) for part in ("query", "key", "value")
            )
            mixed = softmax(query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1]))) @ value
            tokens = tokens + linear(name + "attention.output.dense", mixed.swapaxes(0, 1).reshape(tokens.shape))
            hidden = linear(name + "intermediate.dense", norm(name + "layernorm_after", tokens))
            tokens = tokens + linear(name + "output.dense", gelu(hidden))
        logits: Array = linear("classifier", norm("vit.layernorm", tokens[:1]))[0]
        return logits


class _ViTGraph(GraphBuilder):
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
            PIXELS,
            self.constant("patch.weight", kernel),
            self.constant("patch.bias", self.weight(projection + ".bias")),
        ]
        squares = self.node("Conv", names, kernel_shape=patch, strides=patch)
        flat = self.reshape(squares, [1, size, rows * columns])
        sequence = self.node("Transpose", [flat], perm=[0, 2, 1])
        token = self.constant("cls_token", self.weight("vit.embeddings.cls_token"))
        tokens = self.node("Concat", [token, sequence], axis=1)
        return self.node("Add", [tokens, self.constant("position", position)])

    def layer(self, prefix: str, tokens: str, heads: int, eps: float, *, only_first: bool) -> str:
        """Add a layer; of the last one only the first token is asked for, which saves 7 % of a ViT-base's work."""
        known = self.norm(prefix + "layernorm_before", tokens, eps)
        queries, tokens = (self.first(known), self.first(tokens)) if only_first else (known, tokens)
        tokens = self.node("Add", [self.attention(prefix + "attention.", queries, known, heads), tokens])
        hidden = self.linear(prefix + "intermediate.dense", self.norm(prefix + "layernorm_after", tokens, eps))
        return self.node("Add", [self.linear(prefix + "output.dense", self.node("Gelu", [hidden])), tokens])

    def first(self, tokens: str) -> str:
        return self.node("Gather", [tokens, self.constant("zero", np.array([0], np.int64))], axis=1)

    def attention(self, prefix: str, queries: str, known: str, heads: int) -> str:
        size = self.weight(prefix + "attention.query.weight").shape[0]
        depth = size // heads
        query = self.linear(prefix + "attention.query", queries, scale=1 / math.sqrt(depth))
        key = self.linear(prefix + "attention.key", known)
        value = self.linear(prefix + "attention.value", known)
        split = [1, -1, heads, depth]
        query = self.node("Transpose", [self.reshape(query, split)], perm=[0, 2, 1, 3])
        key = self.node("Transpose", [self.reshape(key, split)], perm=[0, 2, 3, 1])
        value = self.node("Transpose", [self.reshape(value, split)], perm=[0, 2, 1, 3])
        scores = self.node("Softmax", [self.node("MatMul", [query, key])], axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [scores, value])], perm=[0, 2, 1, 3])
        return self.linear(prefix + "output.dense", self.reshape(mixed, [1, -1, size]))
