"""Confidence intervals of measured figures, and paired differences by the bootstrap.

A few hundred photos say less than their figures seem to: no model is called better within the noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation.reward import LONG, SHORT, expected_reward, expected_rewards

RESAMPLES = 1000
PLAYED_RESAMPLES = 400  # which take longer than resamples
PLAYED_ROUNDS = 5000  # of the play that an interval allows for: what a validator pays varies from week to week, too
INTERVAL_PERCENTILES = (2.5, 97.5)  # percentiles: a 95 % interval
DEVIATIONS = 1.96  # of a normal distribution, that its 95 % interval reaches to either side

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Groups = NDArray[np.int64]  # near-identical photos have the same number


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether zero is within the interval: of a difference, that it may be chance."""
        return self.low <= 0 <= self.high

    @property
    def error(self) -> float:
        """The standard error, as if the figure were normally distributed."""
        return (self.high - self.low) / (2 * DEVIATIONS)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def rates(labels: Flags, said: Flags) -> tuple[float, float]:
    """Return the shares of works found and of clear roads spared; 0.5 for a class without photos."""
    return (
        float(np.mean(said[labels])) if labels.any() else 0.5,
        float(np.mean(~said[~labels])) if (~labels).any() else 0.5,
    )


def reward_of(labels: Flags, said: Flags) -> float:
    """Return the expected reward of answers to labelled photos, whatever share of them shows works."""
    return expected_reward(*rates(labels, said))


def reward_estimate(
    labels: Flags, said: Flags, resamples: int = PLAYED_RESAMPLES, rounds: int = PLAYED_ROUNDS, seed: int = 0,
    groups: Groups | None = None,
) -> Estimate:  # fmt: skip
    """Return the expected reward; its interval allows for other photos and for one play of so many rounds.

    Both rates are drawn as these photos make them likely (Jeffreys' posterior): unlike a bootstrap, that leaves room
    for mistakes where none was seen. A group of near-identical photos says as much as one.
    """
    random, own = np.random.default_rng(seed), _groups(labels, groups)
    found = _likely(said[labels], effective_count(own[labels]), resamples, random)
    spared = _likely(~said[~labels], effective_count(own[~labels]), resamples, random)
    means = [play(s, q, rounds, random).mean() for s, q in zip(found, spared, strict=True)]
    return estimate_of(reward_of(labels, said), np.array(means))


def effective_count(groups: Groups) -> float:
    """Return how many independent photos these are worth, whose groups of near-identical ones are judged alike.

    (Σ m)² / Σ m², with m the sizes of the groups. Source: Kish, Survey Sampling, 1965. It is their number where all
    are alike in size; one scene of twenty frames among forty single ones weighs as twenty in the mean.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / max(1, (sizes**2).sum()))


def share_estimate(right: Flags, effective: float | None = None) -> Estimate:
    """Return the mean of flags, such as an accuracy, with Wilson's interval.

    Args:
        right: the flags.
        effective: how many independent ones they are worth; default: all.
    """
    return wilson(float(right.mean()), effective or len(right))


def wilson(share: float, count: float) -> Estimate:
    """Return a share of so many independent flags with Wilson's interval."""
    z = DEVIATIONS
    middle, half = share + z**2 / (2 * count), z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z**2 / count
    return Estimate(share, max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale)))


def reward_gain(
    labels: Flags, before: Flags, after: Flags, resamples: int = RESAMPLES, seed: int = 0, groups: Groups | None = None
) -> Estimate:
    """Return how much more expected reward `after` earns; in pairs, since both judged the same photos.

    Of the long run: what a validator happens to draw hits both alike.
    """
    found, spared = resampled_rates(labels, np.stack([before, after]), resamples, seed, groups)
    rewards = [expected_rewards(s, q) for s, q in zip(found, spared, strict=True)]
    return estimate_of(reward_of(labels, after) - reward_of(labels, before), rewards[1] - rewards[0])


def resampled_rates(
    labels: Flags, said: NDArray[np.bool_], resamples: int, seed: int, groups: Groups | None = None
) -> tuple[Floats, Floats]:
    """Return both rates for other photos as likely as these, drawn in each class.

    Args:
        labels: shape (photos,).
        said: answers of several detectors, shape (detectors, photos).
        resamples: how many times photos are drawn; every detector sees the same draw.
        seed: of the draws.
        groups: of near-identical photos, which are drawn together: one by one they would look like more than they are.

    Returns:
        Works found and clear roads spared, each of shape (detectors, resamples).
    """
    random, own = np.random.default_rng(seed), _groups(labels, groups)
    found = _resampled_means(said[:, labels], own[labels], resamples, random)
    return found, _resampled_means(~said[:, ~labels], own[~labels], resamples, random)


def play(sensitivity: float, specificity: float, rounds: int, random: np.random.Generator) -> Floats:
    """Play rounds with full windows, and return what each of them pays; shape (rounds,)."""
    works = random.random(rounds + LONG) < 0.5
    right = random.random(rounds + LONG) < np.where(works, sensitivity, specificity)
    said = works == right

    def window(flags: Flags, length: int) -> Floats:
        sums = np.concatenate([[0], np.cumsum(flags)])
        return np.asarray((sums[length:] - sums[:-length])[-rounds:], dtype=np.float64)

    tp, tn = window(works & said, LONG), window(~works & ~said, LONG)
    fp, fn = window(~works & said, LONG), window(works & ~said, LONG)
    scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    mcc = np.divide(tp * tn - fp * fn, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.asarray((0.5 * np.maximum(mcc, 0) + 0.5 * window(right, SHORT) / SHORT) ** 3)


def _groups(labels: Flags, groups: Groups | None) -> Groups:
    return np.arange(len(labels)) if groups is None else groups


def _resampled_means(flags: NDArray[np.bool_], groups: Groups, resamples: int, random: np.random.Generator) -> Floats:
    if not len(groups):
        return np.full((len(flags), resamples), 0.5)
    _, own, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    right = np.stack([np.bincount(own, row, len(sizes)) for row in flags])
    times = [np.bincount(random.integers(len(sizes), size=len(sizes)), minlength=len(sizes)) for _ in range(resamples)]
    drawn = np.stack(times, axis=1)
    return np.asarray((right @ drawn) / (sizes @ drawn))


def _likely(right: Flags, independent: float, draws: int, random: np.random.Generator) -> Floats:
    hits = independent * float(right.mean()) if independent else 0.0
    return np.asarray(random.beta(hits + 0.5, independent - hits + 0.5, draws))


def estimate_of(value: float, draws: Floats) -> Estimate:
    """Return a figure with the interval that 95 % of its draws fall into, stretched to the figure.

    Without a mistake seen the figure is the most there is, and more than draws that allow for some.
    """
    low, high = np.percentile(draws, INTERVAL_PERCENTILES)
    return Estimate(value, min(value, float(low)), max(value, float(high)))
