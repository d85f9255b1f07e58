"""A detector with one graph: preprocessing, a run, and which of the outputs means roadwork."""

import time
from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.backends.mapped import MappedFiles
from detectors.base import Backend, Detector, Elsewhere, Judgement, ModelFiles, RunOptions
from detectors.errors import InferenceError
from detectors.models.labels import refuse_constant
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.preprocess import Preprocessing


class Network(Detector):
    """One graph on one backend."""

    def __init__(self, files: ModelFiles, backend: type[Backend], options: RunOptions) -> None:
        super().__init__(files.manifest, options, backend.name)
        refuse_constant(files.manifest.output.labels, files.manifest.output.activation)
        self.preprocessing = self.read_preprocessing(files.folder)
        self.backend = backend(files, self.preprocessing.shape, options)
        self.mapped = MappedFiles([folder for folder in (files.folder, files.original) if folder is not None])
        self.elsewhere = self.backend if isinstance(self.backend, Elsewhere) else None
        if self.elsewhere is not None:
            array = self.preprocessing(decode(known_picture()))
            self.elsewhere.open(files.manifest.output.labels, array, self._check_scores)

    def hold(self) -> None:
        """Keep writers of the mapped files waiting until `look` has seen them."""
        self.mapped.hold()

    def look(self) -> str | None:
        """Look at the mapped files."""
        return self.mapped.look()

    def close(self) -> None:
        """Let go of what runs elsewhere, and of the mapped files: nothing is asked any more."""
        super().close()
        self.mapped.close()

    @staticmethod
    @abstractmethod
    def read_preprocessing(folder: Path) -> Preprocessing:
        """Read how this kind of model wants its pictures."""

    def judge(self, picture: Image.Image, deadline: float | None = None) -> Judgement:
        """Preprocess, run, and read the roadwork output."""
        started = time.perf_counter()
        array = self.preprocessing(picture)
        preprocessed = time.perf_counter()
        with self.mapped.reading():
            scores = self.backend.run(array, deadline)
        probability = self.probability(scores)
        return Judgement(probability, preprocessed - started, time.perf_counter() - preprocessed)

    def probability(self, scores: NDArray[np.float32]) -> float:
        """Return the roadwork probability of the graph's output, shape (1, classes).

        Raises:
            InferenceError: another shape, or a value that is not finite or not in [0, 1]. A NaN that gets out costs
                the operator about a hundred rounds of reward.
        """
        output = self.manifest.output
        if scores.shape != (1, len(output.labels)):
            raise InferenceError(f"the model's output has shape {scores.shape}, not (1, {len(output.labels)})")
        if not np.isfinite(scores).all():
            raise InferenceError("the model's output is not finite")
        row = scores[0].astype(np.float64)
        if output.activation == "softmax":
            row = np.exp(row - row.max())
            row /= row.sum()
        elif output.activation == "sigmoid":
            row = 1 / (1 + np.exp(-row))
        probability = float(row[output.index])
        if not -1e-6 <= probability <= 1 + 1e-6:
            raise InferenceError("the model's output is not a probability")
        return min(1.0, max(0.0, probability))

    def _check_scores(self, scores: NDArray[np.float32]) -> None:
        self._check(self.probability(scores))
