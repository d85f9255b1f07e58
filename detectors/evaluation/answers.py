"""What an ensemble's branches said of the photos of its gate, in each of their precisions.

They are asked once, when the precisions are made: whether any combination of them may be served is arithmetic then.
"""

import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from detectors.base import Ways, ways_in_words
from detectors.errors import ModelError, NotPrepared
from detectors.evaluation.estimates import reward_of
from detectors.files import write_safely
from detectors.models.calibration import Fusion, Share, Stage, are_unsure
from detectors.models.documents import faults
from detectors.models.manifest import BranchModel, Gate, LabelledFigures, Manifest, branch_model

FILE = "answers.json"  # in the folder of the ensemble in fp32
FP32 = "fp32"
Probabilities = NDArray[np.float64]
Models = Mapping[str, Mapping[str, BranchModel]]  # by branch and variant


def flips(fp32: Probabilities, faster: Probabilities, threshold: float) -> float:
    """Return the share of pictures that change sides; a NaN counts as changed."""
    return float(np.mean(~((fp32 > threshold) == (faster > threshold)) | ~np.isfinite(faster)))


def differences(fp32: Probabilities, faster: Probabilities) -> tuple[float, float]:
    """Return the largest and the mean difference of probability."""
    difference = np.abs(fp32 - faster)
    return float(difference.max()), float(difference.mean())


def labelled(
    fp32: Probabilities, faster: Probabilities, labels: Sequence[bool] | None, threshold: float
) -> LabelledFigures | None:
    """Return accuracy and expected reward of both, where labels are given; True is roadwork."""
    if labels is None:
        return None
    truth = np.array(labels, dtype=bool)
    before, after = fp32 > threshold, faster > threshold
    return LabelledFigures(
        pictures=len(truth),
        accuracy_fp32=float(np.mean(before == truth)),
        accuracy=float(np.mean(after == truth)),
        reward_fp32=reward_of(truth, before),
        reward=reward_of(truth, after),
    )


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BranchAnswers(_Part):
    """What one branch said in one precision, before any calibration, and the model that it was."""

    model: BranchModel
    probabilities: list[Share]
    known: Share | None = None  # of the known picture, in the branch's views; None: of the whole, as in the manifest


class EnsembleAnswers(_Part):
    """What all branches said of the same photos.

    Attributes:
        photos: a sum of the photos' bytes, in their order.
        labels: True is roadwork.
        made_pictures: whether the photos were made by arithmetic.
        max_flips: the share of the photos that may change sides, the least that any of these was made with.
        branches: by branch and variant (`fp32`, `int8-onnx`).
    """

    photos: str
    labels: list[bool] | None
    made_pictures: bool
    max_flips: Share
    branches: dict[str, dict[str, BranchAnswers]]

    @model_validator(mode="after")
    def _same_photos(self) -> Self:
        counts = {len(one.probabilities) for each in self.branches.values() for one in each.values()}
        if len(counts) > 1 or 0 in counts or (self.labels is not None and counts != {len(self.labels)}):
            raise ValueError("each branch needs an answer to each photo")
        return self

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read those in an ensemble's folder.

        Raises:
            NotPrepared: there are none that can be read.
        """
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise NotPrepared(f"{folder} holds no {FILE}: `roadwork-miner export --precision` writes it") from error
        except (OSError, ValidationError) as error:
            reason = faults(error) if isinstance(error, ValidationError) else error.strerror or error
            raise NotPrepared(f"{path} can't be read: {reason}") from error

    @property
    def variants(self) -> set[str]:
        """The variants that any branch was asked in, but for fp32."""
        return {variant for each in self.branches.values() for variant in each} - {FP32}

    def is_of(self, photos: str, labels: Sequence[bool] | None) -> bool:
        """Return whether they are answers to photos of this sum, with these labels."""
        return (self.photos, self.labels) == (photos, None if labels is None else list(labels))

    def known(self, ways: Ways, manifests: Mapping[str, Manifest]) -> dict[str, float]:
        """Return what the branches say of the known picture in these ways: as it was kept, else by their manifests."""
        kept = {name: self.branches.get(name, {}).get(key_of(*way.variant)) for name, way in ways.items()}
        return {
            name: manifest.known_answer if (one := kept[name]) is None or one.known is None else one.known
            for name, manifest in manifests.items()
        }

    def add_to(self, folder: Path) -> None:
        """Write them into an ensemble's folder, beside those to the same photos that are there; others go.

        What was said of made pictures takes the place of nothing that was said of an operator's photos.

        Raises:
            OSError: the folder does not take them.
        """
        try:
            known = type(self).read(folder)
        except NotPrepared:  # none, or of another version
            known = self
        if self.made_pictures and not known.made_pictures:
            return
        merged = self
        if known.is_of(self.photos, self.labels):
            branches = {name: known.branches.get(name, {}) | each for name, each in self.branches.items()}
            update = {"branches": branches, "max_flips": min(known.max_flips, self.max_flips)}
            merged = self.model_copy(update=update)
        write_safely(folder / FILE, merged.model_dump_json(indent=1).encode())

    def compare(
        self, ways: Ways, models: Models, fp32: Manifest, fusion: Fusion, cheaper: Sequence[Stage] = ()
    ) -> Gate:
        """Compare what the branches say together in these ways with what they say in fp32, mapped as it will be sent.

        Nothing runs, so that the gate has no times: its speed counts as not measured. Of a cascade what changes sides
        counts where it is most: in a stage, each of which is sent while time is short, or in all of it.

        Args:
            ways: of the branches.
            models: what the branches are now, by branch and variant.
            fp32: the ensemble's.
            fusion: makes one of the branches' probabilities.
            cheaper: the stages before that.

        Raises:
            NotPrepared: a branch was not asked about these photos in this way, or was another one.
        """
        chosen = {name: key_of(*way.variant) for name, way in ways.items()}
        stages = (*cheaper, fusion)
        both = [self._answers(each, models, fp32, stages) for each in (dict.fromkeys(ways, FP32), chosen)]
        plain, faster = max(zip(*both, strict=True), key=lambda pair: flips(pair[0], pair[1], fp32.threshold))
        largest, mean = differences(plain, faster)
        return Gate(
            recipe="", kept_fp32=[], pictures=len(plain), max_difference=largest, mean_difference=mean,
            flips=flips(plain, faster, fp32.threshold), seconds=0.0, seconds_fp32=0.0,
            labelled=labelled(plain, faster, self.labels, fp32.threshold), made_pictures=self.made_pictures,
            answers=(float(plain.min()), float(plain.max())), others=1.0, threshold=fp32.decides_at,
        )  # fmt: skip

    def admit(self, found: Gate, before: float = 0.0) -> Gate:
        """Return what a comparison found, if not too many photos changed sides.

        Args:
            found: by `compare`.
            before: the share that was let through when this was made, which more lax answers may have been.

        Raises:
            ModelError: too many photos are on the other side of the threshold.
        """
        most = max(self.max_flips, before)
        if found.flips > most:
            raise ModelError(
                f"{found.flips:.1%} of the pictures are on the other side of the threshold once the branches are "
                f"fused, and at most {most:.1%} may be"
            )
        return found

    def _answers(
        self, chosen: Mapping[str, str], models: Models, fp32: Manifest, stages: Sequence[Fusion]
    ) -> list[Probabilities]:
        """Return the answers to be sent: with as many stages as each picture needs, then of each stage alone."""
        each: dict[str, float | Probabilities] = {}
        for name, variant in chosen.items():
            found, model = self.branches.get(name, {}).get(variant), models.get(name, {}).get(variant)
            if found is None or model is None or not found.model.is_same(model):
                raise NotPrepared(f"branch {name}: its {variant} was not judged together with the others")
            each[name] = np.array(found.probabilities)
        said = [stage(each) for stage in stages]
        sent = said[-1] if fp32.calibration is None else fp32.calibration(said[-1])
        for stage, answer in reversed(list(zip(stages, said, strict=True))):
            if isinstance(stage, Stage):
                sent = np.where(are_unsure(answer, stage.band), sent, answer)
        return [sent, *(said if len(said) > 1 else ())]


def take_over(folder: Path, new: Path) -> None:
    """Copy an ensemble's answers into the folder that takes its place; else those of the last one of another fusion.

    Whoever judges by them compares the branches.
    """
    found = [path for path in folder.parent.glob(f"*/{FILE}") if path.parent != new]
    if found:
        shutil.copyfile(max(found, key=lambda path: (path.parent == folder, path.stat().st_mtime)), new / FILE)


def judge_again(
    folder: Path, ways: Ways, plain: Mapping[str, Manifest], faster: Mapping[str, Manifest], fp32: Manifest,
    fusion: Fusion, stored: Manifest | None, cheaper: Sequence[Stage] = (),
) -> Manifest:  # fmt: skip
    """Judge what an ensemble's branches say together by what was kept in its folder, at today's threshold and fusion.

    Returns:
        The ensemble's manifest in these ways.

    Args:
        folder: of the ensemble in fp32.
        ways: of the branches.
        plain: the branches' in fp32.
        faster: the branches' in these ways.
        fp32: the ensemble's.
        fusion: makes one of the branches' probabilities.
        stored: the ensemble's in this precision, as it was made; its times stay. None: it was made in parts.
        cheaper: the stages of a cascade before the fusion.

    Raises:
        NotPrepared: nothing was kept, or of other photos or models.
        ModelError: too many photos are on the other side of the threshold.
    """
    answers, made = EnsembleAnswers.read(folder), stored.gate if stored is not None else None
    models = {
        name: {FP32: branch_model(plain[name]), key_of(*way.variant): branch_model(faster[name])}
        for name, way in ways.items()
    }
    found = answers.compare(ways, models, fp32, fusion, cheaper)
    try:
        answers.admit(found, made.flips if made is not None else 0.0)
    except ModelError as error:
        others = dict.fromkeys(way.precision for way in ways.values() if way.precision != FP32)
        cure = " and ".join(f"`roadwork-miner export --precision {one} --pictures FOLDER`" for one in others)
        raise ModelError(f"{ways_in_words(ways)}: {error}; {cure} makes it anew") from error
    if stored is not None:
        kept = ("recipe", "kept_fp32", "seconds", "seconds_fp32", "others") if made is not None else ()
        gate = found.model_copy(update={name: getattr(made, name) for name in kept})
        return stored.model_copy(update={"gate": gate})
    update = {
        "precision": next(way.precision for way in ways.values() if way.precision != FP32),
        "backend": "+".join(dict.fromkeys(way.backend for way in ways.values())),
        "files": {},
        "known_answer": float(fusion(answers.known(ways, faster))),
        "gate": found,
        "branches": {name: branch_model(one) for name, one in faster.items()},
    }
    return fp32.model_copy(update=update)


def key_of(precision: str, backend: str) -> str:
    """Return the name of a variant among the answers; fp32 is one for all backends."""
    return FP32 if precision == FP32 else f"{precision}-{backend}"


def sum_of(photos: Sequence[bytes]) -> str:
    """Return a sum of photos, in their order."""
    return sha256(b"".join(sha256(data).digest() for data in photos)).hexdigest()
