"""Where to cut: the threshold that earns most, found and judged by cross-validation."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError
from detectors.evaluation.estimates import Estimate, reward_gain, reward_of
from detectors.evaluation.reward import expected_rewards
from detectors.models.calibration import Calibration, Evidence, log_odds, logistic

FOLDS = 5
CANDIDATES = 200  # thresholds tried at most; between two neighbours lie few photos then
FLAT = 0.002  # of reward: within this of the best, the middle is taken, since the peak itself is chance
TEMPERATURES = np.geomspace(0.1, 10, 81)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Groups = NDArray[np.int64]  # near-identical photos have the same number
Fit = Callable[[Numbers], Callable[[Numbers], Flags]]


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
    while low > 0 and rewards[low - 1] >= rewards[peak] - FLAT:
        low -= 1
    while high < len(cuts) - 1 and rewards[high + 1] >= rewards[peak] - FLAT:
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
