"""An ONNX file of one's own: the keys that say what the graph does not, and the files that belong to it."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from detectors.models.hf_config import MAX_SIDE, Deviation, Mean

KEYS = ("input_size", "mean", "std", "resample", "crop", "labels", "output")
NEEDED = ("mean", "std", "labels", "output")
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # Pillow's numbers
SMALL_BYTES = 50_000_000  # bytes; a graph whose weights lie elsewhere is never larger
# A pair of protobuf's: `location`, then the name of a file of at most 127 bytes.
LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])")


def _size(value: object) -> object:
    sides = [value, value] if type(value) is int else value
    if value is None:
        return None
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(type(one) is int for one in sides):
        height, width = sides
        if 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE:
            return height, width
    raise ValueError(f"a whole number from 1 to {MAX_SIDE} (pixels), or [height, width] of such, is allowed")


def _filter(value: object) -> object:
    number = FILTERS.get(value.strip().lower()) if isinstance(value, str) else value
    if type(number) is int and number in FILTERS.values():
        return number
    raise ValueError(f"{', '.join(FILTERS)}, or Pillow's number of one, is allowed")


def _crop(value: object) -> object:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("none", None) or word is False:
        return None
    if word in ("center", "centre"):
        return 1.0
    if isinstance(word, int | float) and word is not True and (0 < word <= 1 or word in range(2, MAX_SIDE + 1)):
        return float(word)
    raise ValueError(
        "none (the picture is squeezed), center (the shorter side fills the input), a share up to 1 of the shorter "
        "side, or what the shorter side is resized to before the crop (pixels), is allowed"
    )


def _labels(value: object) -> object:
    if isinstance(value, dict) and list(value) == list(range(len(value))):
        value = list(value.values())
    if value is None or (
        isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value)
    ):
        return value if value is None else [str(one) for one in value]
    raise ValueError("a list of the classes' names, in the order of the outputs, is allowed")


InputSize = Annotated[tuple[int, int] | None, BeforeValidator(_size)]
Resample = Annotated[int, BeforeValidator(_filter)]
Crop = Annotated[float | None, BeforeValidator(_crop)]
Labels = Annotated[list[str] | None, BeforeValidator(_labels)]
GraphOutput = Literal["logits", "probability"]


def unit(mean: Mean, std: Deviation) -> float:
    """Return what a white pixel counts as where mean and deviation were taken: 1, or 255 if a number is above 1.

    Raises:
        ValueError: one of them is of 0 to 1, and the other of 0 to 255.
    """
    above = [max(values) > 1 for values in (mean, std)]  # type: ignore[arg-type]
    if above[0] and min(std) < 1:  # type: ignore[arg-type]
        raise ValueError("mean is of pixels from 0 to 255, and std of pixels from 0 to 1")
    return 255.0 if any(above) else 1.0


def data_files(path: Path) -> list[Path]:
    """Return the files beside a graph that hold its weights, as far as they are there.

    Found in the bytes: to import onnx would take a fifth of a second of every start.
    """
    if path.stat().st_size >= SMALL_BYTES:
        return []
    data = path.read_bytes()
    names = {data[found.end() : found.end() + found[1][0]] for found in LOCATION.finditer(data)}
    found = [path.parent / name.decode("utf-8", "replace") for name in sorted(names) if b"\0" not in name]
    return [file for file in found if file.is_file()]
