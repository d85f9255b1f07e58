"""`python -m tests.process.sleeper run`: the miner with one more backend, whose times are exact on a busy machine too.

Nothing is computed to pass the time, so no other program can make it longer. A model says in its folder how long it
takes; files that a test makes and takes away hold it up, or give it a mood.
"""

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.backends.onnx import OnnxBackend
from detectors.base import ModelFiles, RunOptions
from detectors.registry import BACKENDS, BackendEntry

PICTURE_SECONDS = "seconds"  # a file beside the model: how long a picture takes
HOLD_WHITE, HOLD_LOADING = "HOLD_WHITE", "HOLD_LOADING"  # in the environment: a file that is waited for to go
MOOD = "MOOD"  # in the environment: a file that says what becomes of every picture, as `suffer` reads it
LOOK_SECONDS = 0.005
NEARLY_WHITE = 0.98


class SleepingBackend(OnnxBackend):
    """Answers as onnxruntime does, and not before its time."""

    name = "sleeping"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        super().__init__(files, shape, options)
        path = files.folder / PICTURE_SECONDS
        self._seconds = float(path.read_text()) if path.is_file() else 0.0
        wait_while_there(HOLD_LOADING)

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        ends = time.perf_counter() + self._seconds
        scores = super().run(array, deadline)
        if array.mean() > NEARLY_WHITE:
            wait_while_there(HOLD_WHITE)
        time.sleep(max(0.0, ends - time.perf_counter()))
        return suffer(scores)


def suffer(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Do what the file `MOOD` says: "exit", "nan", "swapped", "hang", or seconds to sleep; nothing without one."""
    path = Path(os.environ.get(MOOD, "/nonexistent"))
    mood = path.read_text(encoding="ascii") if path.exists() else ""
    if mood == "exit":
        raise SystemExit(1)
    if mood == "hang":
        wait_while_there(MOOD)
    elif mood == "nan":
        return np.full_like(scores, np.nan)
    elif mood == "swapped":
        return scores[:, ::-1]
    elif mood:
        time.sleep(float(mood))
    return scores


def wait_while_there(key: str) -> None:
    path = os.environ.get(key)
    while path and Path(path).exists():
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    BACKENDS["sleeping"] = BackendEntry("tests.process.sleeper:SleepingBackend")
    from miner.cli import main

    main()
