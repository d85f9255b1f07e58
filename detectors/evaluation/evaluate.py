"""How good detectors are on labelled photos, and whether one is better than another or only luckier."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation.estimates import Estimate, rates, reward_estimate, reward_gain, reward_of, share_estimate
from detectors.evaluation.reversal import sorting_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


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
    reversed: bool  # the AUC is lower than that
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

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON, which knows no NaN."""
        values = asdict(self)
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def judge(labels: Flags, probabilities: Floats, seconds: Floats, seed: int = 0) -> Figures:
    """Measure a detector; both classes have to occur."""
    from sklearn.metrics import matthews_corrcoef, precision_score, recall_score

    said = probabilities > 0.5
    sorting = sorting_of(labels, probabilities)
    return Figures(
        photos=len(labels),
        accuracy=share_estimate(said == labels),
        balanced_accuracy=sum(rates(labels, said)) / 2,
        mcc=float(matthews_corrcoef(labels, said)),
        precision=float(precision_score(labels, said, zero_division=np.nan)),
        recall=float(recall_score(labels, said)),
        auc=sorting.auc,
        auc_low=max(0.0, 0.5 - sorting.chance),
        reversed=sorting.is_reversed,
        brier=float(np.mean((probabilities - labels) ** 2)),
        reward=reward_estimate(labels, said, seed=seed),
        seconds=float(np.median(seconds)),
    )


def leads(labels: Flags, answers: Mapping[str, Floats], seed: int = 0) -> tuple[str, dict[str, Estimate]]:
    """Return the detector with the most reward, and how much more it earns than each of the others, in pairs."""
    said = {name: values > 0.5 for name, values in answers.items()}
    earned = {name: reward_of(labels, flags) for name, flags in said.items()}
    best = max(earned, key=lambda name: earned[name])
    gains = {name: reward_gain(labels, flags, said[best], seed=seed) for name, flags in said.items() if name != best}
    return best, gains


def warnings(classes: Mapping[str, str], figures: Mapping[str, Figures]) -> list[str]:
    """Return a sentence for each detector that sorts the photos the wrong way round.

    Args:
        classes: which class of each counts as roadwork, in words.
        figures: of each.
    """
    return [
        f"{name} reversed? AUC {one.auc:.3f}, where chance alone stays above {one.auc_low:.3f}: "
        f"is roadwork = {classes[name]} the right class? (roadwork_label names another)"
        for name, one in figures.items()
        if one.reversed
    ]


def in_words(best: str, gains: Mapping[str, Estimate]) -> list[str]:
    """Return a sentence for each of the others."""
    return [
        f"{best} earns {gain.value:.3f} more than {name}, but that may be chance ({gain.low:+.3f} to {gain.high:+.3f})"
        if gain.is_noise
        else f"{best} is better than {name}: {gain.value:.3f} more reward ({gain.low:+.3f} to {gain.high:+.3f})"
        for name, gain in gains.items()
    ]
