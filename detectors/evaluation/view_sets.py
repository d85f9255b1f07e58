"""Sets of views, compared: what a model says of every view of labelled photos comes in, gains and costs go out.

The model runs once for each view, however many sets it is in; a set's answers are arithmetic then.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from detectors.evaluation.combine import FOLDS, decide, judged
from detectors.evaluation.estimates import (
    Estimate,
    Flags,
    Floats,
    Groups,
    rates,
    reward_estimate,
    reward_gain,
    reward_of,
)
from detectors.evaluation.evaluate import UNTRANSFORMED, Sending, Tell, bytes_sent
from detectors.evaluation.fitters import best_threshold
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.labelled import Photo
from detectors.photos.views import WHOLE, PooledViews

CHANCE = 0.05  # that one of all sets seems to gain where none does, or to lose
ALONE = PooledViews((WHOLE,), "mean")  # what every set is compared with


@dataclass(frozen=True, slots=True)
class AskedViews:
    """What a model said of photos, and the seconds that it took.

    Attributes:
        said: by view, shape (photos, 1), of tiles (photos, tiles).
        seconds: of all of a view's runs and their preprocessing, for a photo (median).
        decoding: seconds of the decoding (median).
    """

    said: Mapping[str, Floats]
    seconds: Mapping[str, float]
    decoding: float

    def pooled(self, views: PooledViews) -> Floats:
        """Return the answers in a set of views, shape (photos,)."""
        every = np.concatenate([self.said[part] for part in views.parts], axis=1)
        return np.array([views.pooled(row) for row in every.tolist()])

    def cost(self, views: PooledViews) -> float:
        """Return the seconds of a photo in a set of views, decoded once."""
        return self.decoding + sum(self.seconds[part] for part in views.parts)


def ask_views(
    network: Network, photos: Sequence[Photo], sets: Sequence[PooledViews], sending: Sending = UNTRANSFORMED,
    seed: int = 0, tell: Tell = lambda: None,
) -> AskedViews:  # fmt: skip
    """Ask a model about each view that is in any of the sets, and about the whole.

    Args:
        network: is asked, whatever its own views are.
        photos: are asked about.
        sets: of views.
        sending: how the photos are sent.
        seed: of what that leaves to chance.
        tell: is called after each photo.
    """
    parts = dict.fromkeys(part for views in (ALONE, *sets) for part in views.parts)
    said: dict[str, list[list[float]]] = {part: [] for part in parts}
    seconds: dict[str, list[float]] = {part: [] for part in parts}
    decoding = []
    for photo in photos:
        data = bytes_sent(photo, sending, seed)
        started = time.perf_counter()
        picture = decode(data)
        decoding.append(time.perf_counter() - started)
        for part in parts:
            answers, preprocess, infer = network.said_of(PooledViews((part,), "mean"), picture)
            said[part].append(answers)
            seconds[part].append(preprocess + infer)
        tell()
    medians = {part: float(np.median(row)) for part, row in seconds.items()}
    return AskedViews({part: np.array(rows) for part, rows in said.items()}, medians, float(np.median(decoding)))


@dataclass(frozen=True, slots=True)
class SideFigures:
    """Shares of photos on their side of a threshold; accuracy with both classes weighed alike, as validators do."""

    accuracy: float
    recall: float
    specificity: float
    reward: float


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """A set of views on labelled photos.

    Attributes:
        views: the set.
        threshold: the best for all photos, in as few digits as decide alike; it goes into the YAML file.
        own: at thresholds that were fitted without the photos they decide.
        half: at 0.5.
        reward: of `own`, with its interval.
        gain: of reward over the whole alone, both at thresholds of their own, in pairs.
        seconds: of a photo.
        times: as a multiple of the whole alone.
    """

    views: PooledViews
    threshold: float
    own: SideFigures
    half: SideFigures
    reward: Estimate
    gain: Estimate
    seconds: float
    times: float

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self) | {"views": list(self.views.parts), "pool": self.views.pool}

    @property
    def yaml(self) -> str:
        """The lines of a YAML file that serve it."""
        named = (part.split() for part in self.views.parts)
        parts = ", ".join(name if not grid else f"{{{name}: {grid[0]}}}" for name, *grid in named)
        return f"views: [{parts}]\npool: {self.views.pool}\nthreshold: {self.threshold!r}"


def measure_sets(
    labels: Flags, asked: AskedViews, sets: Sequence[PooledViews], groups: Groups | None = None, count: int = FOLDS,
    seed: int = 0,
) -> list[MeasuredSet]:  # fmt: skip
    """Measure the whole alone, and each set beside it on the same folds.

    Raises:
        DetectorConfigError: too few photos for so many folds.
    """
    rows: list[MeasuredSet] = []
    base: Flags | None = None
    for views in dict.fromkeys((ALONE, *sets)):
        answers = asked.pooled(views)
        said = judged(labels, decide(labels, answers), count, seed, groups)
        base = said if base is None else base
        rows.append(
            MeasuredSet(
                views, shortest(best_threshold(labels, answers), answers),
                _figures(labels, said), _figures(labels, answers > 0.5),
                reward_estimate(labels, said, seed=seed, groups=groups),
                reward_gain(labels, base, said, seed=seed, groups=groups),
                asked.cost(views), asked.cost(views) / asked.cost(ALONE),
            )
        )  # fmt: skip
    return rows


def advised(rows: Sequence[MeasuredSet]) -> MeasuredSet | None:
    """Return the cheapest of those that gain on the whole beyond chance, within one standard error of the best.

    Of many sets one gains by chance: the more are compared, the surer has each to be (Bonferroni).

    Args:
        rows: the whole alone, and each set beside it.

    Returns:
        A set; None: none gains beyond chance.
    """
    sets = rows[1:]
    sure = NormalDist().inv_cdf(1 - CHANCE / 2 / max(1, len(sets)))
    gaining = [row for row in sets if row.gain.value > sure * row.gain.error]
    if not gaining:
        return None
    best = max(gaining, key=lambda row: row.own.reward)
    least = best.own.reward - best.gain.error
    return min((row for row in gaining if row.own.reward >= least), key=lambda row: row.seconds)


def shortest(threshold: float, answers: Floats) -> float:
    """Return a threshold in the fewest digits, three or more, that leave every answer on its side."""
    for digits in range(3, 17):
        cut = float(f"{threshold:.{digits}g}")
        if 0 < cut < 1 and ((answers > cut) == (answers > threshold)).all():
            return cut
    return threshold


def _figures(labels: Flags, said: Flags) -> SideFigures:
    recall, specificity = rates(labels, said)
    return SideFigures((recall + specificity) / 2, recall, specificity, reward_of(labels, said))
