"""`config.json` of a Hugging Face model: what its outputs are called, and what its network looks like.

Read as transformers 4.57 reads it. Keys that nothing here asks for may hold anything.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from detectors.models.documents import read_json, shown, validated

CONFIG_FILE = "config.json"
UNNAMED = 2  # classes of a file that names none

Positive = Annotated[int, Field(ge=1)]


def _labels(value: object) -> object:
    """Return labels by the number of their output; a file has numbers as text, and may have any kind of label."""
    if value is None:
        return None
    allowed = 'an object from each output\'s number, "0" and up, to its label is allowed'
    if not isinstance(value, dict) or not value:
        raise ValueError(allowed)
    try:
        labels = {int(number): label for number, label in value.items()}
    except (TypeError, ValueError) as error:
        swapped = all(type(number) is int for number in value.values())
        raise ValueError(f"{allowed}{'; this is a label2id' if swapped else ''}") from error
    if sorted(labels) != list(range(len(value))):
        raise ValueError(f"{allowed}, and {len(value)} labels have the numbers 0 to {len(value) - 1}")
    if not all(isinstance(label, str | int | float) for label in labels.values()):
        raise ValueError(f"{allowed}; a label is text, a number, true or false")
    return {number: str(label) for number, label in sorted(labels.items())}


class ModelConfig(BaseModel):
    """The part of a `config.json` that every image classifier has."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, protected_namespaces=())

    architectures: list[str] | None = None
    model_type: str | None = None
    id2label: Annotated[dict[int, str] | None, BeforeValidator(_labels)] = None
    label2id: dict[str, Any] | None = None
    num_labels: Positive | None = None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    hidden_act: str | None = "gelu"
    image_processor_type: str | None = None
    auto_map: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the `config.json` of `folder`.

        Raises:
            ModelError: it can't be read.
            ModelFileError: a value is not what its key allows.
        """
        path = folder / CONFIG_FILE
        return validated(cls, read_json(path), path)

    @model_validator(mode="after")
    def _labels_agree(self) -> Self:
        if self.id2label is not None and self.num_labels not in (None, len(self.id2label)):
            raise ValueError(f"num_labels={self.num_labels}: id2label has {len(self.id2label)} labels")
        labels = list(self.labels.values())
        for label, number in (
            self.label2id or {}
        ).items():  # nothing reads it, but it may show labels the wrong way round
            if labels.count(label) == 1 and str(number) != str(labels.index(label)):
                raise ValueError(f"label2id.{label}={shown(number)}: id2label has it as {labels.index(label)}")
        return self

    @property
    def labels(self) -> dict[int, str]:
        """The label of each output, in their order; without names, those that transformers makes up."""
        if self.id2label is not None:
            return self.id2label
        return {number: f"LABEL_{number}" for number in range(self.num_labels or UNNAMED)}

    @property
    def is_plain_vit(self) -> bool:
        """Whether this is the ViT that `detectors.export.hf_graph` knows."""
        return self.architectures == ["ViTForImageClassification"] and self.hidden_act == "gelu"


class ViTConfig(ModelConfig):
    """The shape of a plain ViT, with transformers' defaults for what its file leaves out."""

    patch_size: Positive = 16
    hidden_size: Positive = 768
    num_hidden_layers: Positive = 12
    num_attention_heads: Positive = 12
    num_channels: Literal[3] = 3
    layer_norm_eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-12

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads}: a divisor of hidden_size={self.hidden_size} is needed"
            )
        return self
