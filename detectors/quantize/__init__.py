"""Faster precisions, each behind a gate: a graph whose answers differ too much from fp32's is not served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Inputs = Sequence[NDArray[np.float32]]  # preprocessed pictures, each of the model's input shape
CALIBRATION = 32  # pictures that are calibrated on; ranges hardly widen with more
WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to a faster graph.

    `write` makes it from the fp32 folder in another one; the named layers stay in fp32. `layers` are the operators that
    it rounds: to keep another one changes nothing.
    """

    write: Callable[[Path, Path, Inputs, Sequence[str]], None]
    layers: tuple[str, ...] = WEIGHTED
