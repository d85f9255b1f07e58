"""What the validators saw, summed up: answers, times, what they earn, and what would earn more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from miner.bench.report import percentiles
from miner.simulate.quality import Quality, Shift, best_shift, expected, quality_of
from miner.simulate.schedule import Request
from miner.simulate.scoring import Tally, score_all
from miner.simulate.sender import Answer, Outcome

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


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
    own = [one for one in pairs if not one[0].is_organic and one[1].prediction is not None]
    labels = np.array([request.is_roadwork for request, _ in own], dtype=bool)
    pictures = np.array([request.picture for request, _ in own], dtype=np.int64)
    predictions = np.array([answer.prediction for _, answer in own], dtype=np.float64)
    quality = quality_of(labels, predictions, pictures)
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
        expected=expected(quality, lost),
        expected_unlost=expected(quality, 0.0),
        shift=best_shift(labels, predictions, pictures, lost),
        tallies=tallies,
        behind=max((answer.behind for _, answer in pairs), default=0.0),
        seconds=seconds,
        speed=speed,
    )


def _said(answer: Answer) -> str:
    return f"{answer.status}: {answer.message}" if answer.status else answer.message
