"""`manifest.json`: what is in a model's folder, where it came from, and what was measured on it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from detectors.errors import ModelError, NotPrepared
from detectors.machine import LOUD
from detectors.models import MANIFEST_FILE
from detectors.models.calibration import Calibration, Share
from detectors.models.documents import faults
from detectors.models.labels import contradiction, words
from detectors.photos.views import WHOLE, PooledViews

NAME = MANIFEST_FILE
NO_REFERENCE = "none"  # of an ONNX file of one's own
NUMPY = "numpy"  # the reference where there is no torch
HASH_BLOCK_BYTES = 16 * 2**20  # bytes that are hashed at a time

Tenths = Annotated[list[Share], Field(min_length=10, max_length=10)]
# none: they are probabilities already; probability: of one class alone, by a sigmoid within the graph.
Activation = Literal["softmax", "sigmoid", "none", "probability"]
Precision = Literal["fp32", "bf16", "int8", "merged", "int8-merged"]
PLAIN_VIT_BUILDER = "plain ViT graph"
# The versions of the graphs that are built here, as a manifest's `made_with` has them.
CURRENT_BUILDERS = {
    PLAIN_VIT_BUILDER: "2",  # 2: the last layer computes the first token alone
    "ConvNeXt graph": "1",
    "ConvNeXtV2 graph": "1",
    "EfficientNet graph": "1",
    "RegNet graph": "1",
    "ResNet graph": "1",
    "DeiT graph": "1",
    "DINOv2 graph": "1",
    "SigLIP graph": "1",
}
OPTIMUM = "optimum"  # traced the other graphs until 0.2
# Those that are better when they are made today, by the class in config.json: ConvNeXtV2 takes .86 of the time in fp32,
# EfficientNet .91, ViT and DeiT .94; in those with tokens these can be merged. ConvNeXt, ResNet and RegNet are as fast.
BETTER_TODAY = {
    "ConvNextV2ForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification",
    "EfficientNetForImageClassification",
    "ViTForImageClassification",
}
MAKE_ANEW = "roadwork-miner models download --force"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Source(_Part):
    """Where the weights came from: a repository at a commit, or a local path with a fingerprint."""

    origin: str
    revision: str


class Output(_Part):
    """Which of the graph's outputs means roadwork, and what turns it into a probability."""

    index: int = Field(ge=0)
    labels: list[str]
    activation: Activation
    named: bool = False  # whether the configuration called the class by its name, whatever that says

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.index >= len(self.labels):
            raise ValueError(f"output.index={self.index}: there are {len(self.labels)} labels")
        return self

    @property
    def words(self) -> str:
        """Which class counts as roadwork, for wherever the model is shown."""
        return words(self.labels, self.index)

    @property
    def doubt(self) -> str:
        """Why that class is likely the wrong one by the labels' names, or nothing."""
        return "" if self.named else contradiction(dict(enumerate(self.labels)), self.index)


class Parity(_Part):
    """How far the exported graph's probabilities were from the library's own pipeline."""

    reference: str
    pictures: int
    max_difference: float
    mean_difference: float

    @property
    def words(self) -> str:
        """The comparison in a few words."""
        if self.reference == NO_REFERENCE:
            return f"no library to compare with; {self.pictures} pictures answered as the file does"
        return f"within {self.max_difference:.1e} of {self.reference} on {self.pictures} pictures"

    @property
    def caveat(self) -> str:
        """What the comparison can't show, or nothing: numpy gets its pictures from the code that serves."""
        if self.reference == NO_REFERENCE:
            return "compared with no library: labelled photos alone show whether its pictures are prepared rightly"
        return "compared with numpy only, which shares the preprocessing" if self.reference == NUMPY else ""


class LabelledFigures(_Part):
    """What the faster graph costs on labelled pictures."""

    pictures: int
    accuracy_fp32: float
    accuracy: float
    reward_fp32: float
    reward: float


class ExportFigures(_Part):
    """What the model said of labelled photos when it was exported with some."""

    photos: int
    auc: float = Field(ge=0, le=1)
    reversed: bool  # under 0.5 by more than chance
    sensitivity: Share | None = None  # shares of the photos with and without roadwork that are on their side of 0.5;
    specificity: Share | None = None  # None: an older version exported it


class TokenMerging(_Part):
    """How many of a network's tokens were merged, layer by layer."""

    tokens: int  # that go in
    merged: list[int]  # in each layer that can merge

    @property
    def words(self) -> str:
        """The numbers for people: `R = 13: 197 → 54 tokens`."""
        least, most = min(self.merged), max(self.merged)
        rate = f"{most}" if least == most else f"{least} to {most}"
        return f"R = {rate}: {self.tokens} → {self.tokens - sum(self.merged)} tokens"


class Gate(_Part):
    """How far a faster precision's probabilities were from fp32's, and what was done to get there."""

    recipe: str  # how the graph was made, such as "dynamic"
    kept_fp32: list[str]  # layers left in fp32
    pictures: int
    max_difference: float
    mean_difference: float
    flips: float  # share of pictures on the other side of the threshold
    seconds: float  # median of a run
    seconds_fp32: float
    labelled: LabelledFigures | None = None
    made_pictures: bool = False  # made by arithmetic, not photos
    answers: tuple[float, float] | None = None  # the least and the largest of fp32's over these pictures
    others: Share | None = None  # of the CPU's time that other programs had while it was timed; None: nobody looked
    merging: TokenMerging | None = None  # of tokens, where it was done
    threshold: Share | None = None  # of the model's own answers, that it was judged at; None: nobody noted it
    views: str = ""  # of each picture, that it was judged in; nothing: the whole

    @property
    def speed(self) -> float | None:
        """Its time as a share of fp32's; None where other programs kept that from being measured."""
        if self.others is not None and self.others > LOUD:
            return None
        return self.seconds / max(self.seconds_fp32, 1e-9)


class BranchModel(_Part):
    """A model that an ensemble asks: its kind, and what identifies its graph."""

    detector: str
    name: str
    revision: str
    sums: str  # SHA-256 of the sums of its files
    index: int | None = None  # of the output that counts; None: written when nobody noted it
    views: str = ""  # that it is asked in; nothing: the whole

    def is_same(self, other: "BranchModel") -> bool:
        """Return whether both mean one model with one class."""
        known = self.index if self.index is not None else other.index
        return self.model_copy(update={"index": known}) == other


def same_branches(old: Mapping[str, BranchModel] | None, new: Mapping[str, BranchModel] | None) -> bool:
    """Return whether an ensemble's branches are those it was made with."""
    if old is None or new is None:
        return old is new
    return old.keys() == new.keys() and all(old[name].is_same(new[name]) for name in old)


class ViewFigures(_Part):
    """What was measured of a model in some views of each picture: other answers than to the whole alone."""

    calibration: Calibration | None = None
    predictions: Tenths | None = None
    judged: ExportFigures | None = None


class Manifest(_Part):
    """The contract of a model folder; `detectors.load` verifies every line of it before the first request."""

    format: Literal[1] = 1
    name: str
    revision: str
    detector: str
    precision: Precision = "fp32"
    backend: str = "any"  # the one that can run it
    threshold: Share = 0.5
    source: Source
    output: Output
    files: dict[str, str]  # file name -> sha256
    known_answer: Share  # the probability of `detectors.photos.synthetic.known_picture()`, before any calibration
    parity: Parity
    gate: Gate | None = None  # of precisions other than fp32
    predictions: Tenths | None = None  # shares of what it said of photos it was not trained on, half of them roadwork
    judged: ExportFigures | None = None  # by labelled photos
    calibration: Calibration | None = None  # of the fp32 folder alone; its faster variants take it over
    views: dict[str, ViewFigures] = {}  # by the views' words; the three above are of the whole picture
    seen: Annotated[str, Field(exclude=True)] = ""  # the views that are served, by the YAML file; never in this one
    head: str = ""  # the views that its head was learned on, in words: the graph gives features; nothing: it has none
    branches: dict[str, BranchModel] | None = None  # of an ensemble; of its faster variant, those of its branches
    made_with: dict[str, str]  # package -> version

    @property
    def decides_at(self) -> float:
        """What the model's own answer has to be above to count as roadwork, before any map."""
        return self.calibration.threshold if self.calibration is not None else self.threshold

    @property
    def view_words(self) -> str:
        """The views of a picture that are judged, of an ensemble by branch; nothing: the whole alone."""
        branches = (self.branches or {}).items()
        return "; ".join(f"{name}: {one.views}" for name, one in branches if one.views) or self.seen or self.head

    @property
    def judged_doubt(self) -> str:
        """What the labelled photos of its export say against the class that counts, or nothing."""
        judged = self.judged
        return f"its AUC on {judged.photos} labelled photos was {judged.auc:.3f}" if judged and judged.reversed else ""

    @property
    def gate_doubt(self) -> str:
        """Why the judgement of a faster precision counts no more, or nothing."""
        if self.gate is not None and self.gate.views != self.seen:
            return (
                f"judged in {self.gate.views or WHOLE}, and {self.seen or WHOLE} is served: "
                f"`roadwork-miner export --precision {self.precision} --pictures FOLDER` judges it again"
            )
        if self.gate is None or self.gate.threshold in (None, self.decides_at):
            return ""
        return (
            f"judged at the threshold {self.gate.threshold:.3f}, and {self.decides_at:.3f} counts now: "
            f"`roadwork-miner export --precision {self.precision} --pictures FOLDER` judges it again"
        )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of `folder`.

        Raises:
            NotPrepared: there is none.
            ModelError: it can't be read.
        """
        path = folder / NAME
        if not path.is_file():
            raise NotPrepared(f"{folder} holds no {NAME}")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ModelError(f"{path} can't be read: {faults(error)}") from error
        except OSError as error:
            raise ModelError(f"{path} can't be read: {error.strerror or error}") from error

    def write(self, folder: Path) -> None:
        """Write the manifest into `folder`."""
        (folder / NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def verify(self, folder: Path, but: str | None = None) -> None:
        """Compare every file with its sum; those whose names begin with `but` are passed over.

        Raises:
            ModelError: a file is missing or differs; the message names it.
        """
        for name, expected in self.files.items():
            if but is not None and name.startswith(but):
                continue
            path = folder / name
            if not path.is_file():
                raise ModelError(f"{path} is missing")
            if sha256(path) != expected:
                raise ModelError(f"{path} does not match its sum in {NAME}; remove the folder and make it again")


def as_served(manifest: Manifest, threshold: float | None, views: PooledViews | None) -> Manifest:
    """Return what a manifest says once the YAML file's threshold and views count.

    A threshold takes the place of any calibration. What was counted of the answers on either side of 0.5, or in tenths,
    is that of another map then, and what was counted of the whole picture is that of other answers than those to
    several views, which have figures of their own. Which way round the model sorts photos is the same in any.

    Args:
        manifest: as it was read.
        threshold: None: there is none.
        views: None: the whole picture alone.
    """
    manifest = manifest.model_copy(update={"seen": str(views or "")})
    if views is not None:
        own = manifest.views.get(str(views), ViewFigures())
        judged = own.judged or _without_sides(manifest.judged)
        update = {"calibration": own.calibration, "predictions": own.predictions, "judged": judged}
        manifest = manifest.model_copy(update=update)
    if threshold is None:
        return manifest
    gate = manifest.gate and manifest.gate.model_copy(update={"labelled": None})
    calibration = Calibration(threshold=threshold, temperature=1.0)
    judged = _without_sides(manifest.judged)
    return manifest.model_copy(update={"calibration": calibration, "predictions": None, "judged": judged, "gate": gate})


def variant_as_served(variant: Manifest, fp32: Manifest) -> Manifest:
    """Return a faster variant's manifest with what the fp32 folder knows by now, and what was judged in its views.

    The spread is that of the mapped answers: one without the other would be drift.
    """
    update: dict[str, object] = {name: getattr(fp32, name) for name in ("calibration", "predictions", "judged", "seen")}
    if variant.gate is not None and variant.gate.views != fp32.seen:
        update["gate"] = variant.gate.model_copy(update={"labelled": None})
    return variant.model_copy(update=update)


def _without_sides(judged: ExportFigures | None) -> ExportFigures | None:
    """Return the figures without those that depend on where 0.5 is."""
    return judged and judged.model_copy(update={"sensitivity": None, "specificity": None})


def branch_model(manifest: Manifest) -> BranchModel:
    """Return what an ensemble remembers of a branch's model."""
    sums = hashlib.sha256(json.dumps(sorted(manifest.files.items())).encode()).hexdigest()
    return BranchModel(
        detector=manifest.detector, name=manifest.name, revision=manifest.revision, sums=sums,
        index=manifest.output.index, views=manifest.seen or manifest.head,
    )  # fmt: skip


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    In large blocks: the interpreter's lock is released for each, and while other threads import modules, as at a start,
    each time costs up to 5 ms to get it back. `hashlib.file_digest` takes 256 KiB at a time.
    """
    found, block = hashlib.sha256(), memoryview(bytearray(min(HASH_BLOCK_BYTES, path.stat().st_size + 1)))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            found.update(block[:size])
    return found.hexdigest()


def architecture(folder: Path) -> str:
    """Return what the network is, by its own library's `config.json`; of a model without one, nothing."""
    try:
        names = json.loads((folder / "config.json").read_bytes()).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return ""
    return ", ".join(map(str, names))


def is_outdated(manifest: Manifest, folder: Path) -> bool:
    """Return whether an older version made a folder's graph, or that which it was made from, and ours is better."""
    made = manifest.made_with
    if manifest.parity.reference == NO_REFERENCE:  # somebody else made it
        return False
    if any(made[name] != version for name, version in CURRENT_BUILDERS.items() if name in made):
        return True
    if OPTIMUM in made:
        return architecture(folder) in BETTER_TODAY
    # The first plain ViTs have no version.
    return manifest.detector == "ViT" and "onnx" in made and made.keys().isdisjoint(CURRENT_BUILDERS.keys() | {"torch"})
