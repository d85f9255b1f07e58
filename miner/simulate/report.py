"""What the validators saw, summed up: answers, times, what they earn, and what would earn more."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from detectors.reward import expected_reward, matthews
from miner.bench.report import percentiles
from miner.simulate.schedule import Request
from miner.simulate.scoring import Tally, score_all
from miner.simulate.sending import Answer, Outcome

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
THRESHOLDS = 199  # tried
SURE = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True, slots=True)
class Quality:
    """How right the answers to the validators' own rounds were; None where there is nothing to count.

    Attributes:
        interval: 95 % interval of the accuracy (Wilson).
    """

    count: int
    accuracy: float | None
    interval: tuple[float, float] | None
    sensitivity: float | None
    specificity: float | None
    mcc: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """The best decision threshold, and the long-run reward with it, measured on answers that did not choose it."""

    threshold: float
    reward: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a simulation.

    Attributes:
        lost: share of all requests without an answer in time.
        score: mean of the validators' smoothed scores at the end; it begins at 0.
        reward: mean over the rounds played.
        expected: reward in the long run, by what was right and what was lost.
        expected_unlost: the same if nothing had been lost.
        behind: the most that a request went out later than planned, seconds.
        utilisation: share of the time that the miner would have to work one by one, by its median answer alone.
    """

    requests: int
    organic: int
    outcomes: dict[Outcome, int]
    messages: dict[str, int]
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None
    lost: float
    quality: Quality
    score: float
    reward: float
    expected: float | None
    expected_unlost: float | None
    shift: Shift | None
    tallies: list[Tally]
    behind: float
    seconds: float
    speed: float


def summed_up(
    requests: Sequence[Request], answers: Sequence[Answer], validators: int, seconds: float, speed: float
) -> Report:
    """Sum up the answers to the requests that were sent, in any order."""
    pairs = [(requests[answer.number], answer) for answer in sorted(answers, key=lambda one: one.number)]
    outcomes = Counter(answer.outcome for _, answer in pairs)
    times = [answer.seconds for _, answer in pairs if answer.outcome == "answered"]
    p50, p95, p99 = percentiles(times) if times else (None, None, None)
    lost = (len(pairs) - outcomes["answered"]) / len(pairs) if pairs else 0.0
    own = [(request.is_roadwork, answer.prediction) for request, answer in pairs if not request.is_organic]
    labels = np.array([label for label, prediction in own if prediction is not None], dtype=bool)
    predictions = np.array([prediction for _, prediction in own if prediction is not None], dtype=np.float64)
    quality = quality_of(labels, predictions)
    tallies = score_all(pairs, validators)
    rewards = [reward for tally in tallies for reward in tally.rewards]
    return Report(
        requests=len(pairs),
        organic=sum(request.is_organic for request, _ in pairs),
        outcomes={name: outcomes[name] for name in OUTCOMES},
        messages=dict(Counter(_said(answer) for _, answer in pairs if answer.outcome != "answered").most_common(5)),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=max(times, default=None),
        lost=lost,
        quality=quality,
        score=float(np.mean([tally.score for tally in tallies])) if tallies else 0.0,
        reward=float(np.mean(rewards)) if rewards else 0.0,
        expected=_expected(quality, lost),
        expected_unlost=_expected(quality, 0.0),
        shift=best_shift(labels, predictions, lost),
        tallies=tallies,
        behind=max((answer.behind for _, answer in pairs), default=0.0),
        seconds=seconds,
        speed=speed,
    )


def quality_of(labels: NDArray[np.bool_], predictions: NDArray[np.float64]) -> Quality:
    """Compare predictions with labels as a validator does: rounded, so that exactly 0.5 is no roadwork."""
    said = predictions > 0.5
    count = len(labels)
    if not count:
        return Quality(0, None, None, None, None, None)
    tp, tn = int((labels & said).sum()), int((~labels & ~said).sum())
    fp, fn = int((~labels & said).sum()), int((labels & ~said).sum())
    return Quality(
        count=count,
        accuracy=(tp + tn) / count,
        interval=_wilson(tp + tn, count),
        sensitivity=tp / (tp + fn) if tp + fn else None,
        specificity=tn / (tn + fp) if tn + fp else None,
        mcc=matthews(tp, tn, fp, fn),
    )


def best_shift(labels: NDArray[np.bool_], predictions: NDArray[np.float64], lost: float) -> Shift | None:
    """Return the threshold that is best on all answers, and its reward by cross-validation in two halves.

    Each half is judged with the threshold that is best for the other: what a threshold earns where it was chosen
    is flattery.
    """
    if labels.sum() < 4 or (~labels).sum() < 4:
        return None
    halves = np.zeros(len(labels), dtype=bool)
    for side in (labels, ~labels):
        halves[np.flatnonzero(side)[::2]] = True
    moved = np.empty(len(labels))
    for half in (halves, ~halves):
        moved[half] = predictions[half] - best_threshold(labels[~half], predictions[~half]) + 0.5
    reward = _expected(quality_of(labels, moved), lost)
    return None if reward is None else Shift(best_threshold(labels, predictions), reward)


def best_threshold(labels: NDArray[np.bool_], predictions: NDArray[np.float64]) -> float:
    """Return the middle of the thresholds that make the fewest mistakes with both labels weighed alike."""
    grid = np.linspace(0, 1, THRESHOLDS + 2)[1:-1]
    right = np.array([(predictions[labels] > at).mean() + (predictions[~labels] <= at).mean() for at in grid])
    best = grid[np.isclose(right, right.max())]
    return float(best[len(best) // 2])


def _expected(quality: Quality, lost: float) -> float | None:
    if quality.sensitivity is None or quality.specificity is None:
        return None
    return expected_reward(quality.sensitivity, quality.specificity, missed=lost)


def _said(answer: Answer) -> str:
    return f"{answer.status}: {answer.message}" if answer.status else answer.message


def _wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share."""
    share, z = right / count, SURE
    middle, half = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)
