"""Faster precisions, each behind a gate: a graph whose answers differ too much from fp32's is not served."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Inputs = Sequence[NDArray[np.float32]]  # preprocessed pictures, each of the model's input shape
# Writes the graph made from the fp32 folder into another one; the named layers stay in fp32.
Recipe = Callable[[Path, Path, Inputs, Sequence[str]], None]
