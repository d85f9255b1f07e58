"""How right the answers were, and what another threshold would bring; the same photo is sent many times.

Answers to one photo are no independent evidence: sure is only what holds for other photos too, so they are split and
drawn by the photo.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation.estimates import Estimate, estimate_of, share_estimate
from detectors.evaluation.reward import expected_reward, expected_rewards, matthews

THRESHOLDS = 199  # tried
LEAST = 4  # photos of each class, before a threshold is looked for
RESAMPLES = 1000

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Pictures = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """How right the answers to the validators' own rounds were; None where there is nothing to count.

    Attributes:
        photos: that these are answers to.
        interval: 95 % interval of the accuracy on other photos.
    """

    count: int
    photos: int
    accuracy: float | None
    interval: tuple[float, float] | None
    sensitivity: float | None
    specificity: float | None
    mcc: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """The best decision threshold, and what it brings in the long run on photos that did not choose it."""

    threshold: float
    reward: float
    gain: Estimate


def quality_of(labels: Flags, predictions: Floats, pictures: Pictures) -> Quality:
    """Compare predictions with labels as a validator does: rounded, so that exactly 0.5 is no roadwork."""
    said = predictions > 0.5
    count = len(labels)
    if not count:
        return Quality(0, 0, None, None, None, None, None)
    tp, tn = int((labels & said).sum()), int((~labels & ~said).sum())
    fp, fn = int((~labels & said).sum()), int((labels & ~said).sum())
    times = np.unique(pictures, return_counts=True)[1]
    accuracy = share_estimate(labels == said, effective=float(count**2 / (times**2).sum()))
    return Quality(
        count=count,
        photos=len(times),
        accuracy=accuracy.value,
        interval=(accuracy.low, accuracy.high),
        sensitivity=tp / (tp + fn) if tp + fn else None,
        specificity=tn / (tn + fp) if tn + fp else None,
        mcc=matthews(tp, tn, fp, fn),
    )


def best_shift(
    labels: Flags, predictions: Floats, pictures: Pictures, lost: float, resamples: int = RESAMPLES
) -> Shift | None:
    """Return the threshold that is best on all answers, and what it brings, by cross-validation in two halves.

    Each half of the photos is judged with the threshold that is best for the other: what a threshold earns where it was
    chosen is flattery.
    """
    halves = np.zeros(len(labels), dtype=bool)
    for side in (labels, ~labels):
        photos = np.unique(pictures[side])
        if len(photos) < LEAST:
            return None
        halves |= side & np.isin(pictures, photos[::2])
    moved = np.empty(len(labels))
    for half in (halves, ~halves):
        moved[half] = predictions[half] - best_threshold(labels[~half], predictions[~half]) + 0.5
    reward = expected(quality_of(labels, moved, pictures), lost)
    assert reward is not None
    gain = _gain(labels, pictures, np.stack([predictions, moved]) > 0.5, 1 - lost, resamples)
    return Shift(best_threshold(labels, predictions), reward, gain)


def best_threshold(labels: Flags, predictions: Floats) -> float:
    """Return the middle of the thresholds that make the fewest mistakes with both labels weighed alike."""
    grid = np.linspace(0, 1, THRESHOLDS + 2)[1:-1]
    right = np.array([(predictions[labels] > at).mean() + (predictions[~labels] <= at).mean() for at in grid])
    best = grid[np.isclose(right, right.max())]
    return float(best[len(best) // 2])


def expected(quality: Quality, lost: float) -> float | None:
    """Return the reward in the long run; None where a class was not asked for."""
    if quality.sensitivity is None or quality.specificity is None:
        return None
    return expected_reward(quality.sensitivity, quality.specificity, missed=lost)


def _gain(labels: Flags, pictures: Pictures, said: NDArray[np.bool_], share: float, resamples: int) -> Estimate:
    """Return how much more the second decisions earn than the first; both of shape (2, answers).

    The interval is of other photos, drawn in each class with all that was answered to them.
    """
    random = np.random.default_rng(0)
    rates, drawn = [], []
    for label in (True, False):
        side = labels == label
        photos, of = np.unique(pictures[side], return_inverse=True)
        times = np.bincount(of).astype(np.float64)
        right = np.stack([np.bincount(of, decisions[side] == label) for decisions in said])
        rates.append(right.sum(axis=1) / times.sum())
        draws = random.integers(len(photos), size=(resamples, len(photos)))
        drawn.append(right[:, draws].sum(axis=2) / times[draws].sum(axis=1))
    before, after = expected_rewards(*rates)
    rewards = [expected_rewards(found, spared) for found, spared in zip(*drawn, strict=True)]
    return estimate_of(share * float(after - before), share * (rewards[1] - rewards[0]))
