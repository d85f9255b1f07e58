"""The scenes that three miners with one cascade play, and the comparison of what they answered, photo by photo."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation.estimates import Estimate, estimate_of
from detectors.evaluation.reward import expected_rewards
from miner.settings.validators import StageMode
from miner.simulate.report import Report, summed_up
from miner.simulate.run import SimulationPlan
from miner.simulate.schedule import Request, bursts
from miner.simulate.sender import SentAnswer

MODES: tuple[StageMode, ...] = ("cheapest", "all", "adaptive")
TURNS = len(MODES)  # parts of a scene; each miner is the first, the second and the third in one of them
RESAMPLES = 400  # for nine rewards
Floats = NDArray[np.float64]
SceneName = Literal["quiet", "crowded"]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is asked, and at how many times a subnet's pace; the same for all three."""

    name: SceneName
    requests: Sequence[Request]
    speed: float

    def turns(self) -> list[list[Request]]:
        """Return the parts; what is asked at one moment stays together."""
        parts = np.array_split(sorted({one.at for one in self.requests}), TURNS)
        return [[one for one in self.requests if len(part) and part[0] <= one.at <= part[-1]] for part in parts]


@dataclass(frozen=True, slots=True)
class ModeResult:
    """What came back from one miner.

    Attributes:
        answers: to what all three were asked.
        stages: how many answers each stage gave, from cheap to dear, to all that this one was asked.
    """

    answers: Sequence[SentAnswer]
    report: Report
    reward: Estimate
    stages: Sequence[int]

    @property
    def stage_shares(self) -> list[float]:
        """Which share of the requests each stage has answered in time."""
        answered = self.report.outcomes["answered"] / max(1, self.report.requests)
        return [answered * count / max(1, sum(self.stages)) for count in self.stages]


@dataclass(frozen=True, slots=True)
class SceneResult:
    """One scene, played by each of the three.

    Attributes:
        best: who earns the most.
        gains: how much more that is than each of the others earns, in pairs.
        photos: which all three were asked about, of the class that has fewer.
    """

    scene: Scene
    modes: Mapping[StageMode, ModeResult]
    best: StageMode
    gains: Mapping[StageMode, Estimate]
    photos: int


def scenes_of(what: SimulationPlan, speed: float) -> list[Scene]:
    """Return the subnet without its bursts, and bursts alone, at their own pace and of as many requests in all."""
    subnet = what.subnet
    quiet = replace(what, subnet=replace(subnet, burst=0)).requests(speed)
    count = max(TURNS, math.ceil(len(quiet) / subnet.burst))
    crowded = bursts(subnet, count, [photo.is_roadwork for photo in what.photos], what.seed)
    return [Scene("quiet", quiet, speed), Scene("crowded", what.begun(crowded, 1.0), 1.0)]


def result_of(
    scene: Scene,
    answers: Mapping[StageMode, Sequence[SentAnswer]],
    stages: Mapping[StageMode, Sequence[int]],
    seconds: Mapping[StageMode, float],
    validators: int,
) -> SceneResult:
    """Sum up what each of the three has answered, and compare them by what all of them were asked."""
    said = [{one.number: one for one in answers[mode]} for mode in MODES]
    common = sorted(set.intersection(*map(set, said)))
    kept = [[one[number] for number in common] for one in said]
    rounds = [scene.requests[number] for number in common if not scene.requests[number].is_organic]
    earned, likely, paired = _rewards(scene, kept)
    best = max(range(len(MODES)), key=lambda row: (earned[row], row))  # of equals the adaptive one
    modes = {
        mode: ModeResult(
            kept[row],
            summed_up(scene.requests, kept[row], validators, seconds[mode], scene.speed, with_shift=False),
            estimate_of(float(earned[row]), likely[row]),
            stages[mode],
        )
        for row, mode in enumerate(MODES)
    }
    gains = {
        mode: estimate_of(float(earned[best] - earned[row]), paired[best] - paired[row])
        for row, mode in enumerate(MODES)
        if row != best
    }
    photos = [{one.picture for one in rounds if one.is_roadwork is label} for label in (True, False)]
    return SceneResult(scene, modes, MODES[best], gains, min(map(len, photos)))


def _rewards(scene: Scene, kept: Sequence[Sequence[SentAnswer]]) -> tuple[Floats, Floats, Floats]:
    """Return what each miner earns in the long run, and what it might as well.

    That is what the rates of right answers to the validators' own rounds earn, times the share answered in time.

    Returns:
        Of shape (miners,); then of shape (miners, resamples) twice: for rates as likely as those seen (Jeffreys'
        posterior, which leaves room for mistakes where none was seen), and for other photos, the same for all miners.
    """
    random = np.random.default_rng(0)
    sides = [_counts(scene, kept, label) for label in (True, False)]
    seen = [side.sum(axis=-1) for side in sides]
    photos = [side.shape[-1] for side in sides]
    draws = [random.integers(count, size=(RESAMPLES, count)) for count in photos]
    drawn = [side[..., some].sum(axis=-1) for side, some in zip(sides, draws, strict=True)]
    rates = []
    for side, (_, answered, right) in zip(sides, seen, strict=True):
        # Answers to a photo that was sent again are no new ones; so many single ones would say as much.
        worth = _share(answered**2, (side[1] ** 2).sum(axis=-1), without=0.0)
        hits = worth * _share(right, answered)
        rates.append(random.beta(hits + 0.5, worth - hits + 0.5, size=(RESAMPLES, len(kept))).T)
    asked, answered, _ = seen[0] + seen[1]
    shares = random.beta(answered + 0.5, asked - answered + 0.5, size=(RESAMPLES, len(kept))).T
    found, spared = rates
    return _earned(seen), _reward(found, spared, shares), _earned(drawn)


def _counts(scene: Scene, kept: Sequence[Sequence[SentAnswer]], label: bool) -> Floats:
    """Return how often each photo of a class was asked about, answered, and answered rightly, by each miner.

    Returns:
        Shape (3, miners, photos), with one photo at least.
    """
    numbers = [one.number for one in kept[0]]
    asked = [scene.requests[number] for number in numbers]
    rows = [row for row, one in enumerate(asked) if not one.is_organic and one.is_roadwork is label]
    photos, of = np.unique([asked[row].picture for row in rows], return_inverse=True)
    counts = np.zeros((3, len(kept), max(1, len(photos))))
    for miner, answers in enumerate(kept):
        for row, photo in zip(rows, of, strict=True):
            prediction = answers[row].prediction
            is_right = prediction is not None and (prediction > 0.5) is label
            counts[:, miner, photo] += (1, prediction is not None, is_right)
    return counts


def _earned(sides: Sequence[Floats]) -> Floats:
    """Return the rewards for the counts of both classes, each of shape (3, miners, …)."""
    asked, answered, _ = sides[0] + sides[1]
    found, spared = (_share(right, replied) for _, replied, right in sides)
    return _reward(found, spared, _share(answered, asked, without=0.0))


def _reward(found: Floats, spared: Floats, share: Floats) -> Floats:
    return np.asarray(expected_rewards(found.ravel(), spared.ravel()).reshape(found.shape) * share)


def _share(part: Floats, whole: Floats, without: float = 0.5) -> Floats:
    """Return a share; `without` where there is nothing to count."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), without), where=whole > 0))
