"""Detectors with one graph: preprocessing, a run, and which of the outputs means roadwork."""

import fcntl
import logging
import os
import signal
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.base import Backend, Budget, Detector, Judgement, ModelFiles, RemoteRuntime, RunOptions
from detectors.errors import InferenceError, OutOfTime
from detectors.models.hf_config import ProcessorConfig
from detectors.models.labels import refuse_constant
from detectors.models.manifest import Manifest
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.photos.view_head import ViewHead
from detectors.photos.views import PooledViews
from detectors.preprocess import Preprocessing, from_processor_config

log = logging.getLogger(__name__)

PROCESS_MAPS = Path("/proc/self/maps")


@dataclass(slots=True)
class MappedFile:
    """A mapped file, open: what it was like when it was mapped, and whether the kernel keeps writers waiting."""

    path: Path
    descriptor: int
    size: int
    changed: int  # nanoseconds
    leased: bool = False
    leasable: bool = False  # as far as was tried

    @property
    def is_same(self) -> bool:
        """Whether nothing was written since; another file of the same name is none of our business."""
        now = os.fstat(self.descriptor)
        return (now.st_size, now.st_mtime_ns) == (self.size, self.changed)

    def lease(self) -> bool:
        """Ask the kernel to keep writers waiting; return whether it does."""
        with suppress(OSError):
            fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds; SIGIO would end us
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            self.leased = self.leasable = True
        return self.leased

    @property
    def is_wanted(self) -> bool:
        """Whether a writer waits."""
        return self.leased and fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def let_go(self) -> None:
        """Let writers go on."""
        if self.leased:
            self.leased = False
            with suppress(OSError):
                fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


class MappedFiles:
    """The files below some folders that this process has mapped.

    Safe to use from several threads. Until `hold` there are no leases: only who looks again and again may have them.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files: list[MappedFile] = []  # first: it is closed even where the rest fails
        self._lock = threading.Lock()
        self._readers = 0
        self._is_holding = False
        self._fault: str | None = None
        self._files += [held for path in mapped_below(folders) if (held := _open(path)) is not None]

    def hold(self) -> None:
        """Keep writers waiting from now on, until `look` has seen them and nobody reads."""
        with self._lock:
            self._is_holding = True
            bare = [str(held.path) for held in self._files if not held.lease()]
        if bare:
            log.info(
                "%s: mapped, and another user's or on a disk without leases: who cuts it short ends this process",
                ", ".join(bare),
            )

    def look(self) -> str | None:
        """Look at the files; return why none of them may be read, or None."""
        with self._lock:
            self._look()
            return self._fault

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the mapped files.

        Raises:
            InferenceError: one of them has changed, or is about to.
        """
        with self._lock:
            self._look()
            if self._fault is not None:
                log.warning("no inference: %s", self._fault)
                raise InferenceError("the model's files are being changed")  # without their path: a caller reads it
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1

    def close(self) -> None:
        """Let them go."""
        with self._lock:
            for held in self._files:
                os.close(held.descriptor)  # and the lease with it
            self._files = []

    def __del__(self) -> None:
        self.close()

    def _look(self) -> None:
        changed = next((held for held in self._files if not held.is_same), None)
        wanted = next((held for held in self._files if held.is_wanted), None)
        if changed is not None:
            self._fault = f"the model's file {changed.path} was changed while it is served"
        elif wanted is not None:
            self._fault = f"the model's file {wanted.path} is being opened for writing while it is served"
        elif self._fault is not None and all(held.leased or held.lease() or not held.leasable for held in self._files):
            self._fault = None  # who opened it has closed it again, and left it as it was
        if self._fault is not None and self._readers == 0:
            for held in self._files:
                if held is changed or held.is_wanted:
                    held.let_go()


def mapped_below(folders: Sequence[Path], maps: Path = PROCESS_MAPS) -> list[Path]:
    """Return the files below these folders that this process has mapped, those that links there mean among them.

    A folder that goes while it is walked (an optimised graph found damaged) has none, and is no fault.
    """
    roots = [os.path.realpath(folder) + os.sep for folder in folders]
    inside = (Path(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names)
    linked = {os.path.realpath(path) for path in inside if path.is_symlink()}
    try:
        lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    names = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(Path(name) for name in names if name.startswith(tuple(roots)) or name in linked)


def _open(path: Path) -> MappedFile | None:
    """Open a mapped file; None where another one has taken its place, which nobody serves."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    now = os.fstat(descriptor)
    return MappedFile(path, descriptor, now.st_size, now.st_mtime_ns)


class Network(Detector):
    """One graph on one backend, which judges the whole picture, or several views of it in turn."""

    views: PooledViews | None = None

    def __init__(self, files: ModelFiles, backend: type[Backend], options: RunOptions) -> None:
        super().__init__(files.manifest, options, backend.name)
        refuse_constant(files.manifest.output.labels, files.manifest.output.activation)
        self.preprocessing = self.read_preprocessing(files.folder)
        self.backend = backend(files, self.preprocessing.shape, options)
        self.mapped = MappedFiles([folder for folder in (files.folder, files.original) if folder is not None])
        self.head = ViewHead.read(files.folder) if files.manifest.head else None
        self.elsewhere = self.backend if isinstance(self.backend, RemoteRuntime) else None
        if self.elsewhere is not None:
            array = self.preprocessing(decode(known_picture()))
            self.elsewhere.open(files.manifest.output.labels, array, self._check_scores)

    def viewed(self, manifest: Manifest, views: PooledViews | None) -> Self:
        """Return this network for other views: on the same graph, with the manifest of what was measured in those."""
        other = copy(self)
        other.manifest, other.views = manifest, views
        return other

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

    def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
        """Preprocess, run, and read the roadwork output."""
        views = self.views or (self.head.views if self.head is not None else None)
        if views is not None:
            return self._judge_views(views, picture, deadline)
        started = time.perf_counter()
        array = self.preprocessing(picture)
        preprocessed = time.perf_counter()
        with self.mapped.reading():
            scores = self.backend.run(array, deadline)
        probability = self.probability(scores)
        return Judgement(probability, preprocessed - started, time.perf_counter() - preprocessed)

    def _judge_views(self, views: PooledViews, picture: Image.Image, deadline: float | None) -> Judgement:
        """Do so for each view in turn, and make one answer of what the graph gives for them."""
        rows, preprocess, infer = self._rows(views, picture, deadline)
        if self.head is not None:
            return Judgement(self.probability(self.head(rows)), preprocess, infer)
        return Judgement(views.pooled([self.probability(scores) for scores in rows]), preprocess, infer)

    def said_of(
        self, views: PooledViews, picture: Image.Image, deadline: float | None = None
    ) -> tuple[list[float], float, float]:
        """Return what the model says of each view, the seconds of preprocessing and of runs; raises as `judge` does."""
        rows, preprocess, infer = self._rows(views, picture, deadline)
        return [self.probability(scores) for scores in rows], preprocess, infer

    def _rows(
        self, views: PooledViews, picture: Image.Image, deadline: float | None
    ) -> tuple[list[NDArray[np.float32]], float, float]:
        """Run the graph on each view.

        One that would begin behind the deadline is not begun: the answer to a part of the views is another one.
        """
        rows, preprocess, infer = list[NDArray[np.float32]](), 0.0, 0.0
        started = time.perf_counter()
        for array in views.arrays(picture, self.preprocessing, self.preprocessing.boxed):
            if rows and deadline is not None and time.monotonic() >= deadline:
                raise OutOfTime(f"the deadline came after {len(rows)} of {views.count} views")
            preprocessed = time.perf_counter()
            with self.mapped.reading():
                rows.append(self.backend.run(array, deadline))
            preprocess, infer = preprocess + preprocessed - started, infer + time.perf_counter() - preprocessed
            started = time.perf_counter()
        return rows, preprocess, infer

    def example(self, picture: Image.Image, number: int) -> NDArray[np.float32]:
        """Return an input of the graph to calibrate it on: the whole picture, or the head's views in turn by number."""
        if self.head is None:
            return self.preprocessing(picture)
        arrays = list(self.head.views.arrays(picture, self.preprocessing, self.preprocessing.boxed))
        return arrays[number % len(arrays)]

    def known(self, picture: Image.Image) -> float:
        """Return what it says of the whole of the known picture, whatever its views are."""
        return self.viewed(self.manifest, None).judge(picture).probability

    def prove(self) -> float:
        """Prove the graph on the whole of the known picture, or the head on its views; return the seconds of all."""
        seconds = super().prove()
        if self.views is None:
            return seconds
        data = known_picture()
        started = time.perf_counter()
        self.judge(decode(data))
        return time.perf_counter() - started

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


class ViT(Network):
    """A Hugging Face image classifier with its published image processor."""

    @staticmethod
    def read_preprocessing(folder: Path) -> Preprocessing:
        """Read `preprocessor_config.json`."""
        return from_processor_config(ProcessorConfig.read(folder))


class YOLOClassifier(ViT):
    """An Ultralytics `-cls` network; its export writes the preprocessing in a Hugging Face model's words."""
