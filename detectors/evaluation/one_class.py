"""The evaluation on photos of one class: false alarms on clear roads, or works that are missed.

Whatever needs both classes (MCC, AUC, the reward) is left out: it has no meaning here.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation.estimates import (
    RESAMPLES,
    Estimate,
    Flags,
    Floats,
    Groups,
    effective_count,
    estimate_of,
    resampled_rates,
    share_estimate,
)
from detectors.photos.labelled import CLASSES

MISTAKES = ("false alarms", "missed")  # in the order of the labels


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One detector on photos of one class.

    Attributes:
        label: 1 = roadwork.
        wrong: how many it puts into the other class.
        accuracy: the share of the others.
        brier: the mean squared distance of its probabilities.
        seconds: median of a picture.
    """

    photos: int
    label: int
    wrong: int
    accuracy: Estimate
    brier: float
    seconds: float

    @property
    def doubt(self) -> str:
        """Why its class may be the wrong one, or nothing: it is wrong of most, beyond chance."""
        if self.accuracy.high >= 0.5:
            return ""
        return (
            f"it says {CLASSES[1 - self.label]} of {self.wrong} of the {self.photos} photos of {CLASSES[self.label]}, "
            f"as would one that always does (photos of both classes tell)"
        )

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self) | {"label": CLASSES[self.label]}


def one_label(labels: Flags) -> int | None:
    """Return the only label that there is; None: both occur."""
    return None if labels.any() and not labels.all() else int(labels[0])


def judge_class(labels: Flags, probabilities: Floats, seconds: Floats, groups: Groups | None = None) -> ClassFigures:
    """Measure a detector on photos of one class; of a group of near-identical photos the interval counts one."""
    right = (probabilities > 0.5) == labels
    return ClassFigures(
        photos=len(labels),
        label=int(labels[0]),
        wrong=int((~right).sum()),
        accuracy=share_estimate(right, None if groups is None else effective_count(groups)),
        brier=float(np.mean((probabilities - labels) ** 2)),
        seconds=float(np.median(seconds)),
    )


def most_right(
    labels: Flags, answers: Mapping[str, Floats], seed: int = 0, groups: Groups | None = None
) -> tuple[str, dict[str, Estimate]]:
    """Return the detector that is right most often, and how much more often than each of the others, in pairs."""
    names = list(answers)
    said = np.stack([answers[name] > 0.5 for name in names])
    shares = (said == labels).mean(axis=1)
    best = int(shares.argmax())
    drawn: NDArray[np.float64] = resampled_rates(labels, said, RESAMPLES, seed, groups)[0 if labels[0] else 1]
    gains = {
        name: estimate_of(float(shares[best] - shares[row]), drawn[best] - drawn[row])
        for row, name in enumerate(names)
        if row != best
    }
    return names[best], gains


def in_words(best: str, gains: Mapping[str, Estimate]) -> list[str]:
    """Return a sentence for each of the others."""
    return [
        f"{best} is right of {gain.value:.3f} more of the photos than {name}"
        + (", but that may be chance " if gain.is_noise or math.isclose(gain.value, 0) else " ")
        + f"({gain.low:+.3f} to {gain.high:+.3f})"
        for name, gain in gains.items()
    ]
