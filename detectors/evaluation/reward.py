"""The validators' reward on StreetVision, round by round, and its expected value.

A validator pays (0.5 · MCC of the last 100 rounds + 0.5 · accuracy of the last 10) ** 3, the MCC floored at 0, and
smooths what it pays. Source: `reward.py` and `miner_performance_tracker.py` of the streetvision-subnet repository.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from detectors.models.calibration import Fusion
from detectors.models.manifest import Manifest

LONG, SHORT = 100, 10  # rounds that the two windows hold
EXPONENT = 3
ALPHA = 0.05  # weight of the newest reward in the smoothed score
ROUNDS_OF_WORKS = range(25, 76)  # of a hundred drawn half and half; all others together: one in two million
DEGREE = ROUNDS_OF_WORKS[-1]  # of the expected reward in either rate
DECIMALS = 12  # that its sum is sure of

Floats = NDArray[np.float64]


class RewardHistory:
    """What one validator remembers of one miner: the last rounds, and the smoothed score, which begins at 0.

    A round without an answer (-1 to the validators, None here) takes a place in both windows but counts in neither,
    and pays 0. A NaN, which scikit-learn refuses, spoils each window that it is in.
    """

    def __init__(self) -> None:
        self.score = 0.0
        self._rounds: deque[tuple[float | None, bool]] = deque(maxlen=LONG)

    def take(self, prediction: float | None, label: bool) -> float:
        """Add a round, and return what it pays.

        Args:
            prediction: the probability of roadwork, or None for no answer in time.
            label: whether there was roadwork.
        """
        self._rounds.append((prediction, bool(label)))
        paid = 0.0
        if prediction is not None:
            rounds = list(self._rounds)
            paid = formula(self._mcc(rounds), self._accuracy(rounds[-SHORT:]))
        self.score += ALPHA * (paid - self.score)
        return paid

    @staticmethod
    def _mcc(rounds: list[tuple[float | None, bool]]) -> float:
        tp, tn, fp, fn = _counts(rounds)
        return max(0.0, matthews(tp, tn, fp, fn))

    @staticmethod
    def _accuracy(rounds: list[tuple[float | None, bool]]) -> float:
        tp, tn, fp, fn = _counts(rounds)
        return (tp + tn) / max(1, tp + tn + fp + fn)


def formula(mcc: float, accuracy: float) -> float:
    """Return what a round pays for both windows' figures, the MCC being 0 at least."""
    return float((0.5 * mcc + 0.5 * accuracy) ** EXPONENT)


def matthews(tp: float, tn: float, fp: float, fn: float) -> float:
    """Return Matthews' correlation coefficient of four counts; 0 where one class or one answer is missing."""
    scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0


def rewards(rounds: Iterable[tuple[float | None, bool]]) -> list[float]:
    """Return what each round of a new history pays."""
    history = RewardHistory()
    return [history.take(prediction, label) for prediction, label in rounds]


def expected_reward(sensitivity: float, specificity: float, missed: float = 0.0) -> float:
    """Return the mean reward, in the long run, of a miner that finds works with `sensitivity` and clear roads with
    `specificity`, when labels are drawn half and half.

    `missed` is the share of rounds without an answer in time; that the windows then hold fewer answers is left out,
    which flatters a miner by one part in a hundred if it misses a tenth.
    """
    return float(expected_rewards([sensitivity], [specificity])[0]) * (1 - missed)


def expected_rewards(sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """Return the mean reward of each of several miners; two arrays of shape (n,).

    Exact: the sum over all counts that a window of 100 can hold, as a polynomial in both rates. It is rounded, so that
    equal rates earn the same wherever they stand among others.
    """
    found, spared = _chebyshev(np.asarray(sensitivity)), _chebyshev(np.asarray(specificity))
    return np.asarray(((found @ _polynomial()) * spared).sum(axis=1).round(DECIMALS))


@dataclass(frozen=True, slots=True)
class MeasuredReward:
    """The mean reward of rounds answered in time, on so many labelled photos."""

    value: float
    photos: int


def measured_reward(model: Manifest, fusion: Fusion | None = None) -> MeasuredReward | None:
    """Return what a model was measured to earn, from what is nearest to what it serves; None: nobody measured.

    An ensemble's combination was cross-validated, a faster precision compared on labelled photos, and a calibration
    cross-validated. Otherwise there is what an export with labelled photos noted.
    """
    if fusion is not None and fusion.measured is not None:
        return MeasuredReward(fusion.measured.reward, fusion.measured.photos)
    if model.gate is not None and model.gate.labelled is not None:
        return MeasuredReward(model.gate.labelled.reward, model.gate.labelled.pictures)
    if model.calibration is not None and model.calibration.evidence is not None:
        return MeasuredReward(model.calibration.evidence.reward, model.calibration.evidence.photos)
    judged = model.judged
    if judged is None or judged.sensitivity is None or judged.specificity is None:
        return None
    return MeasuredReward(_expected(judged.sensitivity, judged.specificity), judged.photos)


@dataclass(frozen=True, slots=True)
class PromisedAccuracy:
    """The share of right answers on so many labelled photos, both classes weighed alike where that is known."""

    value: float
    photos: int


def promised_accuracy(model: Manifest, fusion: Fusion | None = None) -> PromisedAccuracy | None:
    """Return how often a model was measured to be right on photos kept back, as `measured_reward` finds its reward."""
    if fusion is not None and fusion.measured is not None:
        return PromisedAccuracy(fusion.measured.accuracy, fusion.measured.photos)
    if model.gate is not None and model.gate.labelled is not None:
        return PromisedAccuracy(model.gate.labelled.accuracy, model.gate.labelled.pictures)
    evidence = model.calibration.evidence if model.calibration is not None else None
    if evidence is not None and evidence.accuracy is not None:
        return PromisedAccuracy(evidence.accuracy, evidence.photos)
    judged = model.judged
    if judged is None or judged.sensitivity is None or judged.specificity is None:
        return None
    return PromisedAccuracy((judged.sensitivity + judged.specificity) / 2, judged.photos)


@lru_cache(maxsize=8)
def _expected(sensitivity: float, specificity: float) -> float:
    return expected_reward(sensitivity, specificity)


@lru_cache(maxsize=1)
def _payments() -> dict[int, Floats]:
    """Return, for each number of rounds with works, mean rewards times probability, by tp (rows) and tn (columns)."""
    tables = {}
    for works in ROUNDS_OF_WORKS:
        tp, tn = np.ogrid[: works + 1, : LONG - works + 1]
        fn, fp = works - tp, LONG - works - tn
        scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn), dtype=np.float64)
        mcc = np.maximum(0, np.divide(tp * tn - fp * fn, scale, out=np.zeros(scale.shape), where=scale > 0))
        probability = math.comb(LONG, works) / sum(math.comb(LONG, count) for count in ROUNDS_OF_WORKS)
        tables[works] = probability * sum(
            chance * (0.5 * mcc + 0.5 * newest / SHORT) ** EXPONENT
            for newest, chance in enumerate(_newest_right(tp + tn))
        )
    return tables


def _newest_right(right: NDArray[np.int64]) -> list[Floats]:
    """Return the chances that 0, 1, … of the newest rounds are right, of which `right` of the whole window are."""
    table = [
        [math.comb(count, newest) * math.comb(LONG - count, SHORT - newest) for newest in range(SHORT + 1)]
        for count in range(LONG + 1)
    ]
    chances = np.array(table, dtype=np.float64) / math.comb(LONG, SHORT)
    return [chances[right, newest] for newest in range(SHORT + 1)]


@lru_cache(maxsize=1)
def _polynomial() -> Floats:
    """Return the coefficients of the reward in Chebyshev polynomials of both rates, from its values at their nodes.

    A thousand resamples take hundredths of a second by them, and more than half a second by the sums.
    """
    nodes = chebyshev.chebpts1(DEGREE + 1)
    found = spared = _powers((nodes + 1) / 2)
    values = np.zeros((len(nodes), len(nodes)))
    for works, weights in _payments().items():
        values += _binomial(works, *found) @ weights @ _binomial(LONG - works, *spared).T
    inverse = np.linalg.inv(chebyshev.chebvander(nodes, DEGREE))
    return np.asarray(inverse @ values @ inverse.T)


def _chebyshev(rates: Floats) -> Floats:
    """Return the Chebyshev polynomials of rates, shape (n, degree + 1)."""
    return np.asarray(chebyshev.chebvander(2 * rates - 1, DEGREE))


def _powers(probability: Floats) -> tuple[Floats, Floats]:
    values = probability[:, np.newaxis]
    exponents = np.arange(LONG + 1)
    return values**exponents, (1 - values) ** exponents


def _binomial(count: int, hit: Floats, miss: Floats) -> Floats:
    """Return the chances of 0 to `count` hits in so many trials; from the powers of both probabilities."""
    ways = np.array([math.comb(count, hits) for hits in range(count + 1)], dtype=np.float64)
    return np.asarray(ways * hit[:, : count + 1] * miss[:, count::-1])


def _counts(rounds: list[tuple[float | None, bool]]) -> tuple[int, int, int, int]:
    """Return tp, tn, fp, fn of the rounds that were answered; all 0 beside a NaN."""
    answered = [(prediction, label) for prediction, label in rounds if prediction is not None]
    if any(math.isnan(prediction) for prediction, _ in answered):
        return 0, 0, 0, 0
    pairs = [(prediction > 0.5, label) for prediction, label in answered]
    return (
        pairs.count((True, True)),
        pairs.count((False, False)),
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
