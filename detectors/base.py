"""The base class of detectors, and the protocol of backends.

A detector says what a model means; a backend runs its graph. So either can be exchanged without the other.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.errors import EngineError, InferenceError, ModelError
from detectors.files import FolderLocks
from detectors.models.manifest import Manifest
from detectors.photos import MAX_PIXELS
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture

if TYPE_CHECKING:
    from detectors.remote.endpoints import Endpoint, EngineOptions

NEAR_ENOUGH = 1.0  # seconds; a cold run that takes longer is done again, warm, before a model counts as slow
KNOWN_ANSWER_TOLERANCE = 1e-3  # between CPUs; a swapped label or a damaged file is far outside


Budget = Callable[[int], bool]  # whether the stage of this number may be begun: it is in time, and in nobody's way


StopReason = Literal["sure", "budget", "last", "fault"]  # why a cascade asks no further stage


@dataclass(frozen=True, slots=True)
class StageEnd:
    """The stage of a cascade that answered, and why no further one was asked.

    Attributes:
        number: of the stage, from 1.
        names: of all stages of its cascade, in words.
        reason: it was sure; the budget or the time ended; it was the last one; the next one failed.
    """

    number: int
    names: tuple[str, ...]
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Prediction:
    """The probability of roadwork, in [0, 1], and the seconds that it took.

    Attributes:
        stages: seconds of each stage of a cascade that ran, the decoding in the first; time may cut the last one short.
        end: which of them answered, and why; None: there is only one, or a fallback answered.
        opinions: of an ensemble, the probability of each branch that was asked, by its name.
    """

    probability: float
    decode: float
    preprocess: float
    infer: float
    stages: tuple[float, ...] = ()
    end: StageEnd | None = None
    opinions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model itself says, before any calibration, and the seconds that it took; the rest as in a prediction."""

    probability: float
    preprocess: float
    infer: float
    stages: tuple[float, ...] = ()
    end: StageEnd | None = None
    opinions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A prepared model: its folder and manifest.

    Attributes:
        folder: holds everything that serving needs.
        manifest: says what is in it.
        original: the original weights, which only the torch backend needs.
        optimized: onnxruntime's own graph for this machine, where there is one.
    """

    folder: Path
    manifest: Manifest
    original: Path | None = None
    optimized: Path | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What may be used of the machine: `slots` pictures at once on `threads` threads each, none of them too large."""

    slots: int = 1
    threads: int = 1
    arena: bool | None = None  # onnxruntime's own memory pool; None: as suits the graph
    shared: bool = False  # whether other graphs take turns on the same threads
    engine: "EngineOptions | None" = None  # where the graph runs, for the remote backend
    max_pixels: int = MAX_PIXELS

    def __str__(self) -> str:
        """Return the split in words."""
        return f"{self.slots} slot{'s' * (self.slots != 1)} × {self.threads} thread{'s' * (self.threads != 1)}"

    @property
    def cores(self) -> int:
        """Threads in all."""
        return self.slots * self.threads


@dataclass(frozen=True, slots=True)
class Way:
    """How a branch of an ensemble runs: in a precision, on a backend.

    Attributes:
        threads: its own, beside the other branches on theirs; 0: the branches take turns on all threads of the picture.
    """

    precision: str
    backend: str
    threads: int = 0

    @property
    def variant(self) -> tuple[str, str]:
        """Precision and backend."""
        return self.precision, self.backend


Ways = Mapping[str, Way]  # by the branch's name


def ways_in_words(ways: Ways) -> str:
    """Return how each branch runs, in words."""
    each = ", ".join(f"{name}: {way.precision} on {way.backend}" for name, way in ways.items())
    counts = " + ".join(str(way.threads) for way in ways.values())
    return f"{each}, side by side on {counts} threads" if side_by_side(ways) else each


def side_by_side(ways: Ways) -> bool:
    """Return whether the branches run at the same time, each on threads of its own."""
    return any(way.threads for way in ways.values())


def is_plain(ways: Ways) -> bool:
    """Return whether one precision and backend say it all: the branches are alike, and take turns."""
    return len(set(ways.values())) < 2 and not side_by_side(ways)


class Backend(Protocol):
    """Runs a graph: an array of the fixed input shape to an array of shape (1, classes)."""

    name: ClassVar[str]

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None: ...

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        """Run the graph once; called from as many threads at once as there are slots.

        Args:
            array: of the fixed input shape.
            deadline: on `time.monotonic`; what runs in this process can't be interrupted and has no use for it.

        Raises:
            EngineError: the graph runs elsewhere, and no answer came from there in time.
        """
        ...


BareRun = Callable[[bytes, str, NDArray[np.generic]], Callable[[], object]]  # of graph, precision and input


@runtime_checkable
class RemoteRuntime(Protocol):
    """A backend whose graph runs on other machines, where anything may change while we run."""

    @property
    def obstacle(self) -> str | None:
        """Why no picture can be scored at the moment, or None."""
        ...

    @property
    def state(self) -> str:
        """How it does, in a few words."""
        ...

    @property
    def endpoints(self) -> "Sequence[Endpoint]":
        """The machines, as they are now."""
        ...

    def open(
        self, labels: Sequence[str], array: NDArray[np.float32], judge: Callable[[NDArray[np.float32]], None]
    ) -> None:
        """Have each machine prove itself, now and whenever it comes back.

        Args:
            labels: one for each score.
            array: of the known picture.
            judge: raises a ModelError for scores that are not those of the known picture.

        Raises:
            ModelError: none is fit to be asked, and nothing here can stand in for it.
        """
        ...

    def close(self) -> None:
        """Let them go; nothing is asked any more."""
        ...


class Detector(ABC):
    """One picture in, the probability of roadwork out. Safe to call from several threads."""

    elsewhere: RemoteRuntime | None = None  # the backend, where its graph runs on other machines
    locks: FolderLocks | None = None  # on its model's folders: nobody removes what is served
    paces: tuple[float, ...] = ()  # seconds of each stage, as `verify` found them

    def __init__(self, manifest: Manifest, options: RunOptions, backend_name: str) -> None:
        self.manifest = manifest
        self.options = options
        self.backend_name = backend_name

    @property
    def obstacle(self) -> str | None:
        """Why no picture can be scored at the moment, or None."""
        return self.elsewhere.obstacle if self.elsewhere is not None else None

    @property
    def roadwork(self) -> str:
        """Which class counts as roadwork, in words."""
        return self.manifest.output.words

    @property
    def backend_words(self) -> str:
        """The backend's name, and how it does where that can change."""
        return self.backend_name + (f": {self.elsewhere.state}" if self.elsewhere is not None else "")

    @property
    def precision_words(self) -> str:
        """The precision; of an ensemble, those of its branches."""
        return self.manifest.precision

    @property
    def view_words(self) -> str:
        """The views of a picture that are judged, and their pool; nothing: the whole alone."""
        return self.manifest.view_words

    @property
    def runs_on(self) -> str:
        """Backend and precision in words; of an ensemble whose branches differ, of each."""
        return f"{self.backend_words}, {self.precision_words}"

    @property
    def stages(self) -> tuple[str, ...]:
        """What answers, in words: of a cascade each stage, from cheap to dear."""
        return ("all",)

    def hold(self) -> None:  # noqa: B027 - not every detector has files
        """Keep whoever would change the model's files waiting; for those who call `look` again and again."""

    def look(self) -> str | None:
        """Look at the model's files; return why it may not be asked any more, or None."""
        return None

    def close(self) -> None:
        """Let go of what runs elsewhere, and of the model's folders."""
        if self.elsewhere is not None:
            self.elsewhere.close()
        if self.locks is not None:
            self.locks.close()

    def predict(self, data: bytes, deadline: float | None = None, budget: Budget | None = None) -> Prediction:
        """Decode an encoded photo, judge it, and move the probability to where 0.5 is the best decision.

        Args:
            data: the encoded photo.
            deadline: until when, on `time.monotonic`; a graph in this process can't be interrupted.
            budget: asked before each further stage of a cascade; None: as many as the picture needs.

        Raises:
            ImageError: the bytes are not a picture that may be opened.
            InferenceError: the output is not a probability.
            EngineError: no answer came in time, or none from where the graph runs.
        """
        started = time.perf_counter()
        picture = decode(data, self.options.max_pixels)
        decoded = time.perf_counter()
        judgement = self.judge(picture, deadline, budget)
        ended = time.perf_counter()
        first, *others = judgement.stages or (ended - decoded,)
        probability, calibration = judgement.probability, self.manifest.calibration
        return Prediction(
            probability if calibration is None else calibration(probability),
            decoded - started,
            judgement.preprocess,
            judgement.infer,
            (decoded - started + first, *others),
            judgement.end,
            judgement.opinions,
        )

    @abstractmethod
    def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
        """Return what the model itself says of an upright RGB picture; raises as `predict` does."""

    def known(self, picture: Image.Image) -> float:
        """Return what it says of the known picture, of which its manifest has the answer: with all that it has."""
        return self.judge(picture).probability

    def verify(self) -> float:
        """Prove itself, which also warms the graph up; return the seconds that a picture takes.

        Raises:
            ModelError: the answer to the known picture is not the one in the manifest.
        """
        try:
            seconds = self.prove()
            if seconds >= NEAR_ENOUGH:
                seconds = self.prove()
            self.paces = (seconds,)
            return seconds
        except (InferenceError, EngineError) as error:
            raise ModelError(f"the model {self.manifest.name} fails on the known picture: {error}") from error

    def prove(self) -> float:
        """Run the known picture once; return the seconds it took.

        Raises:
            ModelError: the answer is not the one in the manifest.
            InferenceError, EngineError: as `predict`.
        """
        data = known_picture()
        started = time.perf_counter()
        self._check(self.known(decode(data)))
        return time.perf_counter() - started

    def _check(self, answer: float) -> None:
        expected = self.manifest.known_answer
        if not abs(answer - expected) <= KNOWN_ANSWER_TOLERANCE:  # a NaN is refused too
            raise ModelError(
                f"the model {self.manifest.name} answers {answer:.4f} to the known picture, not {expected:.4f}"
            )
