"""What an engine says of a model, compared with what our manifest says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectors.errors import ModelError

TYPE = "FP32"
ANY = -1  # a dimension that the graph leaves open


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of the engine's tensors: the picture goes in, one score for each label comes out."""

    input: str
    output: str


def read_signature(metadata: Any, shape: Sequence[int], labels: Sequence[str]) -> Signature:
    """Check the answer to `/v2/models/{model}` and return the tensors' names.

    The protocol has no word for labels: their number is compared, and the labels themselves where the engine tells
    them (`parameters.labels` of the output).

    Raises:
        ModelError: another input, output, type or shape than the manifest's.
    """
    if not isinstance(metadata, Mapping):
        raise ModelError("the engine's metadata is no JSON object")
    picture = _only(metadata, "inputs", tuple(shape))
    scores = _only(metadata, "outputs", (1, len(labels)))
    parameters = scores.get("parameters")
    told = parameters.get("labels") if isinstance(parameters, Mapping) else None
    if told is not None and told != list(labels):
        raise ModelError(f"the engine's labels are {told!r}, not {list(labels)!r}")
    return Signature(str(picture["name"]), str(scores["name"]))


def _only(metadata: Mapping[str, Any], kind: str, shape: tuple[int, ...]) -> Mapping[str, Any]:
    """Return the one tensor there is (of several outputs: the first, as every backend here takes it)."""
    found = metadata.get(kind)
    if not isinstance(found, list) or not found or not all(isinstance(one, Mapping) and "name" in one for one in found):
        raise ModelError(f"the engine tells nothing of the model's {kind}")
    if kind == "inputs" and len(found) != 1:
        raise ModelError(f"the engine's model has {len(found)} inputs, not one")
    tensor: Mapping[str, Any] = found[0]
    if tensor.get("datatype") != TYPE:
        raise ModelError(f"the engine's {tensor['name']!r} is {tensor.get('datatype')}, not {TYPE}")
    told = tensor.get("shape")
    if not isinstance(told, list) or not _fits(told, shape):
        raise ModelError(f"the engine's {tensor['name']!r} has the shape {told}, not {list(shape)}")
    return tensor


def _fits(told: Sequence[Any], shape: Sequence[int]) -> bool:
    return len(told) == len(shape) and all(has in (ANY, wanted) for has, wanted in zip(told, shape, strict=True))
