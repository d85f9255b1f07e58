"""The evaluation of detectors on labelled photos, and the comparison of two.

It says whether one is better than the other or only luckier.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector
from detectors.errors import DetectorError, ModelError
from detectors.evaluation.estimates import (
    Estimate,
    Groups,
    effective_count,
    rates,
    reward_estimate,
    reward_gain,
    reward_of,
    share_estimate,
)
from detectors.evaluation.one_class import ClassFigures
from detectors.models.labels import CONFIDENCE_DEVIATIONS, sorting_of
from detectors.photos.image import decode
from detectors.photos.labelled import Photo
from detectors.photos.synthetic import many_pictures
from detectors.photos.transforms import View, sent

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNTRANSFORMED: Final = "as it is"  # the very file
Sending = View | Literal["as it is"]
Tell = Callable[[], None]  # one photo is done
COMPARED_PICTURES = 8


@dataclass(frozen=True, slots=True)
class Figures:
    """One detector on one set of photos; NaN where a figure has no meaning, such as a precision without a yes.

    The reward is what validators would pay, who draw both classes alike; all else is of the photos as they are.
    """

    photos: int
    accuracy: Estimate
    balanced_accuracy: float
    mcc: float
    precision: float
    recall: float
    auc: float
    auc_low: float  # what chance alone stays above, 39 times of 40
    reversed: bool  # the AUC is lower than that, or the answers would be better flipped, beyond chance
    brier: float
    reward: Estimate
    seconds: float  # median of a picture

    @property
    def words(self) -> str:
        """The figures as one line."""
        return (
            f"accuracy {self.accuracy}, MCC {self.mcc:.3f}, AUC {self.auc:.3f}, expected reward {self.reward} on "
            f"{self.photos} photos"
        )

    @property
    def doubt(self) -> str:
        """Why its class may be the wrong one, or nothing."""
        if not self.reversed:
            return ""
        if self.auc < self.auc_low:
            return f"AUC {self.auc:.3f}, where chance alone stays above {self.auc_low:.3f}"
        right = self.balanced_accuracy
        return f"right of {right:.1%} of both classes alike, and of {1 - right:.1%} if its answers were flipped"

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON, which knows no NaN."""
        values = asdict(self)
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def judge(
    labels: Flags, probabilities: Floats, seconds: Floats, seed: int = 0, groups: Groups | None = None
) -> Figures:
    """Measure a detector; both classes have to occur, and of a group of near-identical photos intervals count one."""
    from sklearn.metrics import matthews_corrcoef, precision_score, recall_score

    said = probabilities > 0.5
    sorting = sorting_of(labels, probabilities)
    balanced = sum(rates(labels, said)) / 2
    # Were the same answers dealt out by lot, so far would the balanced accuracy stray from a half.
    spread = said.mean() * (1 - said.mean()) * (1 / labels.sum() + 1 / (~labels).sum())
    is_worse = balanced < 0.5 - CONFIDENCE_DEVIATIONS * math.sqrt(spread) / 2
    return Figures(
        photos=len(labels),
        accuracy=share_estimate(said == labels, None if groups is None else effective_count(groups)),
        balanced_accuracy=balanced,
        mcc=float(matthews_corrcoef(labels, said)),
        precision=float(precision_score(labels, said, zero_division=np.nan)),
        recall=float(recall_score(labels, said)),
        auc=sorting.auc,
        auc_low=max(0.0, 0.5 - sorting.chance),
        reversed=bool(sorting.is_reversed or is_worse),
        brier=float(np.mean((probabilities - labels) ** 2)),
        reward=reward_estimate(labels, said, seed=seed, groups=groups),
        seconds=float(np.median(seconds)),
    )


def leads(
    labels: Flags, answers: Mapping[str, Floats], seed: int = 0, groups: Groups | None = None
) -> tuple[str, dict[str, Estimate]]:
    """Return the detector with the most reward, and how much more it earns than each of the others, in pairs."""
    said = {name: values > 0.5 for name, values in answers.items()}
    earned = {name: reward_of(labels, flags) for name, flags in said.items()}
    best = max(earned, key=lambda name: earned[name])
    gains = {
        name: reward_gain(labels, flags, said[best], seed=seed, groups=groups)
        for name, flags in said.items()
        if name != best
    }
    return best, gains


def warnings(classes: Mapping[str, str], figures: Mapping[str, Figures | ClassFigures]) -> list[str]:
    """Return a sentence for each detector that sorts the photos the wrong way round.

    Args:
        classes: which class of each counts as roadwork, in words.
        figures: of each.
    """
    return [
        f"{name} reversed? {one.doubt}: is roadwork = {classes[name]} the right class? (roadwork_label names another)"
        for name, one in figures.items()
        if one.doubt
    ]


def in_words(best: str, gains: Mapping[str, Estimate]) -> list[str]:
    """Return a sentence for each of the others."""
    return [
        f"{best} earns {gain.value:.3f} more than {name}, but that may be chance ({gain.low:+.3f} to {gain.high:+.3f})"
        if gain.is_noise
        else f"{best} is better than {name}: {gain.value:.3f} more reward ({gain.low:+.3f} to {gain.high:+.3f})"
        for name, gain in gains.items()
    ]


def ask(
    detector: Detector,
    photos: Sequence[Photo],
    view: Sending | Sequence[Sending] = UNTRANSFORMED,
    seed: int = 0,
    tell: Tell = lambda: None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a detector would send for each photo, and the seconds each took; two of shape (photos,).

    Args:
        detector: is asked.
        photos: are asked about.
        view: how they are sent: as it is, or as a validator may send it; or that of each.
        seed: of what a view leaves to chance.
        tell: is called after each photo.
    """
    answers, seconds = [], []
    views = [view] * len(photos) if isinstance(view, str) else view
    for photo, how in zip(photos, views, strict=True):
        data = bytes_sent(photo, how, seed)
        started = time.perf_counter()
        answers.append(detector.predict(data).probability)
        seconds.append(time.perf_counter() - started)
        tell()
    return np.array(answers), np.array(seconds)


def bytes_sent(photo: Photo, view: Sending, seed: int) -> bytes:
    """Return what a validator would send of a photo; it follows from view, seed and the photo's content."""
    data = photo.path.read_bytes()
    if view == UNTRANSFORMED:
        return data
    return sent(data, view, np.random.default_rng((seed, int(photo.digest[:15], 16))))


def ask_raw(
    detectors: Sequence[Detector],
    photos: Sequence[Photo],
    tell: Tell = lambda: None,
    sendings: Sequence[Sending] | None = None,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Return what models say before any calibration, and the seconds each took; two of shape (detectors, photos).

    Each photo is decoded once, which the seconds are without.

    Args:
        detectors: are asked.
        photos: are asked about.
        tell: is called after each photo.
        sendings: how each photo is sent; default: as it is.
        seed: of what a sending leaves to chance.
    """
    said, seconds = np.empty((2, len(detectors), len(photos)))
    for column, photo in enumerate(photos):
        picture = decode(bytes_sent(photo, sendings[column] if sendings is not None else UNTRANSFORMED, seed))
        for row, detector in enumerate(detectors):
            judgement = detector.judge(picture)
            said[row, column], seconds[row, column] = judgement.probability, judgement.preprocess + judgement.infer
        tell()
    return said, seconds


@dataclass(frozen=True, slots=True)
class AnsweredPicture:
    """A picture, and the probability it was answered with."""

    data: bytes
    probability: float


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Differences of probability over some pictures; flips: pictures on the other side of 0.5."""

    pictures: int
    mean: float
    largest: float
    flips: int

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"beside the old model on {self.pictures} picture{'s' * (self.pictures != 1)}: "
            f"probabilities differ by {self.mean:.4f} on average and "
            f"{self.largest:.4f} at most, {self.flips} change sides"
        )


def compare(old: Detector, new: Detector, seen: Sequence[AnsweredPicture], seconds: float) -> ModelComparison | None:
    """Compare on pictures that the old model has answered, then made ones, up to `COMPARED_PICTURES` and for a while.

    A picture that the old model has no answer to does not count; None: it had none to any.

    Args:
        old: the model that serves.
        new: the one that is to take its place.
        seen: recent pictures.
        seconds: after which no further picture is begun.

    Raises:
        ModelError: the new model has no probability for a picture.
    """
    pictures: list[AnsweredPicture | bytes] = [
        *seen[-COMPARED_PICTURES:],
        *many_pictures(max(0, COMPARED_PICTURES - len(seen))),
    ]
    until, pairs = time.monotonic() + seconds, list[tuple[float, float]]()
    for picture in pictures:
        if pairs and time.monotonic() > until:
            break
        try:
            was = (
                picture
                if isinstance(picture, AnsweredPicture)
                else AnsweredPicture(picture, old.predict(picture).probability)
            )
        except DetectorError:
            continue
        try:
            pairs.append((was.probability, new.predict(was.data).probability))
        except DetectorError as error:
            raise ModelError(
                f"the model {new.manifest.name} has no answer to a picture of the comparison: {error}"
            ) from error
    return sum_up(pairs) if pairs else None


def sum_up(pairs: Sequence[tuple[float, float]]) -> ModelComparison:
    """Return the differences of pairs of probabilities; like validators, 0.5 itself counts as no roadwork."""
    differences = [abs(before - after) for before, after in pairs]
    flips = sum((before > 0.5) != (after > 0.5) for before, after in pairs)
    return ModelComparison(len(pairs), sum(differences) / len(pairs), max(differences), flips)
