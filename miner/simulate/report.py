"""The report of a simulation: answers, latency, accuracy, the reward of each validator, and what would earn more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation.estimates import Estimate, effective_count, estimate_of, share_estimate
from detectors.evaluation.reward import RewardHistory, expected_reward, expected_rewards, matthews
from miner.bench.run import percentiles
from miner.simulate.schedule import Request
from miner.simulate.sender import Outcome, SentAnswer

THRESHOLDS = 199  # tried
MIN_CLASS_PHOTOS = 4  # photos of each class, before a threshold is looked for
RESAMPLES = 1000
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Pictures = NDArray[np.int64]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(slots=True)
class ValidatorScore:
    """One validator's view of this miner: the reward of each round, and the smoothed score, which begins at 0."""

    rewards: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    history: RewardHistory = field(default_factory=RewardHistory)

    @property
    def score(self) -> float:
        """The score now."""
        return self.history.score

    def take(self, request: Request, answer: SentAnswer) -> None:
        """Score one round; an organic task on whose label nobody agrees is not scored."""
        label = truth(request, answer)
        if label is None:
            return
        self.rewards.append(self.history.take(answer.prediction, label))
        self.scores.append(self.history.score)


def truth(request: Request, answer: SentAnswer) -> bool | None:
    """Return the label that a validator scores by: its own, or what most of the three miners say; None: a tie."""
    if not request.is_organic:
        return request.is_roadwork
    votes = [*request.votes, *([] if answer.prediction is None else [answer.prediction > 0.5])]
    works = sum(votes)
    return None if 2 * works == len(votes) else 2 * works > len(votes)


def score_all(pairs: Sequence[tuple[Request, SentAnswer]], validators: int) -> list[ValidatorScore]:
    """Score all rounds in their order; one book for each validator."""
    tallies = [ValidatorScore() for _ in range(validators)]
    for request, answer in pairs:
        tallies[request.validator].take(request, answer)
    return tallies


@dataclass(frozen=True, slots=True)
class AnswerQuality:
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
class ThresholdShift:
    """The best decision threshold, and what it brings in the long run on photos that did not choose it."""

    threshold: float
    reward: float
    gain: Estimate


def quality_of(labels: Flags, predictions: Floats, pictures: Pictures) -> AnswerQuality:
    """Compare predictions with labels as a validator does: rounded, so that exactly 0.5 is no roadwork."""
    said = predictions > 0.5
    count = len(labels)
    if not count:
        return AnswerQuality(0, 0, None, None, None, None, None)
    tp, tn = int((labels & said).sum()), int((~labels & ~said).sum())
    fp, fn = int((~labels & said).sum()), int((labels & ~said).sum())
    times = np.unique(pictures, return_counts=True)[1]
    accuracy = share_estimate(labels == said, effective=effective_count(pictures))
    return AnswerQuality(
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
) -> ThresholdShift | None:
    """Return the threshold that is best on all answers, and what it brings, by cross-validation in two halves.

    Each half of the photos is judged with the threshold that is best for the other: what a threshold earns where it was
    chosen is flattery.
    """
    halves = np.zeros(len(labels), dtype=bool)
    for side in (labels, ~labels):
        photos = np.unique(pictures[side])
        if len(photos) < MIN_CLASS_PHOTOS:
            return None
        halves |= side & np.isin(pictures, photos[::2])
    moved = np.empty(len(labels))
    for half in (halves, ~halves):
        moved[half] = predictions[half] - best_threshold(labels[~half], predictions[~half]) + 0.5
    reward = expected(quality_of(labels, moved, pictures), lost)
    assert reward is not None
    gain = _gain(labels, pictures, np.stack([predictions, moved]) > 0.5, 1 - lost, resamples)
    return ThresholdShift(best_threshold(labels, predictions), reward, gain)


def best_threshold(labels: Flags, predictions: Floats) -> float:
    """Return the middle of the thresholds that make the fewest mistakes with both labels weighed alike."""
    grid = np.linspace(0, 1, THRESHOLDS + 2)[1:-1]
    right = np.array([(predictions[labels] > at).mean() + (predictions[~labels] <= at).mean() for at in grid])
    best = grid[np.isclose(right, right.max())]
    return float(best[len(best) // 2])


def expected(quality: AnswerQuality, lost: float) -> float | None:
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
    quality: AnswerQuality
    score: float
    reward: float
    expected: float | None
    expected_unlost: float | None
    shift: ThresholdShift | None
    tallies: list[ValidatorScore]
    behind: float
    seconds: float
    speed: float


def summed_up(
    requests: Sequence[Request], answers: Sequence[SentAnswer], validators: int, seconds: float, speed: float,
    *, with_shift: bool = True,
) -> Report:  # fmt: skip
    """Sum up the answers to the requests that were sent, in any order; the best threshold takes a second to find."""
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
        shift=best_shift(labels, predictions, pictures, lost) if with_shift else None,
        tallies=tallies,
        behind=max((answer.behind for _, answer in pairs), default=0.0),
        seconds=seconds,
        speed=speed,
    )


def _said(answer: SentAnswer) -> str:
    return f"{answer.status}: {answer.message}" if answer.status else answer.message
