"""OpenVINO, the fastest backend on many CPUs.

It runs ONNX graphs and its own files (`.xml` and `.bin`), which hold its faster precisions.
"""

import ctypes
import functools
import mmap
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from detectors.base import ModelFiles, RunOptions
from detectors.errors import ModelError
from detectors.models import IR_FILE, MODEL_FILE


@functools.cache
def core() -> openvino.Core:
    """Return the core of this process, which lives as long.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signals, and unmaps the stack when the plugin goes.
    If it goes in another thread, with the last model, the next signal finds no stack: the process ends at once with
    SIGSEGV, and no handler sees it.
    """
    return openvino.Core()


class OpenVINOBackend:
    """A compiled model with a stream for each slot and a request for each thread that asks."""

    name = "openvino"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        own = files.folder / IR_FILE
        path = own if own.is_file() else files.folder / MODEL_FILE
        config = {
            "INFERENCE_NUM_THREADS": options.cores,
            "NUM_STREAMS": options.slots,
            # A model pins its threads from the first core on, and so does each other one, in whatever process: the
            # branches of an ensemble, side by side on a thread each, took .32 s on one core instead of .17 s on two.
            "ENABLE_CPU_PINNING": False,
            # Left to itself it would take bf16 wherever the CPU has it, past the gate.
            "INFERENCE_PRECISION_HINT": "bf16" if files.manifest.precision == "bf16" else "f32",
        }
        before = _mapped(files.folder)
        try:
            self._model = core().compile_model(path, "CPU", config)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO can't load {path}: {str(error).strip().splitlines()[-1]}") from error
        _give_back(_mapped(files.folder) - before)
        self._own = threading.local()

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        """Run the graph once."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._model.create_infer_request()
        request.infer({0: array}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)


def _mapped(folder: Path) -> set[tuple[int, int]]:
    """Return where the files of a folder are mapped to be read and shared; one name a line, whatever is in it."""
    maps = re.finditer(rb"^(\w+)-(\w+) r--s \w+ \S+ \d+ +(.+)$", Path("/proc/self/maps").read_bytes(), re.MULTILINE)
    place = folder.resolve()
    return {(int(found[1], 16), int(found[2], 16)) for found in maps if Path(os.fsdecode(found[3])).parent == place}


def _give_back(regions: set[tuple[int, int]]) -> None:
    """Return the pages of a model's mapped files; the compiled model has the weights as it wants them.

    OpenVINO unmaps the files with the model, and what is mapped counts as resident: a ViT-base takes 493 MB instead of
    835, an int8 one 271 instead of 355. What is read again comes again. Only for what this model has mapped itself:
    another one's may be unmapped meanwhile, and hold other things, whose contents would be lost.
    """
    madvise = ctypes.CDLL(None).madvise
    for start, end in regions:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def bare_run(graph: bytes, precision: str, array: NDArray[np.generic]) -> Callable[[], object]:
    """Return a graph's run on one thread, with nothing around it: what the library can do at most."""
    hint = "bf16" if precision == "bf16" else "f32"
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1}
    request = core().compile_model(core().read_model(graph), "CPU", config).create_infer_request()
    return lambda: request.infer([array], share_inputs=True, share_outputs=True)
