"""The training job: its folder, budget and number of steps, when it ends, and its result."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil, cos, pi
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector
from detectors.console import Screen
from detectors.errors import DetectorConfigError, DetectorError
from detectors.files import is_in_use, write_safely
from detectors.training.budget import Machine, Probe
from detectors.training.config import CONFIG_FILE, TrainConfig

ALL_EPOCHS = "all epochs are done"
LEAST_SHARE = 1e-6  # of a class, whose weight has to be finite: a teacher may see it nowhere
Score = tuple[float, float]  # expected reward and minus the loss: of equal rewards, the surer one is better
TIME_OVER, SIGNALLED = "the time is over", "stopped by a signal"
RESUMABLE = (TIME_OVER, SIGNALLED)  # reasons after which `--resume` goes on
CHOSEN_FILE, HISTORY_FILE, RESULTS_FILE = "chosen.json", "history.json", "results.json"
SAME_SIGNAL = 0.5  # seconds
RESOURCES_FILE, PROGRESS_FILE = "resources.csv", "progress.json"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of the optimiser: in an epoch, in all, while the rate rises, and from one log line to the next."""

    epoch: int
    total: int
    warm_up: int
    logging: int


def make_schedule(photos: int, batch_size: int, epochs: int, warm_up: float) -> Schedule:
    """Scale to the data: ten log lines an epoch, and a warm-up of a share of all steps, but of one step at least."""
    epoch = ceil(photos / batch_size)
    total = epoch * epochs
    return Schedule(epoch, total, max(1, round(warm_up * total)) if warm_up else 0, max(1, epoch // 10))


def share_of_rate(step: int, warm_up: int, total: int) -> float:
    """Return the share of the highest rate that a step has: a line up, then half a cosine down, and never 0."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1 + cos(pi * (step - warm_up) / max(1, total - warm_up)))


def class_weights(wanted: NDArray[np.int64] | NDArray[np.float32], *, balanced: bool) -> tuple[float, float]:
    """Return what a photo of each class weighs in the loss, so that both classes weigh the same; 1 on average.

    A photo that should get a probability counts for both in part, which scikit-learn's `balanced` knows nothing of.
    """
    if not balanced:
        return 1.0, 1.0
    works = min(max(float(wanted.mean(dtype=np.float64)), LEAST_SHARE), 1 - LEAST_SHARE)
    return 0.5 / (1 - works), 0.5 / works


def since_best(scores: Sequence[Score]) -> int:
    """Return how many validations have passed since the best one; the first of equals counts."""
    if not scores:
        return 0
    return len(scores) - 1 - max(range(len(scores)), key=lambda number: (scores[number], -number))


def superfluous(steps: Sequence[int], epoch: int, every: int, limit: int) -> list[int]:
    """Return the checkpoints, by their step, that may go: kept are the latest and the last `limit` of every N-th epoch.

    Args:
        steps: the checkpoints there are.
        epoch: steps in an epoch.
        every: N.
        limit: how many of every N-th epoch stay.
    """
    ordered = sorted(steps)
    milestones = [step for step in ordered if step % (epoch * every) == 0]
    kept = {*ordered[-1:], *milestones[-limit:]}
    return [step for step in ordered if step not in kept]


def scores_of(history: Sequence[Mapping[str, float]]) -> list[Score]:
    """Return the validations in a log of transformers' Trainer."""
    return [(entry["eval_reward"], -entry["eval_loss"]) for entry in history if "eval_reward" in entry]


def why_ended(history: Sequence[Mapping[str, float]], steps: int, schedule: Schedule, patience: float) -> str | None:
    """Say why a training with this log has come to its end, if it has; a resumed one then has nothing to train.

    Args:
        history: of validations.
        steps: that were made.
        schedule: of all.
        patience: epochs without a better validation.
    """
    epochs = [entry["epoch"] for entry in history if "eval_reward" in entry]
    # By epochs: a stop by time or a signal has a validation of its own in the middle of one.
    waited = round(epochs[-1] - epochs[-1 - since_best(scores_of(history))], 3) if epochs else 0
    if waited >= patience:
        return f"no better validation in {waited:g} epochs"
    return ALL_EPOCHS if steps >= schedule.total else None


class StoppedEarly(DetectorError):
    """A run was stopped before there was anything that could serve; what it did is kept."""


class StopSignal:
    """Inside the context, the first SIGINT or SIGTERM asks for a stop after the step, the second stops at once.

    One that comes within a moment is the same: a launcher may pass on what its whole group has got already.
    """

    def __init__(self, max_hours: float | None, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._seconds = max_hours * 3600 if max_hours is not None else float("inf")
        self._screen, self._process = screen, os.getpid()
        self._signalled: float | None = None  # the first one, by the clock

    @property
    def reason(self) -> str | None:
        """Why it is time to stop, if it is."""
        return self.reason_within(1.0)

    def reason_within(self, share: float) -> str | None:
        """Say why it is time to stop, if it is, for a part of the run that may take this share of the time."""
        if self._signalled is not None:
            return SIGNALLED
        return TIME_OVER if self._clock() - self._began > share * self._seconds else None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        if os.getpid() != self._process:
            return  # a process that loads photos: a terminal's Ctrl-C reaches it too, and it ends with the loader
        if self._signalled is None:
            self._signalled = self._clock()
            self._screen.warn("stopping after this step; once more to stop at once")
        elif self._clock() - self._signalled > SAME_SIGNAL:
            signal.signal(number, self._before[signal.Signals(number)])
            os.kill(self._process, number)


@dataclass(frozen=True, slots=True)
class Job:
    """What a training is given.

    Attributes:
        config: what to train.
        run: its folder.
        cache: holds the features of frozen networks, for all runs.
        machine: what it may take.
        probe: what the machine says at a moment.
        screen: who is told.
        resume: go on where the run was killed.
        serving: opens what serves now, and names it; None: nothing does.
        models: holds the prepared models that serve, of which a teacher may be one; None: the cache does.
        compare: settings first, and take the best of what is not set.
    """

    config: TrainConfig
    run: Path
    cache: Path
    machine: Machine
    probe: Probe
    screen: Screen
    resume: bool = False
    serving: Callable[[], tuple[str, Detector]] | None = None
    models: Path | None = None
    compare: bool = False

    @property
    def threads(self) -> int:
        """Threads of a network's operators."""
        return self.config.threads or self.machine.cores


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What the machine and the data decided at the first start; a resumed run does not decide again."""

    micro_batch: int
    precision: str
    workers: int
    seconds_per_photo: float
    photos: str  # sum over all photos and their parts
    views: int | None = None  # changed copies of each photo that have features

    def write(self, run: Path) -> None:
        """Save it in the run's folder."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        write_safely(run / CHOSEN_FILE, json.dumps(facts, indent=2).encode())

    @classmethod
    def read(cls, run: Path, photos: str) -> "JobPlan | None":
        """Read it, if the run got that far.

        Raises:
            DetectorConfigError: the photos are others than then, so that the run could not go on as it was.
        """
        path = run / CHOSEN_FILE
        if not path.is_file():
            return None
        chosen = cls(**json.loads(path.read_bytes()))
        if chosen.photos != photos:
            raise DetectorConfigError(f"{run}: the photos have changed since this run was started; start another one")
        return chosen


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What came out of a training.

    Attributes:
        original: the trained weights: a Hugging Face folder, or an Ultralytics `.pt` file.
        history: the log of losses and validations, as transformers' Trainer writes it.
        epochs: how many were trained.
        why: it ended, in words.
        facts: what else the model card should say.
    """

    original: Path
    history: Sequence[Mapping[str, float]]
    epochs: int
    why: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def open_run(run: Path, config: TrainConfig | None) -> TrainConfig:
    """Make a run's folder and save the configuration there; or, without one, read that of the run to be resumed.

    What is saved means the same from any working folder.

    Raises:
        DetectorConfigError: the folder holds a run already, or none to resume; or the photos are not there.
    """
    path = run / CONFIG_FILE
    if config is None:
        if not path.is_file():
            raise DetectorConfigError(f"--resume={run}: no {CONFIG_FILE} in there, so no run to resume")
        if _has_ended(run / RESULTS_FILE):
            raise DetectorConfigError(f"--resume={run}: this run has ended; {RESULTS_FILE} says how")
        if is_in_use(run):
            raise DetectorConfigError(f"--resume={run}: this run still goes on; --watch {run} shows it")
        config = TrainConfig.read(path)
        config.check_places(resumed=True)
        return config
    if path.is_file() and not _is_unbegun(run):
        raise DetectorConfigError(
            f"--out={run}: holds a run already; continue it with --resume, or give another folder"
        )
    config.check_places()
    config = config.anchored()
    run.mkdir(parents=True, exist_ok=True)
    config.write(run)
    return config


def _is_unbegun(run: Path) -> bool:
    """Return whether a run has come to nothing: it was refused, such as for a model that could not be fetched."""
    if {path.name for path in run.iterdir()} != {CONFIG_FILE, PROGRESS_FILE} or is_in_use(run):
        return False
    with suppress(ValueError):  # a damaged file says nothing
        told = json.loads((run / PROGRESS_FILE).read_bytes())
        return isinstance(told, dict) and told.get("error") is not None and not told.get("stopped")
    return False


def _has_ended(results: Path) -> bool:
    """Return whether a run came to its end; one that time or a signal ended has results, and may go on."""
    return results.is_file() and json.loads(results.read_bytes()).get("ended") not in RESUMABLE
