"""The fit of thresholds, temperatures and combinations of branches to labelled photos.

What is fitted to a few hundred photos is shrunk: towards the plain mean of all branches, and the threshold towards 0.5.
A prior of the weight of ten photos says so; measured on samples of 160 and 300 photos, an own choice of that weight by
cross-validation earned no more, and the threshold or the weights with the highest reward of a sample a good deal less.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from detectors.evaluation.estimates import Flags, Floats
from detectors.evaluation.reward import expected_rewards
from detectors.models.calibration import Fusion, Kind, log_odds, logistic

CANDIDATES = 200  # thresholds tried at most; between two neighbours lie few photos then
EQUAL_REWARD = 0.002  # of reward: within this of the best, the middle is taken, since the peak itself is chance
TEMPERATURES = np.geomspace(0.1, 10, 81)
HIDDEN_UNITS = 4  # hidden units of the mlp
MLP_STEPS = 100  # of its fit, at most
PRIOR = 10.0  # in photos: the weight of equal weights and of a threshold of 0.5
FREE = 1000.0  # times less than that is the weight of the prior on how sure the mean is: no decision depends on it
SAME = 1e-6  # in log-odds: a mean that deviates by less says the same of all photos

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


def equal_weights(labels: Flags) -> Floats:
    """Return the share of each photo where both classes weigh alike."""
    return np.asarray(np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()))


def best_temperature(labels: Flags, probabilities: Floats, threshold: float) -> float:
    """Return the temperature with which the mapped probabilities surprise least, both classes weighed alike."""
    line = log_odds(probabilities) - log_odds(threshold)
    weights = equal_weights(labels)
    losses = [
        -np.sum(weights * np.log(np.clip(logistic(np.where(labels, line, -line) / one), 1e-12, 1)))
        for one in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def shrunk_threshold(labels: Flags, probabilities: Floats) -> float:
    """Return where both classes, weighed alike, are as likely; shrunk towards 0.5, which it is where that says nothing.

    A logistic line goes through all photos, where the best threshold of a sample hangs on the few beside it.
    """
    odds = log_odds(probabilities)
    if odds.std() < SAME:
        return 0.5
    slopes, bias = shrunk_line(labels, odds[:, np.newaxis])
    if slopes[0] <= 0:  # the wrong way round
        return 0.5
    return float(np.clip(logistic(-bias / slopes[0]), 1e-6, 1 - 1e-6))


def shrunk_line(labels: Flags, values: Floats) -> tuple[Floats, float]:
    """Return weights and bias of a logistic line, shrunk towards equal weights without a bias.

    How steep the mean of the values is stays free. What the weights differ by, and the bias, have a normal prior, in
    units of the mean's deviation.

    Args:
        labels: shape (photos,); both classes weigh alike.
        values: shape (photos, branches).
    """
    from sklearn.linear_model import LogisticRegression

    count = values.shape[1]
    mean = values.mean(axis=1, keepdims=True)
    unit = float(mean.std())
    unit = unit if unit > SAME else 1.0
    steep = np.sqrt(FREE)
    columns = np.concatenate([steep * mean / unit, (values - mean) / unit, np.ones_like(mean)], axis=1)
    line = LogisticRegression(C=1 / PRIOR, class_weight="balanced", fit_intercept=False, solver="newton-cholesky")
    slope, *apart, bias = line.fit(columns, labels).coef_[0]
    weights = (steep * slope / count + np.array(apart) - np.mean(apart)) / unit
    return weights, float(bias)


@dataclass(frozen=True, slots=True)
class Combination:
    """A way to combine some of the branches; `moved`: with a threshold of its own, otherwise 0.5."""

    kind: Kind
    branches: tuple[str, ...]
    moved: bool

    @property
    def is_shrunk(self) -> bool:
        """Whether all that is fitted is shrunk towards the plain mean."""
        return self.moved and self.kind in ("mean", "logistic")

    @property
    def words(self) -> str:
        """The way in a few words."""
        alone = self.branches[0] if len(self.branches) == 1 else f"{self.kind} of {' + '.join(self.branches)}"
        return f"{alone}, {'own threshold' if self.moved else 'at 0.5'}"


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
    if not way.moved or way.kind == "logistic":  # whose bias is its threshold
        return fusion
    return fusion.model_copy(update={"threshold": shrunk_threshold(labels, fusion.combined(values))})


def _mean(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    return Fusion(branches=names)


def _weighted(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    """Take the weights of a line over the probabilities themselves; none is below 0."""
    weights = np.maximum(shrunk_line(labels, values - 0.5)[0], 0)
    weights = weights if weights.sum() > 0 else np.ones(len(names))
    return Fusion(kind="weighted", branches=names, weights=(weights / weights.sum()).tolist())


def _logistic(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    weights, bias = shrunk_line(labels, log_odds(values))
    return Fusion(kind="logistic", branches=names, weights=weights.tolist(), bias=bias)


def _mlp(names: list[str], labels: Flags, values: Floats, seed: int) -> Fusion:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier(
        (HIDDEN_UNITS,), activation="tanh", solver="lbfgs", alpha=1.0, max_iter=MLP_STEPS, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what an early end leaves unlearnt is mostly noise
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
