"""`python -m tests.process.sleeper run`: the miner with one more backend, which takes 300 ms on a busy machine too."""

import time

import numpy as np
from numpy.typing import NDArray

from detectors.backends.onnx import OnnxBackend
from detectors.registry import BACKENDS

SECONDS = 0.3


class SleepingBackend(OnnxBackend):
    """Answers as onnxruntime does, and not before its time."""

    name = "sleeping"

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        ends = time.perf_counter() + SECONDS
        scores = super().run(array, deadline)
        time.sleep(max(0.0, ends - time.perf_counter()))
        return scores


if __name__ == "__main__":
    BACKENDS["sleeping"] = "tests.process.sleeper:SleepingBackend"
    from miner.cli import main

    main()
