"""Figures on real traffic: labels and answers come in; shares with their intervals and numbers of labels go out.

A handful of labels says nothing, and a figure of them would be believed: below `LEAST` there is none, and whatever
needs both classes is left out where there is one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.errors import DetectorConfigError
from detectors.evaluation.estimates import (
    DEVIATIONS,
    Estimate,
    Flags,
    Floats,
    Groups,
    effective_count,
    reward_estimate,
    reward_gain,
    share_estimate,
)
from detectors.evaluation.reward import matthews
from detectors.models.labels import sorting_of
from detectors.photos.labelled import CLASSES

LEAST = 10  # labels; fewer give no figure
FOLDS = 5  # of the threshold's cross-validation
STEPS = (0.1, 0.05, 0.03, 0.02, 0.01)  # half widths that a person asks for
POWER_DEVIATIONS = 0.8416  # of a normal distribution: a difference that is there shows four times of five
LEAST_DISAGREEMENTS = 6  # all on one side: 2 · 0.5⁶ = .03, and five would be .06


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """How right a model is on the random tenth; None: too few labels, or one class alone.

    Attributes:
        photos, scenes: that it rests on, and how many of them are unlike each other.
        positives, true_positives: photos with roadwork, and those of them that it found.
        negatives, true_negatives: the others, and those of them that it called so.
        auc: of what it says, whatever its threshold.
        independent: how many photos the interval of the accuracy counts; a scene of many weighs more than others.
    """

    photos: int
    scenes: int
    positives: int
    true_positives: int
    negatives: int
    true_negatives: int
    accuracy: Estimate | None = None
    mcc: float | None = None
    auc: float | None = None
    precision: float | None = None
    recall: float | None = None
    reward: Estimate | None = None
    independent: float = 0.0

    @property
    def right(self) -> int:
        """How many it judged rightly."""
        return self.true_positives + self.true_negatives

    @property
    def lack(self) -> str:
        """Why there are no figures, or not all; nothing: there are."""
        if self.photos < LEAST:
            return f"figures begin at {LEAST} labels of the random tenth, {LEAST - self.photos} more"
        if not self.positives or not self.negatives:
            return (
                f"all labels are {CLASSES[bool(self.positives)]}: MCC, AUC and the expected reward need some of "
                f"{CLASSES[not self.positives]}"
            )
        return ""

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__} | {"right": self.right}


def _plain(value: object) -> object:
    return {"value": value.value, "low": value.low, "high": value.high} if isinstance(value, Estimate) else value


def figures_of(labels: Flags, probabilities: Floats, groups: Groups, seed: int = 0) -> TrafficFigures:
    """Measure a model's answers; of a group of near-identical photos the intervals count one."""
    said = probabilities > 0.5
    positives, negatives = int(labels.sum()), int((~labels).sum())
    true_positives, true_negatives = int((said & labels).sum()), int((~said & ~labels).sum())
    scenes, independent = len(np.unique(groups)), effective_count(groups)
    counted = TrafficFigures(len(labels), scenes, positives, true_positives, negatives, true_negatives)
    if counted.photos < LEAST:
        return counted
    alarms, missed = negatives - true_negatives, positives - true_positives
    both = bool(positives and negatives)
    return TrafficFigures(
        counted.photos, counted.scenes, positives, true_positives, negatives, true_negatives,
        accuracy=share_estimate(said == labels, independent),
        mcc=matthews(true_positives, true_negatives, alarms, missed) if both else None,
        auc=sorting_of(labels, probabilities).auc if both else None,
        precision=true_positives / (true_positives + alarms) if true_positives + alarms else None,
        recall=true_positives / positives if positives else None,
        reward=reward_estimate(labels, said, seed=seed, groups=groups) if both else None,
        independent=independent,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NarrowerInterval:
    """How many more labels make an accuracy's interval so narrow: the figure, give or take `half`."""

    half: float
    more: int


def narrower(figures: TrafficFigures) -> NarrowerInterval | None:
    """Return what the next round half width takes; None: there is no accuracy yet, or it is within .01.

    Half the width of Wilson's interval at the accuracy seen: z · √(p (1 − p) / n + z² / 4n²) / (1 + z² / n). Source:
    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927. Labels are taken to
    bring as many new scenes as they did.
    """
    accuracy = figures.accuracy
    if accuracy is None:
        return None
    now = (accuracy.high - accuracy.low) / 2
    half = next((step for step in STEPS if step < now), None)
    if half is None:
        return None
    needed = 1
    while _half_width(accuracy.value, needed) > half:
        needed *= 2
    low, high = needed // 2, needed  # it falls with every label
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _half_width(accuracy.value, middle) <= half else (middle + 1, high)
    return NarrowerInterval(half, max(1, math.ceil((low - figures.independent) * figures.photos / figures.independent)))


def _half_width(share: float, count: int) -> float:
    z = DEVIATIONS
    return z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)


@dataclass(frozen=True, slots=True)
class TrafficComparison:
    """Two models on the same photos of real traffic.

    Attributes:
        photos: that both judged.
        better, worse: photos that they disagree on, by which the other one is right, or the first.
        gain: of the other one's expected reward, in pairs; None: too few labels, or one class.
        more: labels until the difference would show, were it as it looks; None: it shows, or there is none to see.
    """

    photos: int
    better: int
    worse: int
    gain: Estimate | None
    more: int | None

    @property
    def disagreements(self) -> int:
        """Photos that they put on two sides."""
        return self.better + self.worse

    @property
    def is_settled(self) -> bool:
        """Whether one earns more beyond chance."""
        return self.gain is not None and not self.gain.is_noise


def compare_on_traffic(
    labels: Flags, first: Floats, other: Floats, groups: Groups, seed: int = 0
) -> TrafficComparison:  # fmt: skip
    """Compare the answers of two models, photo by photo."""
    before, after = first > 0.5, other > 0.5
    better, worse = (
        int(((after == labels) & (before != labels)).sum()),
        int(((before == labels) & (after != labels)).sum()),
    )
    gain = None
    if len(labels) >= LEAST and labels.any() and not labels.all():
        gain = reward_gain(labels, before, after, seed=seed, groups=groups)
    shows = gain is not None and not gain.is_noise
    more = None if shows else labels_to_tell_apart(len(labels), better, worse)
    return TrafficComparison(len(labels), better, worse, gain, more)


def labels_to_tell_apart(photos: int, better: int, worse: int) -> int | None:
    """Return how many more labels would tell two models apart, four times of five, were they as they look.

    n = (z · √ψ + z' · √(ψ − δ²))² / δ², with ψ the share of photos that they disagree on, δ the difference of their
    accuracies, z = 1.96 and z' = 0.84. Source: Connor, Sample size for testing differences in proportions for the
    paired-sample design, Biometrics 43, 1987. None: they look alike, and no number of labels would.
    """
    if better == worse:
        return None
    apart, difference = (better + worse) / photos, abs(better - worse) / photos
    root = DEVIATIONS * math.sqrt(apart) + POWER_DEVIATIONS * math.sqrt(max(0.0, apart - difference**2))
    needed = max((root / difference) ** 2, LEAST_DISAGREEMENTS / apart)
    return max(1, math.ceil(needed - photos))


@dataclass(frozen=True, slots=True)
class ThresholdError:
    """What another threshold would earn more on real traffic, on photos that it was not fitted to."""

    threshold: float
    gain: Estimate

    @property
    def is_worth_it(self) -> bool:
        """Whether that is beyond chance, so that `calibrate --recorded` would write it down."""
        return self.gain.low > 0


def threshold_error(labels: Flags, probabilities: Floats, groups: Groups, seed: int = 0) -> ThresholdError | str:
    """Find the best threshold of what is sent, where 0.5 counts now; or say why none can be found.

    Needs scikit-learn.
    """
    from detectors.evaluation.combine import calibrate

    if not labels.any() or labels.all():
        return "photos of both classes are needed"
    try:
        calibration, gain = calibrate(labels, probabilities, FOLDS, seed, groups)
    except DetectorConfigError as error:
        return str(error).partition(": ")[0]
    return ThresholdError(calibration.threshold, gain)
