"""onnxruntime: the default backend."""

import os

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detectors.backends import MODEL_FILE
from detectors.base import ModelFiles
from detectors.errors import ModelError


class OnnxBackend:
    """An onnxruntime session on the CPU with an explicit number of threads."""

    name = "onnx"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        # The default pool is as wide as the host and ignores a container's quota.
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The batch is always one; a fixed shape lets the runtime plan its memory once.
        options.add_free_dimension_override_by_name("batch_size", 1)
        path = files.folder / MODEL_FILE
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"onnxruntime can't load {path}: {str(error).splitlines()[0]}") from error
        (self._input,) = (node.name for node in self._session.get_inputs())
        self._outputs = [self._session.get_outputs()[0].name]

    def run(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the graph once."""
        scores: NDArray[np.float32] = self._session.run(self._outputs, {self._input: array})[0]
        return scores
