"""The ViT family, by what each kind has of its own; the names are those of transformers."""

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from detectors.builders.graph import LOGITS, GraphBuilder
from detectors.builders.numeric import Array, resized
from detectors.builders.transformer import (
    SWIGLU,
    TANH_GELU,
    EncoderConfig,
    Epsilon,
    VisionTransformer,
    WeightNames,
)
from detectors.errors import ModelError
from detectors.models.hf_config import ModelConfig, Positive


class ViTConfig(ModelConfig, EncoderConfig):
    """The shape of a ViT or DeiT."""


class PlainViT(VisionTransformer):
    """The ViT (Dosovitskiy et al. 2020, arXiv 2010.11929): its first token is the picture's."""

    graph_name = "plain ViT graph"
    names = WeightNames(encoder="vit.")

    def read_encoder(self, folder: Path) -> EncoderConfig:
        """Read the encoder's shape."""
        return ViTConfig.read(folder)

    def add_head(self, graph: GraphBuilder, tokens: str) -> None:
        """Add the head of the first token."""
        graph.linear("classifier", graph.token(tokens, 0), output=LOGITS)

    def head(self, tokens: Array) -> Array:
        """Return the logits of the first token."""
        return self.linear("classifier", tokens[0])


class DeiT(PlainViT):
    """The DeiT (Touvron et al. 2020, arXiv 2012.12877): a second token, which was taught by another network."""

    graph_name = "DeiT graph"
    names = WeightNames(encoder="deit.", tokens=("embeddings.cls_token", "embeddings.distillation_token"))


class DistilledDeiT(DeiT):
    """The DeiT with a head for each of its two tokens: the logits are the mean of both."""

    heads = ("cls_classifier", "distillation_classifier")
    asked = 2

    def add_head(self, graph: GraphBuilder, tokens: str) -> None:
        """Add both heads."""
        both = [graph.linear(name, graph.token(tokens, place), 0.5) for place, name in enumerate(self.heads)]
        graph.node("Add", both, output=LOGITS)

    def head(self, tokens: Array) -> Array:
        """Return the mean of both heads' logits."""
        first, second = (self.linear(name, tokens[place]) for place, name in enumerate(self.heads))
        return (first + second) / np.float32(2)


class DINOv2Config(ModelConfig, EncoderConfig):
    """The shape of a DINOv2."""

    patch_size: Positive = 14
    layer_norm_eps: Epsilon = 1e-6
    use_swiglu_ffn: bool = False

    @property
    def activation(self) -> str:
        """A name in `ACTIVATIONS`; the giant models have a gate in place of one."""
        return SWIGLU if self.use_swiglu_ffn else super().activation


class DINOv2WithRegistersConfig(DINOv2Config):
    """The shape of a DINOv2 with registers, with the other defaults that transformers has for it."""

    patch_size: Positive = 16


class DINOv2(VisionTransformer):
    """The DINOv2 (Oquab et al. 2023, arXiv 2304.07193): scaled layers, and positions that are stretched to the picture.

    Its head is asked the first token and the mean of the patches'.
    """

    graph_name = "DINOv2 graph"
    shape: ClassVar[type[DINOv2Config]] = DINOv2Config
    names = WeightNames(
        encoder="dinov2.", norms=("norm1", "norm2"), up="mlp.fc1", down="mlp.fc2",
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    )  # fmt: skip
    asked = None
    antialias = False  # where positions are stretched

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if self.config.activation == SWIGLU:
            self.names = replace(self.names, up="mlp.weights_in", down="mlp.weights_out")

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation is known here, and every layer has all its heads."""
        has_gate = (config.model_extra or {}).get("use_swiglu_ffn")
        return super().builds(config.model_copy(update={"hidden_act": SWIGLU}) if has_gate else config)

    def read_encoder(self, folder: Path) -> EncoderConfig:
        """Read the encoder's shape."""
        return self.shape.read(folder)

    @property
    def registers(self) -> int:
        """The number of tokens between the first and the patches', which have no positions."""
        return 0

    def positions(self, rows: int, columns: int) -> Array:
        """Return the learnt positions, a square, stretched to the picture's patches."""
        learnt = self.learnt_positions
        side, size = math.isqrt(len(learnt) - 1), learnt.shape[1]
        if side**2 != len(learnt) - 1:
            raise ModelError(f"the model has {len(learnt) - 1} positions, which are no square to be stretched")
        stretched = resized(learnt[1:].reshape(side, side, size), rows, columns, antialias=self.antialias)
        return np.concatenate([learnt[:1], np.zeros((self.registers, size), np.float32), stretched.reshape(-1, size)])

    def add_head(self, graph: GraphBuilder, tokens: str) -> None:
        """Add the head of the first token and the mean of the patches'."""
        both = [graph.token(tokens, 0), graph.mean(graph.part(tokens, 1 + self.registers, None, axis=1))]
        graph.linear("classifier", graph.node("Concat", both, axis=1), output=LOGITS)

    def head(self, tokens: Array) -> Array:
        """Return the logits of the first token and the mean of the patches'."""
        return self.linear("classifier", np.concatenate([tokens[0], tokens[1 + self.registers :].mean(0)]))


class DINOv2WithRegisters(DINOv2):
    """The DINOv2 with tokens that mean nothing (Darcet et al. 2023, arXiv 2309.16588)."""

    shape = DINOv2WithRegistersConfig
    names = replace(
        DINOv2.names, encoder="dinov2_with_registers.", tokens=("embeddings.cls_token", "embeddings.register_tokens")
    )
    antialias = True

    @property
    def registers(self) -> int:
        """The number of tokens between the first and the patches', which have no positions."""
        return len(self.weights[self.names.encoder + self.names.tokens[1]][0])


class SigLIPEncoderConfig(EncoderConfig):
    """The shape of a SigLIP's encoder of pictures."""

    layer_norm_eps: Epsilon = 1e-6
    hidden_act: str | None = TANH_GELU


class SigLIPConfig(ModelConfig):
    """The part of a SigLIP's file that is about pictures."""

    vision_config: SigLIPEncoderConfig = SigLIPEncoderConfig()


class SigLIP(VisionTransformer):
    """The SigLIP (Zhai et al. 2023, arXiv 2303.15343), and the SigLIP2 of fixed size: patches alone, and their mean."""

    graph_name = "SigLIP graph"
    names = WeightNames(
        encoder="vision_model.", patch="embeddings.patch_embedding", tokens=(),
        positions="embeddings.position_embedding.weight", norm="post_layernorm", layer="encoder.layers",
        norms=("layer_norm1", "layer_norm2"), query="self_attn.q_proj", key="self_attn.k_proj",
        value="self_attn.v_proj", mixed="self_attn.out_proj", up="mlp.fc1", down="mlp.fc2",
    )  # fmt: skip
    asked = None

    @classmethod
    def builds(cls, config: ModelConfig) -> bool:
        """Return whether the activation is known here, and every layer has all its heads."""
        vision = (config.model_extra or {}).get("vision_config") or {}
        name = vision.get("hidden_act", TANH_GELU) if isinstance(vision, dict) else None
        return super().builds(config.model_copy(update={"hidden_act": name}))

    def read_encoder(self, folder: Path) -> EncoderConfig:
        """Read the encoder's shape."""
        return SigLIPConfig.read(folder).vision_config

    def add_head(self, graph: GraphBuilder, tokens: str) -> None:
        """Add the head of the patches' mean."""
        graph.linear("classifier", graph.mean(tokens), output=LOGITS)

    def head(self, tokens: Array) -> Array:
        """Return the logits of the patches' mean."""
        return self.linear("classifier", tokens.mean(0))
