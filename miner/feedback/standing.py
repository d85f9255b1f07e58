"""The standing on real traffic, as a file beside the labels: what was measured last, and how many photos wait.

`standing` writes it, `label` renews it without a model, and the daemon shows it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.evaluation.estimates import Estimate, wilson
from detectors.evaluation.reward import PromisedAccuracy
from detectors.files import as_owner, write_safely
from detectors.models.calibration import Share
from detectors.photos.labelled import CLASSES
from miner.errors import ConfigurationError
from miner.feedback import FOLDER, IMPROVEMENTS, is_sampled
from miner.feedback.answers import AnswerCache, AnswerFile, TrafficSample, answers_to, counts
from miner.feedback.figures import TrafficFigures, figures_of
from miner.feedback.labels import TABLE, UNDECIDED, Labels
from miner.feedback.traffic import recorded_paths
from miner.recorder import FOLDER as RECORDER
from miner.recorder.records import IMAGES

FILE = "standing.json"
STATE_FILE = "state.json"  # of an improvement
LARGEST_BYTES = 64 * 2**10

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class IntervalView(_Part):
    """A figure with its 95 % interval."""

    value: Share
    low: Share
    high: Share

    @classmethod
    def of(cls, estimate: Estimate | None) -> Self | None:
        """Take an estimate's figures, if there is one."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high) if estimate is not None else None


class ImprovementView(_Part):
    """The last run of `improve`: its end in seconds since 1970, what it gained, and whether its model was promoted."""

    at: Seconds
    gain: float | None = None
    promoted: bool | None = None


class PhotoCounts(_Part):
    """How many photos are labelled, and how many wait for it.

    Attributes:
        labelled: by class.
        skipped: that somebody could not decide on.
        surprises, surprises_outside: labels of which the miner had said otherwise; those outside of the random tenth.
        sampled: labels of the random tenth.
        waiting: recorded photos without a label.
        waiting_sampled: those of them that are of the random tenth.
    """

    labelled: dict[str, Count] = {}
    skipped: Count = 0
    surprises: Count = 0
    surprises_outside: Count = 0
    sampled: Count = 0
    waiting: Count = 0
    waiting_sampled: Count = 0

    @property
    def decided(self) -> int:
        """Labels of both classes."""
        return sum(self.labelled.values())

    @property
    def outside(self) -> int:
        """Labels that no figure rests on: they were chosen because they teach, or were imported."""
        return self.decided - self.sampled


class ModelStanding(_Part):
    """How right a model is on the random tenth, and what was promised of it; None: too few labels, or nobody knows."""

    name: str
    fingerprint: str
    precision: str
    photos: Count
    right: Count
    accuracy: IntervalView | None = None
    mcc: float | None = None
    reward: IntervalView | None = None
    promised: Share | None = None
    promised_photos: Count = 0

    @classmethod
    def of(cls, model: AnswerFile, figures: TrafficFigures, promised: PromisedAccuracy | None) -> Self:
        """Take a model's figures."""
        return cls(
            name=model.model,
            fingerprint=model.fingerprint,
            precision=model.precision,
            photos=figures.photos,
            right=figures.right,
            accuracy=IntervalView.of(figures.accuracy),
            mcc=figures.mcc,
            reward=IntervalView.of(figures.reward),
            promised=promised.value if promised is not None else None,
            promised_photos=promised.photos if promised is not None else 0,
        )

    @property
    def is_below_promise(self) -> bool:
        """Whether it is right less often than was promised, beyond chance: that of these labels and of the promise.

        By the interval of a difference of two shares. Source: Newcombe, Interval estimation for the difference between
        independent proportions, Statistics in Medicine 17, 1998, method 10.
        """
        if self.accuracy is None or self.promised is None:
            return False
        doubt = self.promised - wilson(self.promised, self.promised_photos).low if self.promised_photos else 0.0
        return self.promised - self.accuracy.value > math.hypot(self.accuracy.high - self.accuracy.value, doubt)


class StandingView(_Part):
    """The standing of the miner on real traffic; `model` is None until one was measured."""

    at: Seconds
    photos: PhotoCounts
    model: ModelStanding | None = None
    improvement: ImprovementView | None = None
    is_current: bool = True  # whether the model that was measured is the one that serves

    @classmethod
    def read(cls, state_dir: Path) -> Self | None:
        """Return what was left; None: nothing, or nothing that can be read."""
        try:
            with (state_dir / FOLDER / FILE).open("rb") as file:
                return cls.model_validate_json(file.read(LARGEST_BYTES))
        except (OSError, ValidationError):
            return None

    def write(self, state_dir: Path) -> None:
        """Leave it where the daemon looks, as the owner of the state folder.

        Raises:
            OSError: the folder of the labels is not there, or can't be written.
        """
        folder = state_dir / FOLDER
        with as_owner(folder):
            write_safely(folder / FILE, self.model_dump_json(indent=2, exclude={"is_current"}).encode() + b"\n")


def count_photos(state_dir: Path, labels: Labels | None = None) -> PhotoCounts:
    """Count what is labelled and what waits, by names alone.

    Raises:
        ConfigurationError: the table of the labels can't be read.
    """
    known = labels if labels is not None else Labels(state_dir / FOLDER)
    decided = known.decided
    waiting = {*recorded_paths(state_dir / RECORDER), *known.undecided()} - {label.digest for label in known}
    return PhotoCounts(
        labelled={kind: sum(label.kind == kind for label in decided) for kind in reversed(CLASSES)},
        skipped=len(known) - len(decided),
        surprises=sum(label.is_surprise for label in decided),
        surprises_outside=sum(label.is_surprise and not counts(label) for label in decided),
        sampled=sum(counts(label) for label in decided),
        waiting=len(waiting),
        waiting_sampled=sum(map(is_sampled, waiting)),
    )


def last_improvement(state_dir: Path) -> ImprovementView | None:
    """Return the run of `improve` that ended last; None: none has."""
    ended = [found for path in (state_dir / IMPROVEMENTS).glob(f"*/{STATE_FILE}") if (found := _ended(path))]
    return max(ended, key=lambda one: one.at, default=None)


def _ended(path: Path) -> ImprovementView | None:
    """Return a run as it ended; None: it has not, or another version wrote the file."""
    try:
        state: Any = json.loads(path.read_bytes())
        gain, promoted = state.get("gain"), state.get("promoted")
        gain = gain.get("value") if isinstance(gain, Mapping) else gain
        return ImprovementView(
            at=state["ended"],
            gain=float(gain) if isinstance(gain, int | float) and math.isfinite(gain) else None,
            promoted=promoted if isinstance(promoted, bool) else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # ValidationError is a ValueError
        return None


def standing_now(state_dir: Path, labels: Labels, model: ModelStanding | None, at: float) -> StandingView:
    """Return the standing with these figures.

    Args:
        state_dir: holds labels, recorder and improvements.
        labels: as they are.
        model: None: none was measured.
        at: seconds since 1970.
    """
    return StandingView(
        at=at, photos=count_photos(state_dir, labels), model=model, improvement=last_improvement(state_dir)
    )


def renew_standing(state_dir: Path, labels: Labels, at: float) -> StandingView:
    """Write the standing anew, without a model: the labels as they are now, beside the answers that were kept.

    So `label` tells how right the model that was measured last is by the labels of today. Its figures rest on photos
    that it was asked about; the others wait for `standing`.

    Args:
        state_dir: holds labels, recorder and improvements.
        labels: as they are; whoever labels has them.
        at: seconds since 1970.

    Raises:
        OSError: the file can't be written.
    """
    before = StandingView.read(state_dir)
    model = before.model if before is not None else None
    if model is not None:
        said = AnswerCache(labels.folder, model.name, model.fingerprint, model.precision).said
        sample = TrafficSample.read(labels)
        sample.keep()
        asked = sample.only(said)
        figures = figures_of(asked.labels, answers_to(said, asked.photos), asked.groups)
        model = model.model_copy(
            update={
                "photos": figures.photos,
                "right": figures.right,
                "accuracy": IntervalView.of(figures.accuracy),
                "mcc": figures.mcc,
                "reward": IntervalView.of(figures.reward),
            }
        )
    view = standing_now(state_dir, labels, model, at)
    view.write(state_dir)
    return view


@dataclass(slots=True)
class StandingWatch:
    """What a daemon shows of real traffic: the file, and how many photos wait now; to be read off the event loop."""

    state_dir: Path
    view: StandingView | None = None
    _seen: tuple[int, ...] = ()
    _photos: PhotoCounts | None = None

    def read(self) -> None:
        """Look again; names are counted only where a folder has changed. Nothing labelled or recorded: no view."""
        labels, recorder = self.state_dir / FOLDER, self.state_dir / RECORDER
        places = [labels / TABLE, *(labels / kind for kind in (*CLASSES, UNDECIDED)), recorder / IMAGES]
        seen = tuple(map(_changed, places))
        if seen != self._seen:
            try:
                self._photos = count_photos(self.state_dir) if any(seen) else None
            except (ConfigurationError, OSError):  # `label` says why; a photo may be moved at this moment
                self._photos = None
            self._seen = seen
        found = StandingView.read(self.state_dir)
        photos = self._photos or (found.photos if found is not None else None)
        improvement = last_improvement(self.state_dir)
        if photos is None:
            self.view = None
        elif found is None:
            self.view = StandingView(at=0.0, photos=photos, improvement=improvement)
        else:
            self.view = found.model_copy(update={"photos": photos, "improvement": improvement})

    def of(self, fingerprint: str, promised: PromisedAccuracy | None) -> StandingView | None:
        """Return what there is, beside what the model that serves promises; None: nothing."""
        view = self.view
        if view is None or view.model is None:
            return view
        if view.model.fingerprint != fingerprint:
            return view.model_copy(update={"is_current": False})
        value, photos = (promised.value, promised.photos) if promised is not None else (None, 0)
        model = view.model.model_copy(update={"promised": value, "promised_photos": photos})
        return view.model_copy(update={"model": model})


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
