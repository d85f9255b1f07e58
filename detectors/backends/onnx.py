"""onnxruntime, the default backend.

It is small, installed with every miner, and runs the graph on any CPU.
"""

import os
from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detectors.base import ModelFiles, RunOptions
from detectors.errors import ModelError
from detectors.models import MODEL_FILE
from detectors.models.store import LARGE_GRAPH_BYTES


class OnnxBackend:
    """An onnxruntime session on the CPU with an explicit number of threads."""

    name = "onnx"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        session = onnxruntime.SessionOptions()
        # The default pool is as wide as the host and ignores a container's quota. The threads that call `run` work
        # too, one for each slot, so the pool holds the rest.
        session.intra_op_num_threads = options.cores - options.slots + 1
        session.inter_op_num_threads = 1
        session.enable_cpu_mem_arena = suits_arena(files) if options.arena is None else options.arena
        session.log_severity_level = 3
        if options.shared:  # threads that wait for more of this graph's work would keep the next graph's from theirs
            session.add_session_config_entry("session.force_spinning_stop", "1")
        path = files.optimized or files.folder / MODEL_FILE
        if files.optimized is not None:
            session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), session, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no other class
            raise ModelError(f"onnxruntime can't load {path}: {str(error).splitlines()[0]}") from error
        (self._input,) = (node.name for node in self._session.get_inputs())
        self._outputs = [self._session.get_outputs()[0].name]

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        """Run the graph once."""
        scores: NDArray[np.float32] = self._session.run(self._outputs, {self._input: array})[0]
        return scores


def suits_arena(files: ModelFiles) -> bool:
    """Return whether a memory pool of its own pays for a graph.

    Without it a ViT-base in fp32 holds 25 MB less and takes 2 % longer; in int8 it takes 6 to 16 % longer, and a small
    graph has nothing to save.
    """
    size = sum(path.stat().st_size for path in files.folder.glob(f"{MODEL_FILE}*"))
    return files.manifest.precision not in ("fp32", "merged") or size < LARGE_GRAPH_BYTES


def bare_run(graph: bytes, precision: str, array: NDArray[np.generic]) -> Callable[[], object]:
    """Return a graph's run on one thread, with nothing around it: what the library can do at most."""
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = 1
    run = onnxruntime.InferenceSession(graph, session, ["CPUExecutionProvider"]).run
    return lambda: run(None, {"a": array})
