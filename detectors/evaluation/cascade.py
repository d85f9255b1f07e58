"""The fit of a cascade: which cheap combinations answer where they are sure, and what the whole earns and takes.

Everything is judged on photos that it was not fitted to: the combinations, which of them was chosen, and the bands
with their widening. Only which stages there are is decided on all photos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.errors import DetectorConfigError
from detectors.evaluation.combine import Choice, Figured, Numbers, Trial
from detectors.evaluation.estimates import Estimate, Flags, Floats, reward_gain, reward_of
from detectors.evaluation.fitters import EQUAL_REWARD, equal_weights
from detectors.evaluation.reward import expected_rewards
from detectors.models.calibration import WORTH_ANSWERING, are_unsure, log_odds, logistic

STEPS = 20  # of either end of a band, as shares of the answers on that side
WHOLE = (0.0, 1.0)  # the band of a stage that is never sure
# Times that the ends of a band are moved away from 0.5, in log-odds; the least that loses nothing on other photos is
# taken. As fitted, an end lies at the last mistake of these photos, and others have theirs beyond.
WIDENINGS = (1.0, 1.3, 1.6, 2.0, 3.0, np.inf)

Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class CascadeStage:
    """A stage as it was measured.

    Attributes:
        choice: the combination of its branches.
        figures: of that alone.
        seconds: of a picture that ends here: its branches', and those before.
        band: what goes on; None: the last stage.
        goes_on: share of the pictures that come here, both classes weighed alike.
    """

    choice: Choice
    figures: Figured
    seconds: float
    band: Band | None
    goes_on: float


@dataclass(frozen=True, slots=True)
class Cascade:
    """Stages from cheap to dear, and what they are worth together while time is left; with one stage it is none.

    Attributes:
        stages: the last of all branches.
        figures: of the whole.
        over_last: reward that the whole gains over the last stage alone, in pairs.
        seconds: expected of a picture, both classes weighed alike.
        faults: why a stage is left out or not worth its time, in words.
    """

    stages: tuple[CascadeStage, ...]
    figures: Figured
    over_last: Estimate
    seconds: float
    faults: tuple[str, ...]


def order_of(branches: Sequence[str], seconds: Mapping[str, float], named: Sequence[str] | None = None) -> list[str]:
    """Return branches from cheap to dear: as they are named, or by their seconds.

    Raises:
        DetectorConfigError: others are named than there are, or the seconds of one are not known.
    """
    if named is not None:
        if sorted(named) != sorted(branches):
            raise DetectorConfigError(f"--order={','.join(named)}: each of {', '.join(branches)} is needed, once")
        return list(named)
    if unknown := [name for name in branches if name not in seconds]:
        raise DetectorConfigError(
            f"no seconds of {', '.join(unknown)} in the file: `precompute branches` writes them, or --order names the "
            f"branches from cheap to dear"
        )
    return sorted(branches, key=lambda name: seconds[name])


def play(values: Sequence[Floats], bands: Sequence[Band], seconds: Sequence[float]) -> tuple[Flags, Floats]:
    """Return the answers of a cascade with time enough, and the seconds of each photo.

    Args:
        values: of each stage, shape (photos,).
        bands: of each but the last.
        seconds: of each, without those before.
    """
    said, spent = values[-1] > 0.5, np.full(len(values[-1]), float(seconds[-1]))
    for value, band, own in zip(values[-2::-1], bands[::-1], seconds[-2::-1], strict=True):
        on = are_unsure(value, band)
        said, spent = np.where(on, said, value > 0.5), own + on * spent
    return said, spent


def fit_bands(labels: Flags, values: Sequence[Floats], seconds: Sequence[float], wider: float = 1.0) -> list[Band]:
    """Return the bands of all stages but the last, fitted from the last to the first.

    Of the bands that earn as much as the best one, within what is no difference, it is the one that takes the least
    seconds.

    Args:
        labels: of the photos.
        values: of each stage, shape (photos,).
        seconds: of each, without those before.
        wider: of `WIDENINGS`.
    """
    bands: list[Band] = []
    for number in range(len(values) - 2, -1, -1):
        said, spent = play(values[number + 1 :], bands, seconds[number + 1 :])
        bands.insert(0, _widened(_band(labels, values[number], said, spent), wider))
    return bands


def _band(labels: Flags, values: Floats, said: Flags, spent: Floats) -> Band:
    """Fit a band; where a cheap stage is right and those behind it are not, that counts as luck."""
    steps = np.linspace(0, 1, STEPS + 1)
    ends = [
        np.unique(np.round(np.concatenate([np.quantile(side, steps) if len(side) else [], end]), 4))
        for side, end in ((values[values <= 0.5], (0.0, 0.5)), (values[values > 0.5], (0.5, 1.0)))
    ]
    pairs = [(float(low), float(high)) for low in ends[0] for high in ends[1]]
    on = np.stack([are_unsure(values, pair) for pair in pairs])
    right = (said == labels) & (on | ((values > 0.5) == labels))
    earned = expected_rewards(right[:, labels].mean(axis=1), right[:, ~labels].mean(axis=1))
    taken = on @ (equal_weights(labels) * spent)
    alike = np.flatnonzero(earned >= earned.max() - EQUAL_REWARD)
    best = int(alike[np.lexsort((-earned[alike], taken[alike]))[0]])
    return pairs[best]


def _widened(band: Band, times: float) -> Band:
    if times == np.inf:
        return WHOLE
    low, high = band
    return (
        round(float(logistic(log_odds(low) * times)), 4) if low > 0 else 0.0,
        round(float(logistic(log_odds(high) * times)), 4) if high < 1 else 1.0,
    )


def fit_cascade(
    trial: Trial, last: Choice, order: Sequence[str], seconds: Mapping[str, float], seed: int = 0
) -> Cascade:
    """Fit a cascade whose stages have the first branch, the first two, and so on.

    A stage is left out if its answers are no better than none, or if it earns no more than a cheaper one. One that
    earns as much as all branches is the best of all: the last one then has little left to answer.

    Args:
        trial: of all branches.
        last: the last stage.
        order: of the branches, from cheap to dear.
        seconds: of a picture in each branch; where nobody knows, each counts as one.
        seed: of the resamples.
    """
    labels, names = trial.labels, [name for name in order if name in last.way.branches]
    faults: list[str] = []
    kept: list[tuple[Choice, Figured]] = []
    for count in range(1, len(names) + 1):
        is_last = count == len(names)
        choice = last if is_last else trial.part(names[:count]).choose()
        figures = trial.figures(choice.said, seed)
        words, reward = choice.way.words, figures.reward.value
        if not is_last and figures.accuracy <= WORTH_ANSWERING:
            faults.append(f"{words}: its accuracy of {figures.accuracy:.3f} is no better than no answer")
            continue
        if kept and reward <= (most := kept[-1][1].reward.value):
            first = kept[-1][0].way.words
            faults.append(f"{words} earns {reward:.3f}, no more than {first}, which is cheaper: {most:.3f}")
            if not is_last:
                continue
        kept.append((choice, figures))
    own, before = list[float](), set[str]()
    for choice, _ in kept:
        own.append(sum(seconds.get(name, 1.0) for name in choice.way.branches if name not in before))
        before |= set(choice.way.branches)
    values = [choice.values for choice, _ in kept]
    said, spent = cross_validated(trial, [choice for choice, _ in kept], own)
    wider = fit_widening(labels, values, own, trial.fold)
    if len(kept) > 1 and wider == np.inf:
        faults.append("no band saves time without a loss of reward: every picture goes on while there is time")
    bands = fit_bands(labels, values, own, wider)
    stages, here = list[CascadeStage](), equal_weights(labels)
    for number, (choice, figures) in enumerate(kept):
        band = bands[number] if number < len(bands) else None
        on = here * are_unsure(choice.values, band) if band is not None else 0 * here
        goes_on = float(on.sum() / max(here.sum(), 1e-9))
        stages.append(CascadeStage(choice, figures, sum(own[: number + 1]), band, goes_on))
        here = on
    over_last = reward_gain(labels, last.said, said, seed=seed, groups=trial.groups)
    whole = trial.figures(said, seed)
    return Cascade(tuple(stages), whole, over_last, float(equal_weights(labels) @ spent), tuple(faults))


def fit_widening(labels: Flags, values: Sequence[Floats], seconds: Sequence[float], fold: Numbers) -> float:
    """Return the least widening with which bands lose no reward on the photos of folds that they were not fitted to.

    Args:
        labels: of the photos.
        values: of each stage, shape (photos,).
        seconds: of each, without those before.
        fold: the number of each photo's fold; there are two or more.
    """
    least = reward_of(labels, values[-1] > 0.5) - EQUAL_REWARD
    for wider in WIDENINGS[:-1]:
        said = np.zeros(len(labels), dtype=bool)
        for number in np.unique(fold):
            held = fold == number
            bands = fit_bands(labels[~held], [one[~held] for one in values], seconds, wider)
            said[held], _ = play([one[held] for one in values], bands, seconds)
        if reward_of(labels, said) >= least:
            return wider
    return WIDENINGS[-1]


def cross_validated(trial: Trial, choices: Sequence[Choice], seconds: Sequence[float]) -> tuple[Flags, Floats]:
    """Return answers and seconds of every photo by bands, and a widening, that were fitted without its fold."""
    said, spent = np.zeros(len(trial.labels), dtype=bool), np.zeros(len(trial.labels))
    for number in range(int(trial.fold.max()) + 1):
        inside = trial.fold != number
        labels, values = trial.labels[inside], [choice.without[number, inside] for choice in choices]
        bands = fit_bands(labels, values, seconds, fit_widening(labels, values, seconds, trial.fold[inside]))
        said[~inside], spent[~inside] = play([choice.values[~inside] for choice in choices], bands, seconds)
    return said, spent
