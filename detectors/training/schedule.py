"""Numbers that follow from the amount of data: steps, warm-up, logging, and which checkpoints are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray


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


def class_weights(labels: NDArray[np.int64], *, balanced: bool) -> tuple[float, float]:
    """Return what a photo of each class weighs in the loss, so that both classes weigh the same; 1 on average."""
    if not balanced:
        return 1.0, 1.0
    counts = np.bincount(labels, minlength=2)
    weights = len(labels) / (2 * counts)
    return float(weights[0]), float(weights[1])


ALL_DONE = "all epochs are done"

Score = tuple[float, float]  # expected reward and minus the loss: of equal rewards, the surer one is better


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


def why_ended(history: Sequence[Mapping[str, float]], steps: int, schedule: Schedule, patience: int) -> str | None:
    """Say why a training with this log has come to its end, if it has; a resumed one then has nothing to train."""
    waited = since_best(scores_of(history))
    if waited >= patience:
        return f"no better validation in {waited} epochs"
    return ALL_DONE if steps >= schedule.total else None
