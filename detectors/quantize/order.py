"""A faster variant that is asked for, and what it is made and judged with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from detectors.base import RunOptions
from detectors.models.manifest import Precision
from detectors.quantize.photos import Photos


@dataclass(frozen=True, slots=True)
class Order:
    """A precision for a backend.

    Attributes:
        models_dir: where the variant comes to lie.
        options: threads to measure with.
        photos: to calibrate on, and others to judge on.
        max_flips: share of the pictures that may change sides.
        progress: is told each step.
    """

    precision: Precision
    backend: str
    models_dir: Path
    options: RunOptions
    photos: Photos = field(default_factory=Photos.by_arithmetic)
    max_flips: float = 0.005
    progress: Callable[[str], None] = lambda _: None
