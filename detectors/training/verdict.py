"""The verdict on a training: whether its model is worth serving, by the photos kept back from it.

Three questions in turn: does it earn more than chance, does it earn more than what serves now, and is that more than
luck? The second is asked in pairs: both models judge the same photos.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from detectors.base import Detector, RunOptions
from detectors.errors import DetectorError
from detectors.evaluation.estimates import Estimate, Flags, Floats, Groups, reward_gain
from detectors.evaluation.evaluate import Figures, ask
from detectors.evaluation.reward import expected_reward
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.photos.labelled import Photo
from detectors.registry import DEFAULT, DETECTORS
from detectors.training.job import Job

Judgement = Literal["no better than chance", "worse", "not better", "better"]
STARTER = "ViT"  # the detector whose default is the shipped model
CHANCE = 0.5  # of each class right, by a coin


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """What to do with a trained model.

    Attributes:
        judgement: beside chance, else beside what serves now.
        photos: that it follows from.
        part: of the photos.
        chose_epoch: whether the epoch was chosen by `val`.
        figures: the model's own.
        now: the name of what serves now.
        gain: the reward that the model earns more than that.
    """

    judgement: Judgement
    photos: int
    part: Literal["test", "val"]
    figures: Figures
    now: str
    gain: Estimate
    chose_epoch: bool = True

    @property
    def is_recommended(self) -> bool:
        """Whether to serve it."""
        return self.judgement == "better"

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        gain = self.gain
        chosen = ", which chose the epoch" if self.chose_epoch else ""
        photos = f"{self.photos} {'photos kept back' if self.part == 'test' else f'validation photos{chosen}'}"
        gains = f"{gain.value:+.3f} of reward ({gain.low:+.3f} to {gain.high:+.3f}) on {photos}"
        match self.judgement:
            case "no better than chance":
                share = self.figures.balanced_accuracy
                is_worse = self.figures.reversed or share < CHANCE
                word = "worse" if is_worse else "no better" if share == CHANCE else "perhaps no better"
                found = f"{share:.1%} right, both classes alike, on {photos}"
                return f"{word} than chance: {found}, expected reward {self.figures.reward}: not recommended"
            case "worse":
                return f"worse than what serves now ({self.now}): {gains}: not recommended"
            case "not better":
                luck = ", which may be chance" if gain.value > 0 else ""
                return f"not better than what serves now ({self.now}): {gains}{luck}: not recommended"
            case "better":
                return f"better than what serves now ({self.now}): {gains}"

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "judgement": self.judgement, "recommended": self.is_recommended, "now": self.now,
            "gain": asdict(self.gain), "photos": self.photos, "part": self.part, "words": self.words,
        }  # fmt: skip


def weigh(
    labels: Flags, answers: Floats, before: Floats, figures: Figures, now: str, near: Groups | None = None,
    part: Literal["test", "val"] = "test", *, chose_epoch: bool = True,
) -> RunVerdict:  # fmt: skip
    """Weigh a model's answers up against those of what serves now, to the same photos.

    Args:
        labels: whether a photo shows roadwork.
        answers: the model's, to photos kept back.
        before: those of what serves now.
        figures: of the model's answers, groups minded.
        now: the name of what serves now.
        near: groups of near-identical photos, which count as one.
        part: of the photos, that these are.
        chose_epoch: whether the epoch was chosen by `val`.
    """
    gain = reward_gain(labels, before > 0.5, answers > 0.5, groups=near)
    judgement: Judgement
    if figures.reversed or figures.reward.low <= expected_reward(CHANCE, CHANCE):
        judgement = "no better than chance"
    elif gain.high < 0:
        judgement = "worse"
    else:
        judgement = "better" if gain.low > 0 else "not better"
    return RunVerdict(judgement, len(labels), part, figures, now, gain, chose_epoch)


def ask_current(job: Job, photos: Sequence[Photo]) -> tuple[str, Floats]:
    """Return the name of what serves now, and its answers; where it can't be asked, the shipped starter's.

    Raises:
        ModelError: the starter can't be asked either.
    """
    if job.serving is not None:
        try:
            return _answers(job, *job.serving(), photos)
        except DetectorError as error:
            job.screen.warn(f"what serves now can't be asked ({error}): judged beside the shipped starter")
    config = read_config(DETECTORS[STARTER].config)
    options = RunOptions(1, job.threads)
    return _answers(job, config.path.stem, load_detector(STARTER, config, job.run, DEFAULT, options), photos)


def _answers(job: Job, name: str, detector: Detector, photos: Sequence[Photo]) -> tuple[str, Floats]:
    done = itertools.count(1)
    with job.screen.bar(f"judging {name}", len(photos)) as bar:
        return name, ask(detector, photos, tell=lambda: bar(next(done)))[0]
