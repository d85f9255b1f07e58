"""The ViT family, by what each kind has of its own; the names are those of transformers."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from detectors.builders.graph import LOGITS, GraphBuilder
from detectors.builders.numeric import Array, resized
from detectors.builders.transformer import ACTIVATIONS, SWIGLU, EncoderConfig, VisionTransformer, WeightNames
from detectors.errors import ModelError
from detectors.models.hf_config import ModelConfig


class ViTConfig(ModelConfig, EncoderConfig):
    """The shape of a ViT or DeiT."""


class PlainViT(VisionTransformer):
    """The ViT (Dosovitskiy et al. 2020, arXiv 2010.11929): its first token is the picture's."""

    graph_name = "plain ViT graph"
    shape = ViTConfig
    names = WeightNames(encoder="vit.")

    @classmethod
    def read_encoder(cls, folder: Path) -> EncoderConfig:
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

    HEADS = ("cls_classifier", "distillation_classifier")
    asked = 2

    def add_head(self, graph: GraphBuilder, tokens: str) -> None:
        """Add both heads."""
        both = [graph.linear(name, graph.token(tokens, place), 0.5) for place, name in enumerate(self.HEADS)]
        graph.node("Add", both, output=LOGITS)

    def head(self, tokens: Array) -> Array:
        """Return the mean of both heads' logits."""
        first, second = (self.linear(name, tokens[place]) for place, name in enumerate(self.HEADS))
        return (first + second) / np.float32(2)


class DINOv2Config(ModelConfig, EncoderConfig):
    """The shape of a DINOv2."""

    patch_size: int = Field(14, ge=1)
    layer_norm_eps: float = Field(1e-6, gt=0, allow_inf_nan=False)
    use_swiglu_ffn: bool = False
    num_register_tokens: Literal[0] | int = 0
