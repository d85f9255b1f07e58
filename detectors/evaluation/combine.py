"""Combinations of branches, each judged by cross-validation, and the choice among them.

A combination that is judged on the photos that fitted it looks better than it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError
from detectors.evaluation.estimates import Estimate, rates, reward_estimate, reward_gain, reward_of
from detectors.evaluation.reward import expected_rewards, matthews
from detectors.models.calibration import Calibration, CrossValidation, Evidence, Fusion, Kind, log_odds, logistic

FOLDS = 5
CANDIDATES = 200  # thresholds tried at most; between two neighbours lie few photos then
EQUAL_REWARD = 0.002  # of reward: within this of the best, the middle is taken, since the peak itself is chance
TEMPERATURES = np.geomspace(0.1, 10, 81)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Groups = NDArray[np.int64]  # near-identical photos have the same number
Fit = Callable[[Numbers], Callable[[Numbers], Flags]]

HIDDEN_UNITS = 4  # hidden units of the mlp
WEIGHT_STEPS = 10  # of a weight from 0 to 1
Branches = Mapping[str, Floats]


def best_threshold(labels: Flags, probabilities: Floats) -> float:
    """Return the threshold with the highest expected reward, strictly between 0 and 1; both classes have to occur."""
    values = np.unique(probabilities)
    cuts = np.concatenate([[0.5 * values[0]], (values[1:] + values[:-1]) / 2, [(values[-1] + 1) / 2]])
    cuts = np.unique(np.clip(cuts, 1e-6, 1 - 1e-6))
    if len(cuts) > CANDIDATES:
        cuts = cuts[np.linspace(0, len(cuts) - 1, CANDIDATES).round().astype(int)]
    works, clear = np.sort(probabilities[labels]), np.sort(probabilities[~labels])
    found = 1 - np.searchsorted(works, cuts, side="right") / len(works)
    spared = np.searchsorted(clear, cuts, side="right") / len(clear)
    rewards = expected_rewards(found, spared)
    peak = int(rewards.argmax())
    low = high = peak
    while low > 0 and rewards[low - 1] >= rewards[peak] - EQUAL_REWARD:
        low -= 1
    while high < len(cuts) - 1 and rewards[high + 1] >= rewards[peak] - EQUAL_REWARD:
        high += 1
    return float((cuts[low] + cuts[high]) / 2)


def best_temperature(labels: Flags, probabilities: Floats, threshold: float) -> float:
    """Return the temperature with which the mapped probabilities surprise least, both classes weighed alike."""
    line = log_odds(probabilities) - log_odds(threshold)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    losses = [
        -np.sum(weights * np.log(np.clip(logistic(np.where(labels, line, -line) / one), 1e-12, 1)))
        for one in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def folds(labels: Flags, groups: Groups | None, count: int, seed: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield what to fit on and what to judge, each class spread evenly; photos of one group are on one side.

    Raises:
        DetectorConfigError: a class has too few photos for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    own = groups if groups is not None else np.arange(len(labels))
    for kind, flags in (("no_roadwork", ~labels), ("roadwork", labels)):
        photos, scenes = int(flags.sum()), len(np.unique(own[flags]))
        if scenes < count:
            words = f"photo{'s' * (photos != 1)} of {kind!r}"
            words = f"the {photos} {words}" if scenes == photos else f"the {scenes} scenes of the {photos} {words}"
            way_out = f"--folds {scenes}, or more photos" if scenes > 1 else "more photos are needed"
            raise DetectorConfigError(f"{words} are fewer than {count} folds: {way_out}")
    if len(np.unique(own)) == len(own):
        yield from StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
    else:
        yield from StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, own)


def judged(labels: Flags, fit: Fit, count: int = FOLDS, seed: int = 0, groups: Groups | None = None) -> Flags:
    """Return the answers to every photo by what was fitted without its fold.

    Args:
        labels: of the photos.
        fit: from the photos to fit on (their numbers) to a function from numbers to answers.
        count: of folds.
        seed: of the folds.
        groups: numbers of the groups of near-identical photos, where they are known.
    """
    said = np.zeros(len(labels), dtype=bool)
    for seen, held in folds(labels, groups, count, seed):
        said[held] = fit(seen)(held)
    return said


def calibrate(
    labels: Flags, probabilities: Floats, count: int = FOLDS, seed: int = 0, groups: Groups | None = None
) -> tuple[Calibration, Estimate]:
    """Find the map that earns most, and by cross-validation what it gains over deciding at 0.5.

    Returns:
        The map fitted to all photos, with its evidence, and the gain of reward on photos that it was not fitted to.

    Raises:
        DetectorConfigError: too few photos for so many folds.
    """

    def fit(seen: Numbers) -> Callable[[Numbers], Flags]:
        cut = best_threshold(labels[seen], probabilities[seen])
        return lambda held: np.asarray(probabilities[held] > cut)

    before, after = probabilities > 0.5, judged(labels, fit, count, seed, groups)
    gain = reward_gain(labels, before, after, seed=seed)
    threshold = best_threshold(labels, probabilities)
    evidence = Evidence(
        photos=len(labels),
        folds=count,
        reward_before=round(reward_of(labels, before), 4),
        reward=round(reward_of(labels, after), 4),
        gain_low=round(gain.low, 4),
        gain_high=round(gain.high, 4),
    )
    temperature = best_temperature(labels, probabilities, threshold)
    return Calibration(threshold=threshold, temperature=temperature, evidence=evidence), gain


@dataclass(frozen=True, slots=True)
class Combination:
    """A way to combine some of the branches; `moved`: with a threshold of its own, otherwise 0.5."""

    kind: Kind
    branches: tuple[str, ...]
    moved: bool

    @property
    def words(self) -> str:
        """The way in a few words."""
        alone = self.branches[0] if len(self.branches) == 1 else f"{self.kind} of {' + '.join(self.branches)}"
        return f"{alone}, {'own threshold' if self.moved else 'at 0.5'}"


@dataclass(frozen=True, slots=True)
class MeasuredCombination:
    """What a way was measured to be worth on photos that it was not fitted to."""

    way: Combination
    said: NDArray[np.bool_]
    accuracy: float  # with both classes weighed alike, as validators draw them
    mcc: float  # the same
    reward: Estimate
    gain: Estimate  # of reward, over the first way


def ways(branches: Sequence[str]) -> Iterator[Combination]:
    """Yield all ways, the simplest first: fewer branches, then fewer things to fit."""
    for name in branches:
        yield Combination("mean", (name,), moved=False)
    for name in branches:
        yield Combination("mean", (name,), moved=True)
    for count in range(2, len(branches) + 1):
        for some in combinations(branches, count):
            yield Combination("mean", some, moved=False)
            for kind in ("mean", "weighted", "logistic", "mlp"):
                yield Combination(kind, some, moved=True)


def fit(way: Combination, labels: Flags, probabilities: Branches, seed: int = 0) -> Fusion:
    """Fit a way to photos."""
    values = np.stack([np.asarray(probabilities[name], dtype=np.float64) for name in way.branches], axis=-1)
    fusion = FITTERS[way.kind](list(way.branches), labels, values, seed)
    if not way.moved:
        return fusion
    return fusion.model_copy(update={"threshold": best_threshold(labels, fusion.combined(values))})


def measure(
    labels: Flags, probabilities: Branches, count: int = FOLDS, seed: int = 0,
    tell: Callable[[str], None] = lambda _: None, groups: Groups | None = None,
) -> list[MeasuredCombination]:  # fmt: skip
    """Judge every way by cross-validation on the same folds; photos of one group are in one of them.

    Raises:
        DetectorConfigError: too few photos for so many folds.
    """
    rows: list[MeasuredCombination] = []
    for way in ways(list(probabilities)):
        tell(way.words)

        def fitted(seen: Numbers, way: Combination = way) -> Callable[[Numbers], Flags]:
            fusion = fit(way, labels[seen], {name: values[seen] for name, values in probabilities.items()}, seed)
            return lambda held: fusion({name: probabilities[name][held] for name in way.branches}) > 0.5

        said = (
            judged(labels, fitted, count, seed, groups)
            if way.moved
            else fitted(np.arange(len(labels)))(np.arange(len(labels)))
        )
        first = rows[0].said if rows else said
        found, spared = rates(labels, said)
        mcc = matthews(found, spared, 1 - spared, 1 - found)
        reward, gain = reward_estimate(labels, said, seed=seed), reward_gain(labels, first, said, seed=seed)
        rows.append(MeasuredCombination(way, said, (found + spared) / 2, mcc, reward, gain))
    return rows


def choose(rows: Sequence[MeasuredCombination], labels: Flags) -> MeasuredCombination:
    """Return the simplest way within one standard error of the best (Breiman et al., CART, 1984), in pairs."""
    best = max(rows, key=lambda row: row.reward.value)
    for row in rows:
        gain = reward_gain(labels, row.said, best.said)
        if gain.value <= (gain.high - gain.low) / (2 * 1.96):
            return row
    return best


def measured(row: MeasuredCombination, photos: int) -> CrossValidation:
    """Return what goes into the YAML file beside the fitted way."""
    figures = (row.accuracy, row.mcc, row.reward.value, row.reward.low, row.reward.high)
    accuracy, mcc, reward, low, high = (round(figure, 4) for figure in figures)
    return CrossValidation(photos=photos, accuracy=accuracy, mcc=mcc, reward=reward, reward_low=low, reward_high=high)


def _mean(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    return Fusion(branches=names)


def _weighted(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    """Try weights in tenths, each with its own threshold."""
    best, most = np.full(len(names), 1 / len(names)), -1.0
    for parts in _shares(len(names), WEIGHT_STEPS):
        weights = np.array(parts) / WEIGHT_STEPS
        combined = values @ weights
        reward = reward_of(labels, combined > best_threshold(labels, combined))
        if reward > most:
            best, most = weights, reward
    return Fusion(kind="weighted", branches=names, weights=best.tolist())


def _shares(count: int, steps: int) -> Iterator[tuple[int, ...]]:
    if count == 1:
        yield (steps,)
        return
    for first in range(steps + 1):
        yield from ((first, *rest) for rest in _shares(count - 1, steps - first))


def _logistic(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(class_weight="balanced").fit(log_odds(values), labels)
    return Fusion(kind="logistic", branches=names, weights=line.coef_[0].tolist(), bias=float(line.intercept_[0]))


def _mlp(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier(
        (HIDDEN_UNITS,), activation="tanh", solver="lbfgs", alpha=0.1, max_iter=1000, random_state=seed
    )
    network.fit(log_odds(values), labels)
    (inner, outer), (inner_bias, outer_bias) = network.coefs_, network.intercepts_
    hidden = np.concatenate([inner.T, inner_bias[:, np.newaxis]], axis=1)
    return Fusion(
        kind="mlp", branches=names, weights=outer[:, 0].tolist(), bias=float(outer_bias[0]), hidden=hidden.tolist()
    )


FITTERS: dict[Kind, Callable[[list[str], Flags, Floats, int], Fusion]] = {
    "mean": _mean,
    "weighted": _weighted,
    "logistic": _logistic,
    "mlp": _mlp,
}
