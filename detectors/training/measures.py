"""How good probabilities of roadwork are, in the figures that a training reports."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detectors.reward import expected_reward


def judge(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Return accuracy, MCC, AUC, log loss, and the reward that validators would pay on the average.

    A probability of exactly 0.5 counts as no roadwork, as with the validators.
    """
    from sklearn.metrics import log_loss, matthews_corrcoef, roc_auc_score

    said = probabilities > 0.5
    return {
        "photos": float(len(labels)),
        "accuracy": float((said == labels).mean()),
        "mcc": float(matthews_corrcoef(labels, said)),
        "auc": float(roc_auc_score(labels, probabilities)),
        "loss": float(log_loss(labels, np.clip(probabilities, 1e-7, 1 - 1e-7), labels=[0, 1])),
        "reward": reward_of(labels, said),
    }


def reward_of(labels: NDArray[np.int64], said: NDArray[np.bool_]) -> float:
    """Return the expected reward of answers on both classes."""
    works = labels == 1
    return expected_reward(float(said[works].mean()), float((~said[~works]).mean()))


def in_words(figures: Mapping[str, float]) -> str:
    """Return the figures as one line."""
    return (
        f"accuracy {figures['accuracy']:.1%}, MCC {figures['mcc']:.3f}, AUC {figures['auc']:.3f}, "
        f"expected reward {figures['reward']:.2f} on {figures['photos']:.0f} photos"
    )
