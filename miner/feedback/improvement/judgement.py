"""The judgement on a candidate beside what serves: both answer photos that they have not learnt from, each once.

For the candidate, that has learnt from all labels but the random tenth, stand models of the same making that have
learnt from three quarters of them (cross-validation): it is better than these rather than worse. Better than what
serves is who earns more by more than chance on the traffic; where it has too few scenes of a class, on all photos. How
many there are decides which, never what they say.

The random tenth alone would be the honest sample of the traffic, but a night's few dozen labels would settle nothing
there for weeks: one photo in ten, of a model that is right nine times of ten. The reward depends on two rates alone,
recall and specificity, which photos tell that were labelled as unlike the rest; what they are not is a fair draw. So
the tenth has a veto: a candidate that is worse there beyond chance is not better. Its silence is no veto.

Photos that were labelled for what models said of them teach and don't judge. The model that serves was unsure or wrong
of them, which is why they are there: any other model, no better elsewhere, is right more often on these. Of two equally
good models the other one was called better in 48 of 100 draws of 60 such labels, and in 2 of 100 of labels at random.

The bootstrap knows only the photos that it has: where five photos change sides, all to the better, it never draws one
that changes to the worse. So at least `LEAST_DISAGREEMENTS` scenes have to change sides, below which no test of signs
could tell a gain from chance at 5 %. Near-identical photos count as one.

A threshold that `calibrate` has moved was fitted to these very answers, if only where cross-validation finds a gain
beyond chance: one number, which flatters the candidate a little.

Each night is a test of its own: of candidates that are no better, one in forty passes. What served may have learnt from
own photos before this program parted them, as the shipped model has from public ones; that is to its advantage alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from detectors.evaluation.estimates import (
    Estimate,
    Flags,
    effective_count,
    rates,
    reward_estimate,
    reward_gain,
    share_estimate,
)
from detectors.models.calibration import Calibration
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from detectors.photos.labelled import CLASSES
from miner.errors import CouldNotStart
from miner.feedback.figures import LEAST_DISAGREEMENTS
from miner.feedback.improvement.partition import PartPhoto, Source, read_photo_table
from miner.feedback.improvement.state import ANSWERS, PHOTOS, yaml_of

Outcome = Literal["better", "not better", "worse"]
ENOUGH = 10  # scenes of each class, from which on the traffic alone decides
SIDES: Mapping[str, Sequence[Source]] = {
    "photos that judge": ("random", "labelled", "own"),
    "traffic that judges": ("random", "labelled"),
    "random tenth of the traffic": ("random",),
    "traffic labelled as unlike the rest": ("labelled",),
    "own photos": ("own",),
    "traffic labelled for what models said": ("chosen",),
}
ALL, TRAFFIC, TENTH = tuple(SIDES)[:3]


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """What both models say of a photo that neither has learnt from."""

    digest: str
    name: str
    source: Source
    is_roadwork: bool
    before: float
    after: float
    scene: int  # near-identical photos have the same

    def is_right(self, probability: float) -> bool:
        """Return whether a probability is on the label's side; like validators, 0.5 itself is no roadwork."""
        return (probability > 0.5) == self.is_roadwork

    @property
    def change(self) -> int:
        """1: only the candidate is right; -1: only what serves is; 0: both or neither."""
        return int(self.is_right(self.after)) - int(self.is_right(self.before))


@dataclass(frozen=True, slots=True)
class PairedFigures:
    """Both models on some of the photos; the reward is None where a class is missing.

    Attributes:
        photos: how many.
        roadwork: of them that show it.
        scenes: groups of near-identical photos.
        recall: the share of these that each model finds, before and after.
        specificity: the share of the others that each calls so.
        accuracy: of each.
        reward: that validators would pay, of each.
        gain: of reward, in pairs.
    """

    photos: int
    roadwork: int
    scenes: int
    recall: tuple[float | None, float | None]
    specificity: tuple[float | None, float | None]
    accuracy: tuple[Estimate, Estimate]
    reward: tuple[Estimate, Estimate] | None
    gain: Estimate | None

    @classmethod
    def of(cls, answers: Sequence[JudgedAnswer]) -> Self:
        """Measure both models; at least one answer is needed."""
        labels = np.array([one.is_roadwork for one in answers])
        scenes = np.array([one.scene for one in answers])
        said: list[Flags] = [
            np.array([value > 0.5 for value in values])
            for values in ([one.before for one in answers], [one.after for one in answers])
        ]
        independent = effective_count(scenes)
        both = bool(labels.any() and not labels.all())
        shares = [rates(labels, flags) for flags in said]
        first, second = (share_estimate(flags == labels, independent) for flags in said)
        reward = (
            (reward_estimate(labels, said[0], groups=scenes), reward_estimate(labels, said[1], groups=scenes))
            if both
            else None
        )
        return cls(
            photos=len(labels), roadwork=int(labels.sum()), scenes=len(np.unique(scenes)),
            recall=(shares[0][0], shares[1][0]) if labels.any() else (None, None),
            specificity=(shares[0][1], shares[1][1]) if not labels.all() else (None, None),
            accuracy=(first, second), reward=reward,
            gain=reward_gain(labels, said[0], said[1], groups=scenes) if both else None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PairedVerdict:
    """What came of the comparison.

    Attributes:
        outcome: of the candidate beside what serves.
        by: the side that decides.
        gain: of reward on that side.
        changed: scenes of it on which just one of the models is right.
        sides: figures of all photos and of each source, where there are some.
    """

    outcome: Outcome
    by: str
    gain: Estimate
    changed: int
    sides: Mapping[str, PairedFigures]

    @property
    def words(self) -> str:
        """The judgement in a sentence."""
        gain, side, tenth = self.gain, self.sides[self.by], self.sides.get(TENTH)
        where = "photos of the traffic" if self.by == TRAFFIC else "photos"
        figures = f"{signed(gain)} of reward on {side.photos} {where} that neither has learnt"
        match self.outcome:
            case "better":
                return f"better than what serves now: {figures}"
            case "worse":
                return f"worse than what serves now: {figures}"
        if gain.low > 0 and tenth is not None and tenth.gain is not None and tenth.gain.high < 0:
            why = f", but worse on the random tenth of the traffic: {signed(tenth.gain)}"
        elif gain.low > 0:
            why = f", but only {self.changed} scenes change sides, and {LEAST_DISAGREEMENTS} are needed"
        else:
            why = ", which may be chance" if gain.value > 0 else ""
        return f"not better than what serves now: {figures}{why}"

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self) | {"words": self.words}


def signed(gain: Estimate) -> str:
    """Return a gain with its interval."""
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def read_answers(
    folder: Path, photos: Sequence[PartPhoto], calibration: Calibration | None = None
) -> list[JudgedAnswer]:
    """Return what `evaluate --json` has written of two models, what serves first, about photos that neither has learnt.

    Args:
        folder: holds what it has printed.
        photos: all photos of the improvement.
        calibration: of the candidate.
    """
    known = {one.digest: one for one in photos}
    answers: list[JudgedAnswer] = []
    for table in sorted(folder.glob("*.json")):
        for row in json.loads(table.read_bytes())["answers"]:
            one = known[Path(row["picture"]).stem]
            (said,) = row["said"].values()
            before, after = said.values()
            after = float(calibration(after)) if calibration is not None else after
            is_roadwork = one.kind == CLASSES[1]
            if not one.is_known:
                answers.append(JudgedAnswer(one.digest, one.name, one.source, is_roadwork, before, after, one.scene))
    return sorted(answers, key=lambda one: one.digest)


def judged_answers(folder: Path) -> list[JudgedAnswer]:
    """Return both models' answers of a run, as its candidate serves them."""
    model = read_config(str(yaml_of(folder))).model_folder
    assert model is not None
    return read_answers(folder / ANSWERS, read_photo_table(folder / PHOTOS), Manifest.read(model).calibration)


def judge(answers: Sequence[JudgedAnswer]) -> PairedVerdict:
    """Judge a candidate by both models' answers.

    Raises:
        CouldNotStart: they are of one class.
    """
    sides = {
        name: PairedFigures.of(chosen)
        for name, sources in SIDES.items()
        if (chosen := [one for one in answers if one.source in sources])
    }
    fair = [one for one in answers if one.source in SIDES[ALL]]
    traffic = [one for one in fair if one.source in SIDES[TRAFFIC]]
    by = TRAFFIC if all(len(_scenes(traffic, is_roadwork=kind)) >= ENOUGH for kind in (True, False)) else ALL
    gain = sides[by].gain if by in sides else None
    if gain is None:
        raise CouldNotStart("the photos that judge are of one class alone, as those of the other can't be opened")
    tenth = sides[TENTH].gain if TENTH in sides else None
    changed = len({one.scene for one in (traffic if by == TRAFFIC else fair) if one.change})
    outcome: Outcome
    if gain.high < 0:
        outcome = "worse"
    elif gain.low > 0 and changed >= LEAST_DISAGREEMENTS and (tenth is None or tenth.high >= 0):
        outcome = "better"
    else:
        outcome = "not better"
    return PairedVerdict(outcome, by, gain, changed, sides)


def _scenes(answers: Sequence[JudgedAnswer], *, is_roadwork: bool) -> set[int]:
    return {one.scene for one in answers if one.is_roadwork == is_roadwork}


def is_kept(answers: Sequence[JudgedAnswer]) -> bool:
    """Return whether what a teacher taught takes the first candidate's place: only the random tenth may say so.

    A teacher's mistakes are learnt with the rest of what it says, and it judges the very photos that nobody has looked
    at. `before` is the first candidate, `after` the one that was taught.
    """
    tenth = [one for one in answers if one.source == "random"]
    gain = PairedFigures.of(tenth).gain if tenth else None
    return gain is not None and gain.low > 0 and len({one.scene for one in tenth if one.change}) >= LEAST_DISAGREEMENTS
