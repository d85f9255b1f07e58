"""The transformer encoder that the ViT family shares: its graph, and beside it the same network in numpy.

The two are written apart, so that one shows a fault of the other; they share names, shapes and positions.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import onnx
from pydantic import BaseModel, Field, model_validator

from detectors.builders.architecture import Architecture
from detectors.builders.graph import PIXELS, GraphBuilder
from detectors.builders.numeric import Array, gelu, gelu_tanh, layer_norm, patches, softmax, swiglu
from detectors.errors import ModelError
from detectors.models.hf_config import ModelConfig, Positive

SWIGLU = "swiglu"  # not of transformers, which has a class of its own for it
TANH_GELU = "gelu_pytorch_tanh"
ACTIVATIONS = {"gelu": gelu, TANH_GELU: gelu_tanh, SWIGLU: swiglu}

Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EncoderConfig(BaseModel):
    """The shape of an encoder, with the defaults of transformers' ViT for what a file leaves out."""

    patch_size: Positive = 16
    hidden_size: Positive = 768
    num_hidden_layers: Positive = 12
    num_attention_heads: Positive = 12
    num_channels: Literal[3] = 3
    image_size: Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)] = 224
    qkv_bias: bool = True
    layer_norm_eps: Epsilon = 1e-12
    hidden_act: str | None = "gelu"

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads}: a divisor of hidden_size={self.hidden_size} is needed"
            )
        return self

    @property
    def activation(self) -> str:
        """A name in `ACTIVATIONS`."""
        return self.hidden_act or ""


@dataclass(frozen=True)
class WeightNames:
    """Where a kind of checkpoint keeps its weights; the defaults are ViT's."""

    encoder: str  # before all but the head's
    patch: str = "embeddings.patch_embeddings.projection"
    tokens: tuple[str, ...] = ("embeddings.cls_token",)  # before those of the patches
    positions: str = "embeddings.position_embeddings"
    norm: str = "layernorm"  # of what leaves the layers
    layer: str = "encoder.layer"  # before a layer's number; the others are behind it
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after")
    query: str = "attention.attention.query"
    key: str = "attention.attention.key"
    value: str = "attention.attention.value"
    mixed: str = "attention.output.dense"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    scales: tuple[str, str] | None = None  # of each output, before attention and hidden layer are added to the tokens


class VisionTransformer(Architecture):
    """Patches, an encoder, and a head. What differs between the kinds is in `detectors.builders.vit`.

    Attributes:
        names: where the encoder's weights are.
        heads: the linear layers that end in logits.
        asked: the first tokens, which alone the head asks for and the last layer computes: for one of a ViT-base that
            saves 7 % of the work. None: it asks for all.
    """

    names: WeightNames
    heads: ClassVar[tuple[str, ...]] = ("classifier",)
    asked: ClassVar[int | None] = 1

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = self.read_encoder(folder)

    @abstractmethod
    def read_encoder(self, folder: Path) -> EncoderConfig:
        """Read the encoder's shape."""

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation is known here, and every layer has all its heads."""
        return config.hidden_act in ACTIVATIONS and not (config.model_extra or {}).get("pruned_heads")

    @abstractmethod
    def add_head(self, graph: GraphBuilder, tokens: str) -> None:
        """Add what makes logits, shape (1, classes), of normalized tokens, shape (1, tokens, size)."""

    @abstractmethod
    def head(self, tokens: Array) -> Array:
        """Return the logits, shape (classes,), of normalized tokens, shape (tokens, size)."""

    def build(self, height: int, width: int) -> onnx.ModelProto:
        """Build the graph."""
        config, graph = self.config, _EncoderGraph(self)
        kernel = graph.weight(f"{self.names.encoder}{self.names.patch}.weight")
        if kernel.shape[2:] != (config.patch_size, config.patch_size):  # before positions for so many are made
            raise ModelError(f"patch_size={config.patch_size}: the weights have patches of {kernel.shape[2:]}")
        tokens = graph.embeddings(height // config.patch_size, width // config.patch_size)
        for number in range(config.num_hidden_layers):
            asked = self.asked if number == config.num_hidden_layers - 1 else None
            tokens = graph.layer(f"{self.names.encoder}{self.names.layer}.{number}.", tokens, asked)
        self.add_head(graph, graph.norm(self.names.encoder + self.names.norm, tokens, config.layer_norm_eps))
        return graph.model(self.graph_name, height, width, len(self.weights[self.heads[0] + ".weight"]))

    def forward(self, pixels: Array) -> Array:
        """Return the logits, shape (classes,), of pixels of shape (3, height, width)."""
        config, names = self.config, self.names
        projection = names.encoder + names.patch
        embedded = patches(pixels, self.weights[projection + ".weight"], self.weights[projection + ".bias"])
        front = [self.weights[names.encoder + name].reshape(-1, config.hidden_size) for name in names.tokens]
        tokens = np.concatenate([*front, embedded])
        tokens = tokens + self.positions(pixels.shape[1] // config.patch_size, pixels.shape[2] // config.patch_size)
        for number in range(config.num_hidden_layers):
            tokens = self._layer(f"{names.encoder}{names.layer}.{number}.", tokens)
        return self.head(self.norm(names.encoder + names.norm, tokens))

    def positions(self, rows: int, columns: int) -> Array:
        """Return what is added to the tokens, shape (tokens, size).

        Raises:
            ModelError: there are others than the picture has patches.
        """
        learnt, front = self.learnt_positions, len(self.names.tokens)
        if len(learnt) != rows * columns + front:
            raise ModelError(
                f"the preprocessing gives {rows}×{columns} patches; the model has positions for {len(learnt) - front}"
            )
        return learnt

    @property
    def learnt_positions(self) -> Array:
        """The positions of the checkpoint, shape (tokens, size)."""
        return self.weights[self.names.encoder + self.names.positions].reshape(-1, self.config.hidden_size)

    def linear(self, name: str, value: Array, *, has_bias: bool = True) -> Array:
        """Return the product with the weights of a layer, with its bias if it has one."""
        product: Array = value @ self.weights[name + ".weight"].T
        return product + self.weights[name + ".bias"] if has_bias else product

    def norm(self, name: str, value: Array) -> Array:
        """Return the layer normalization along the last axis."""
        return layer_norm(
            value, self.weights[name + ".weight"], self.weights[name + ".bias"], self.config.layer_norm_eps
        )

    def _layer(self, layer: str, tokens: Array) -> Array:
        names = self.names

        def split(value: Array) -> Array:
            return value.reshape(len(value), self.config.num_attention_heads, -1).swapaxes(0, 1)

        known = self.norm(layer + names.norms[0], tokens)
        query, key, value = (
            split(self.linear(layer + name, known, has_bias=self.config.qkv_bias))
            for name in (names.query, names.key, names.value)
        )
        mixed = softmax(query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1]))) @ value
        added = self.linear(layer + names.mixed, mixed.swapaxes(0, 1).reshape(tokens.shape))
        tokens = tokens + (added * self.weights[layer + names.scales[0]] if names.scales else added)
        hidden = self.linear(layer + names.up, self.norm(layer + names.norms[1], tokens))
        added = self.linear(layer + names.down, ACTIVATIONS[self.config.activation](hidden))
        return tokens + (added * self.weights[layer + names.scales[1]] if names.scales else added)


class _EncoderGraph(GraphBuilder):
    def __init__(self, network: VisionTransformer) -> None:
        super().__init__(network.weights)
        self.network, self.names, self.config = network, network.names, network.config

    def embeddings(self, rows: int, columns: int) -> str:
        size, patch, encoder = self.config.hidden_size, self.config.patch_size, self.names.encoder
        positions = self.network.positions(rows, columns)
        weights = [
            self.constant("patch." + part, self.weight(f"{encoder}{self.names.patch}.{part}"))
            for part in ("weight", "bias")
        ]
        squares = self.node("Conv", [PIXELS, *weights], kernel_shape=[patch, patch], strides=[patch, patch])
        tokens = self.node("Transpose", [self.reshape(squares, [1, size, rows * columns])], perm=[0, 2, 1])
        if self.names.tokens:
            front = {name: self.weight(encoder + name).reshape(1, -1, size) for name in self.names.tokens}
            tokens = self.node("Concat", [*(self.constant(*one) for one in front.items()), tokens], axis=1)
        return self.node("Add", [tokens, self.constant("positions", positions[None])])

    def layer(self, layer: str, tokens: str, asked: int | None) -> str:
        names, eps = self.names, self.config.layer_norm_eps
        known = queries = self.norm(layer + names.norms[0], tokens, eps)
        if asked is not None:
            first = self.constant("asked", np.arange(asked))
            queries, tokens = (self.node("Gather", [value, first], axis=1) for value in (known, tokens))
        tokens = self.node("Add", [self.attention(layer, queries, known), tokens])
        hidden = self.linear(layer + names.up, self.norm(layer + names.norms[1], tokens, eps))
        added = self.linear(layer + names.down, self.activation(layer, hidden), self.scale(layer, 1))
        return self.node("Add", [added, tokens])

    def attention(self, layer: str, queries: str, known: str) -> str:
        names, heads = self.names, self.config.num_attention_heads
        depth, has_bias = self.config.hidden_size // heads, self.config.qkv_bias
        query = self.linear(layer + names.query, queries, scale=1 / math.sqrt(depth), has_bias=has_bias)
        key = self.linear(layer + names.key, known, has_bias=has_bias)
        value = self.linear(layer + names.value, known, has_bias=has_bias)
        split = [1, -1, heads, depth]
        query = self.node("Transpose", [self.reshape(query, split)], perm=[0, 2, 1, 3])
        key = self.node("Transpose", [self.reshape(key, split)], perm=[0, 2, 3, 1])
        value = self.node("Transpose", [self.reshape(value, split)], perm=[0, 2, 1, 3])
        scores = self.node("Softmax", [self.node("MatMul", [query, key])], axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [scores, value])], perm=[0, 2, 1, 3])
        return self.linear(layer + names.mixed, self.reshape(mixed, [1, -1, heads * depth]), self.scale(layer, 0))

    def scale(self, layer: str, part: int) -> Array | float:
        """Return the scale of a layer's output, which goes into the weights before it."""
        return self.weight(layer + self.names.scales[part]) if self.names.scales else 1.0

    def activation(self, layer: str, hidden: str) -> str:
        kind = self.config.activation
        if kind != SWIGLU:
            return self.node("Gelu", [hidden], approximate="tanh" if kind == TANH_GELU else "none")
        half = self.weight(layer + self.names.up + ".weight").shape[0] // 2
        first, second = self.part(hidden, 0, half, axis=2), self.part(hidden, half, None, axis=2)
        return self.node("Mul", [self.node("Mul", [first, self.node("Sigmoid", [first])]), second])
