"""The export of a network of timm, and what timm says itself: its network behind its transform for evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

IN_NUMBERS = 2  # the last steps of the transform: to a tensor, and normalised


def export_timm(original: Path, folder: Path, height: int, width: int) -> None:
    """Write `model.onnx`: `pixel_values` (1, 3, height, width) to `logits` (1, classes)."""
    from detectors.backends.torch import load_timm
    from detectors.export.hf_graph import trace

    trace(load_timm(original), folder, height, width)


def timm_reference(original: Path, index: int, *, transforms: bool, sigmoid: bool) -> Callable[[Image.Image], float]:
    """Return timm's own probability of an output for a picture.

    Args:
        original: the folder of the checkpoint.
        index: of the output.
        transforms: whether timm resizes and crops, or the picture has its size already.
        sigmoid: whether the output was trained by itself; a softmax over a single one is always 1.
    """
    import torch

    from detectors.backends.torch import load_timm

    model = load_timm(original)
    import timm

    steps = timm.data.create_transform(**timm.data.resolve_model_data_config(model)).transforms
    steps = steps if transforms else steps[-IN_NUMBERS:]

    def probability(picture: Image.Image) -> float:
        value: Any = ImageOps.exif_transpose(picture).convert("RGB")
        for step in steps:
            value = step(value)
        with torch.inference_mode():
            logits = model(value[None])
            return float((logits.sigmoid() if sigmoid else logits.softmax(1))[0, index])

    return probability
