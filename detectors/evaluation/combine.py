"""Combinations of branches, each judged by cross-validation, and the choice among them.

A combination that is judged on the photos that fitted it looks better than it is, and so does the best of many.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError
from detectors.evaluation.estimates import (
    Estimate,
    Flags,
    Floats,
    Groups,
    rates,
    resampled_rates,
    reward_estimate,
    reward_gain,
    reward_of,
)
from detectors.evaluation.fitters import (
    Branches,
    Combination,
    best_temperature,
    best_threshold,
    fit,
    ways,
)
from detectors.evaluation.reward import expected_rewards, matthews
from detectors.models.calibration import Calibration, CrossValidation, Evidence, Fusion

FOLDS = 5
SURE = 2.58  # standard errors: of a gain that takes a shrunk combination's place; 99 %, as many are compared
COMPARED = 100  # resamples of a choice, which only its standard errors come from

Numbers = NDArray[np.int64]
Fit = Callable[[Numbers], Callable[[Numbers], Flags]]


def folds(
    labels: Flags, groups: Groups | None, count: int, seed: int, least: int = 2
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield what to fit on and what to judge, each class spread evenly; photos of one group are on one side.

    Args:
        labels: of the photos.
        groups: numbers of the groups of near-identical photos, where they are known.
        count: of folds.
        seed: of the folds.
        least: in how many of them either class has to be; large groups may leave one without.

    Raises:
        DetectorConfigError: a class has too few photos for so many folds, or its groups lie in too few of them.
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
        return
    parts = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, own))
    for kind, flags in (("no_roadwork", ~labels), ("roadwork", labels)):
        if (found := sum(bool(flags[held].any()) for _, held in parts)) < least:
            raise DetectorConfigError(
                f"the scenes of {kind!r} fill {found} of {count} folds; {least} are needed, so that every "
                "fit has some: another number of --folds, or more scenes"
            )
    yield from parts


def fold_numbers(labels: Flags, groups: Groups | None, count: int, seed: int) -> Numbers:
    """Return the number of the fold that each photo is judged in; raises as `folds` does.

    Whoever has the numbers fits without any two folds, of which both classes have to be in the rest.
    """
    numbers = np.zeros(len(labels), dtype=np.int64)
    for number, (_, held) in enumerate(folds(labels, groups, count, seed, least=min(count, 3))):
        numbers[held] = number
    return numbers


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


def decide(labels: Flags, probabilities: Floats) -> Fit:
    """Return the fit of a threshold for `judged`: the best of the photos that it is fitted to decides the others."""

    def fitted(seen: Numbers) -> Callable[[Numbers], Flags]:
        cut = best_threshold(labels[seen], probabilities[seen])
        return lambda held: np.asarray(probabilities[held] > cut)

    return fitted


def calibrate(
    labels: Flags, probabilities: Floats, count: int = FOLDS, seed: int = 0, groups: Groups | None = None
) -> tuple[Calibration, Estimate]:
    """Find the map that earns most, and by cross-validation what it gains over deciding at 0.5.

    Returns:
        The map fitted to all photos, with its evidence, and the gain of reward on photos that it was not fitted to.

    Raises:
        DetectorConfigError: too few photos for so many folds.
    """
    before, after = probabilities > 0.5, judged(labels, decide(labels, probabilities), count, seed, groups)
    gain = reward_gain(labels, before, after, seed=seed, groups=groups)
    threshold = best_threshold(labels, probabilities)
    evidence = Evidence(
        photos=len(labels),
        folds=count,
        reward_before=round(reward_of(labels, before), 4),
        reward=round(reward_of(labels, after), 4),
        gain_low=round(gain.low, 4),
        gain_high=round(gain.high, 4),
        accuracy=round(sum(rates(labels, after)) / 2, 4),
    )
    temperature = best_temperature(labels, probabilities, threshold)
    return Calibration(threshold=threshold, temperature=temperature, evidence=evidence), gain


@dataclass(frozen=True, slots=True)
class Figured:
    """What answers were measured to be worth on photos that they were not fitted to."""

    accuracy: float  # with both classes weighed alike, as validators draw them
    mcc: float  # the same
    reward: Estimate
    gain: Estimate  # of reward, over the plain mean of all branches

    def measured(self, photos: int) -> CrossValidation:
        """Return what goes into the YAML file beside what was fitted."""
        figures = (self.accuracy, self.mcc, self.reward.value, self.reward.low, self.reward.high)
        accuracy, mcc, reward, low, high = (round(figure, 4) for figure in figures)
        return CrossValidation(
            photos=photos, accuracy=accuracy, mcc=mcc, reward=reward, reward_low=low, reward_high=high
        )


@dataclass(frozen=True, slots=True)
class JudgedCombination:
    """What a way says of photos that it was not fitted to.

    Attributes:
        way: that was judged.
        values: shape (photos,): the probability of each photo, fitted without its fold.
        without: shape (folds, photos): fitted without that fold either, so that a choice can be judged as it is made.
    """

    way: Combination
    values: Floats
    without: Floats

    @property
    def said(self) -> Flags:
        """The answers."""
        return np.asarray(self.values > 0.5)


@dataclass(frozen=True, slots=True)
class Trial:
    """All ways to combine some branches, each judged in the same folds.

    Attributes:
        labels: of the photos.
        fold: the number of each photo's fold.
        rows: the ways.
        groups: numbers of the groups of near-identical photos, where they are known.
    """

    labels: Flags
    fold: Numbers
    rows: Sequence[JudgedCombination]
    groups: Groups | None = None

    @property
    def plain(self) -> Flags:
        """The answers of the plain mean of all branches."""
        most = max(len(row.way.branches) for row in self.rows)
        return next(row.said for row in self.rows if len(row.way.branches) == most and not row.way.moved)

    def figures(self, said: Flags, seed: int = 0) -> Figured:
        """Measure answers beside the plain mean's."""
        found, spared = rates(self.labels, said)
        return Figured(
            (found + spared) / 2,
            matthews(found, spared, 1 - spared, 1 - found),
            reward_estimate(self.labels, said, seed=seed, groups=self.groups),
            reward_gain(self.labels, self.plain, said, seed=seed, groups=self.groups),
        )

    def part(self, branches: Iterable[str]) -> "Trial":
        """Return that of these branches alone, all of them together."""
        wanted = set(branches)
        return replace(self, rows=[row for row in self.rows if set(row.way.branches) == wanted])

    def choose(self) -> "Choice":
        """Choose a way, and judge the choice as it is made: for each fold without it."""
        values = np.empty(len(self.labels))
        without = np.empty((self.fold.max() + 1, len(values)))
        for number in range(len(without)):
            inside = self.fold != number
            row = self.rows[self._chosen([one.without[number] for one in self.rows], inside)]
            values[~inside], without[number] = row.values[~inside], row.without[number]
        best = self._chosen([row.values for row in self.rows], np.ones(len(values), dtype=bool))
        return Choice(self.rows[best].way, values, without)

    def _chosen(self, values: Sequence[Floats], inside: Flags) -> int:
        """Return the number of the way to take: of all branches, shrunk, with the most reward on these photos.

        Another one takes its place if it surely earns more. The best by its figure alone would be so by chance.
        """
        labels, said = self.labels[inside], np.stack([one[inside] for one in values]) > 0.5
        earned = expected_rewards(said[:, labels].mean(axis=1), 1 - said[:, ~labels].mean(axis=1))
        most = max(len(row.way.branches) for row in self.rows)
        shrunk = [n for n, row in enumerate(self.rows) if len(row.way.branches) == most and row.way.is_shrunk]
        best = max(shrunk, key=lambda number: earned[number])
        groups = None if self.groups is None else self.groups[inside]
        found, spared = resampled_rates(labels, said, COMPARED, 0, groups)
        drawn = expected_rewards(found.ravel(), spared.ravel()).reshape(found.shape)
        sure = earned - earned[best] - SURE * (drawn - drawn[best]).std(axis=1)
        return int(sure.argmax()) if sure.max() > 0 else best


@dataclass(frozen=True, slots=True)
class Choice(JudgedCombination):
    """A way that was chosen; what is said is of what would have been chosen without the fold."""


def judge_ways(
    labels: Flags, probabilities: Branches, count: int = FOLDS, seed: int = 0,
    tell: Callable[[str], None] = lambda _: None, groups: Groups | None = None,
) -> Trial:  # fmt: skip
    """Judge every way by cross-validation on the same folds; photos of one group are in one of them.

    Raises:
        DetectorConfigError: too few photos for so many folds.
    """
    fold = fold_numbers(labels, groups, count, seed)
    rows: list[JudgedCombination] = []
    for way in ways(list(probabilities)):
        tell(way.words)
        without, fitted = np.empty((count, len(labels))), dict[frozenset[int], Fusion]()
        for left_out, held in product(range(count), repeat=2):
            # Of two folds none would be left: the choice is then made on what was fitted to the same photos.
            away = frozenset((left_out, held) if count > 2 else (left_out,))
            if away not in fitted:
                seen = ~np.isin(fold, list(away))
                fitted[away] = fit(way, labels[seen], {name: all_[seen] for name, all_ in probabilities.items()}, seed)
            here = fold == held
            without[left_out, here] = fitted[away]({name: probabilities[name][here] for name in way.branches})
        rows.append(JudgedCombination(way, without[fold, np.arange(len(labels))], without))
    return Trial(labels, fold, rows, groups)
