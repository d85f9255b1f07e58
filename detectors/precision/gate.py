"""The gate: what a faster graph's answers cost, and whether that is too much. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.manifest import Labelled
from detectors.reward import expected_reward

Probabilities = NDArray[np.float64]


def flips(fp32: Probabilities, faster: Probabilities, threshold: float) -> float:
    """Return the share of pictures that change sides; a NaN counts as changed."""
    return float(np.mean(~((fp32 > threshold) == (faster > threshold)) | ~np.isfinite(faster)))


def differences(fp32: Probabilities, faster: Probabilities) -> tuple[float, float]:
    """Return the largest and the mean difference of probability."""
    difference = np.abs(fp32 - faster)
    return float(difference.max()), float(difference.mean())


def labelled(
    fp32: Probabilities, faster: Probabilities, labels: Sequence[bool] | None, threshold: float
) -> Labelled | None:
    """Return accuracy and expected reward of both, where labels are given; True is roadwork."""
    if labels is None:
        return None
    truth = np.array(labels, dtype=bool)
    (accuracy_fp32, reward_fp32), (accuracy, reward) = (_worth(p > threshold, truth) for p in (fp32, faster))
    return Labelled(
        pictures=len(truth),
        accuracy_fp32=accuracy_fp32,
        accuracy=accuracy,
        reward_fp32=reward_fp32,
        reward=reward,
    )


def _worth(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    sensitivity = float(np.mean(said[truth])) if truth.any() else 0.5
    specificity = float(np.mean(~said[~truth])) if (~truth).any() else 0.5
    return float(np.mean(said == truth)), expected_reward(sensitivity, specificity)
