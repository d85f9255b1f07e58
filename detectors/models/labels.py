"""Class labels: which of a classifier's outputs means roadwork, by one rule; and whether its answers speak for it.

A checkpoint's classes stand in the order of its training folders, so `roadwork, safe` puts roadwork first and
`no_roadwork, roadwork` second. The wrong one answers the opposite of every picture, at full confidence. That shows in
no latency, no error and no parity: only in what is said of pictures that somebody knows, so there is a check by the
AUC on labelled photos, and one by drawings of cones.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.errors import DetectorConfigError, NotPrepared
from detectors.models.documents import shown, some
from detectors.photos.synthetic import drawn_pairs

if TYPE_CHECKING:
    from detectors.models.config import DetectorConfig
    from detectors.models.manifest import Manifest

LABEL_KEY, INDEX_KEY = "roadwork_label", "roadwork_class_index"
SHOWN_LABELS = 10  # labels in a message or a line; a network of a thousand classes has no more to say

# A whole name without its separators, numbers and fillers. A part of one is not enough: "construction vehicle".
ROADWORK = {
    "roadwork", "roadworks", "roadconstruction", "construction", "constructions", "constructionwork",
    "constructionworks", "roadconstructionwork", "roadconstructionworks", "workzone", "workzones", "roadworkzone",
    "roadworkzones", "roadworkszone", "constructionzone", "roadconstructionzone", "roadworksite", "roadworkssite",
    "constructionsite", "roadconstructionsite", "roadworkarea", "works", "work", "underconstruction",
    "roadunderconstruction", "roadmaintenance",
}  # fmt: skip
FILLERS = {"a", "ahead", "class", "contains", "detected", "has", "is", "label", "present", "the", "there", "with"}
# One of these words makes a name that of a road without works, whatever else stands in it.
NEGATIONS = {
    "absent", "background", "clean", "clear", "empty", "false", "free", "lacks", "negative", "neg", "no", "non", "none",
    "normal", "not", "nothing", "null", "other", "others", "safe", "un", "usual", "without",
}  # fmt: skip
NEGATION_PREFIX = re.compile(r"(?:non|not|no|without)(?=.)")  # "noroadwork"


def roadwork_index(labels: Mapping[int, str], label: str | None = None, index: int | None = None) -> int:
    """Return the output that means roadwork: the one that is named, or the only one with a name for roadwork.

    Args:
        labels: of the network's outputs.
        label: the label, to the letter or as it is read aloud, or else the output's number (`roadwork_label`).
        index: the output's number (`roadwork_class_index`).

    Raises:
        DetectorConfigError: there is no such output, or more than one; or a number names an output whose name says
            otherwise. That number may be a default that was copied, so the class has to be named by its name.
    """
    chosen = chosen_index(labels, label, index)
    if chosen is None:
        return _found(labels)
    if not is_by_name(labels, chosen, label) and (fault := contradiction(labels, chosen)):
        key = INDEX_KEY if index is not None else LABEL_KEY
        raise DetectorConfigError(
            f"{key}={chosen}: {fault}; {listed(labels)}: remove the key where the names are right; "
            f"where they are wrong, write {LABEL_KEY}: {shown(labels[chosen])}"
        )
    return chosen


def chosen_index(labels: Mapping[int, str], label: str | None, index: int | None) -> int | None:
    """Return the output that the configuration's keys name, whatever it is called; None: they name none.

    Raises:
        DetectorConfigError: there is no such output, or they name two.
    """
    by_index = _numbered(labels, index) if index is not None else None
    by_label = _named(labels, label) if label is not None else None
    if by_index is not None and by_label is not None and by_index != by_label:
        raise DetectorConfigError(
            f"{INDEX_KEY}={index} and {LABEL_KEY}={shown(label)} are two classes; {listed(labels)}: remove one of them"
        )
    return by_index if by_label is None else by_label


def refuse_constant(labels: Sequence[str], activation: str) -> None:
    """Refuse a network whose only output is a share of one class; a sigmoid's may lie anywhere.

    Raises:
        DetectorConfigError: it is one.
    """
    if len(labels) == 1 and activation not in ("sigmoid", "probability"):
        raise DetectorConfigError(
            f"the network has one class, {shown(labels[0])}, and says 1.0 of every picture: one that knows roads "
            f"without works as well is needed, or one whose single output goes through a sigmoid"
        )


def check_class(config: "DetectorConfig", manifest: "Manifest") -> None:
    """Compare the class that the configuration names, or that the names do where it has no key, with the exported one.

    Raises:
        NotPrepared: it is another, so that the model has to be exported again.
        DetectorConfigError: the model has no such class, or is an exported folder, which can't be exported again.
    """
    output = manifest.output
    labels = dict(enumerate(output.labels))
    wanted = chosen_index(labels, config.roadwork_label, config.roadwork_class_index)
    if wanted is None and output.named and config.model_folder is None:  # by a key that is there no more
        if fault := contradiction(labels, output.index):
            raise NotPrepared(f"{config.path.name} names no class any more ({LABEL_KEY}); exported was class {fault}")
        return
    if wanted in (None, output.index):
        return
    told = f"{config.path.name} names class {wanted} {output.labels[wanted]!r}; exported was {output.words}"
    if config.model_folder is not None:
        raise DetectorConfigError(f"{told}: export it again from the original weights")
    raise NotPrepared(told)


def class_doubt(config: "DetectorConfig", manifest: "Manifest") -> str:
    """Return why the class that counts is likely the wrong one by its name, or nothing."""
    output = manifest.output
    is_named = is_by_name(dict(enumerate(output.labels)), output.index, config.roadwork_label)
    return "" if is_named else output.doubt


def is_by_name(labels: Mapping[int, str], index: int, label: str | None) -> bool:
    """Return whether `roadwork_label` calls this output by its name, which nobody does by oversight."""
    return label is not None and label != str(index) and _plain(label) == _plain(labels[index])


def contradiction(labels: Mapping[int, str], index: int) -> str:
    """Return in words why the names speak against an output's being roadwork, or nothing."""
    if is_without(labels[index]):
        return f"class {index} is called {shown(labels[index])}, which is a road without works"
    others = [other for other in labels if is_roadwork(labels[other])]
    if others and not is_roadwork(labels[index]):
        return f"class {others[0]} is called {shown(labels[others[0]])}, and class {index} {shown(labels[index])}"
    return ""


def is_roadwork(label: str) -> bool:
    """Return whether a label is a name for roadwork."""
    words = _words(label)
    return not is_without(label) and "".join(word for word in words if word not in FILLERS) in ROADWORK


def is_without(label: str) -> bool:
    """Return whether a label is a name for a road without works, or for anything else."""
    words = _words(label)
    if any(word in NEGATIONS for word in words):
        return True
    joined = "".join(words)
    glued = NEGATION_PREFIX.match(joined)
    return glued is not None and joined[glued.end() :] in ROADWORK


def words(labels: Sequence[str], index: int) -> str:
    """Return in words which class counts, for wherever a model is shown."""
    return f"class {index} {shown(labels[index])} of {some([shown(label) for label in labels], SHOWN_LABELS)}"


def listed(labels: Mapping[int, str]) -> str:
    """Return the labels for a message."""
    return f"its labels are {some([shown(labels[index]) for index in sorted(labels)], SHOWN_LABELS)}"


def _found(labels: Mapping[int, str]) -> int:
    found = [index for index in sorted(labels) if is_roadwork(labels[index])]
    if len(found) == 1:
        return found[0]
    raise DetectorConfigError(
        f"{len(found) or 'none'} of the model's outputs have a name for roadwork such as 'Roadwork' ({LABEL_KEY}); "
        f"{listed(labels)}: say which one counts, with {LABEL_KEY}: NAME or {INDEX_KEY}: NUMBER"
    )


def _numbered(labels: Mapping[int, str], index: int) -> int:
    if index not in labels:
        raise DetectorConfigError(
            f"{INDEX_KEY}={index}: the network has the classes {min(labels)} to {max(labels)}; {listed(labels)}"
        )
    return index


def _named(labels: Mapping[int, str], label: str) -> int:
    """Return the output of that label; to the letter goes before as it is read aloud, and a name before a number."""
    exact = [index for index in labels if labels[index] == label]
    read = [index for index in labels if _plain(labels[index]) == _plain(label)]
    found = exact or read or [index for index in labels if str(index) == label]
    if len(found) != 1:
        raise DetectorConfigError(
            f"{len(found)} of the model's outputs have the label {shown(label)} ({LABEL_KEY}); {listed(labels)}"
        )
    return found[0]


def _plain(label: str) -> str:
    return re.sub(r"[\W_]+", "", label).casefold() or label


def _words(label: str) -> list[str]:
    """Split a label at separators, numbers and capitals ("NoRoadwork"); one of no letters stays as it is."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).casefold()
    return re.findall(r"[^\W\d_]+", parted) or [parted.strip()]


CONFIDENCE_DEVIATIONS = 1.96  # standard deviations of a 95 % interval
CLEAR_CHANGE = 0.25  # a change of probability that is no noise; the starter's is 0.9
LOOKS_REVERSED = "looks reversed"

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Separation:
    """How well a model's answers tell labelled photos apart: the AUC, and what chance alone would give.

    Attributes:
        photos: how many there were.
        auc: the share of pairs, one of each class, that are in the right order.
        chance: half the width of the AUC's 95 % interval around 0.5, were the answers drawn by lot.
    """

    photos: int
    auc: float
    chance: float

    @property
    def is_reversed(self) -> bool:
        """Whether the AUC is under 0.5 by more than chance."""
        return self.auc < 0.5 - self.chance

    @property
    def words(self) -> str:
        """In words."""
        said = f"AUC {self.auc:.3f} on {self.photos} labelled photos"
        return (
            f"{said} (by chance not under {max(0.0, 0.5 - self.chance):.3f}): {LOOKS_REVERSED}"
            if self.is_reversed
            else said
        )


def sorting_of(labels: Sequence[bool] | Flags, probabilities: Sequence[float] | Floats) -> Separation:
    """Compare answers with labels, both of which have to occur.

    The AUC is Mann and Whitney's U over the number of pairs, ties counting half; by chance its variance is
    (m + n + 1) / 12mn (Mann and Whitney 1947), so that no answers to fewer than three photos of each class are proof.
    """
    flags, said = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64)
    works, clear = said[flags], np.sort(said[~flags])
    below, upto = np.searchsorted(clear, works, "left"), np.searchsorted(clear, works, "right")
    pairs = len(works) * len(clear)
    auc = float((below + upto).sum()) / (2 * pairs)
    return Separation(len(flags), auc, CONFIDENCE_DEVIATIONS * float(np.sqrt((len(flags) + 1) / (12 * pairs))))


@dataclass(frozen=True, slots=True)
class DrawingCheck:
    """What a model says of drawn roads, as they are and with cones in them: pairs of probabilities."""

    pairs: Sequence[tuple[float, float]]

    @property
    def is_reversed(self) -> bool:
        """Whether cones lower every answer, and by much.

        A hint and no proof: a network that was trained on photos owes nothing to a drawing.
        """
        changes = [with_cones - without for without, with_cones in self.pairs]
        return bool(changes) and max(changes) < 0 and float(np.median(changes)) < -CLEAR_CHANGE

    @property
    def words(self) -> str:
        """In words."""
        without, with_cones = (float(np.median(column)) for column in zip(*self.pairs, strict=True))
        said = f"cones that are drawn into a road change its answer from {without:.2f} to {with_cones:.2f}"
        return f"{said}: {LOOKS_REVERSED}" if self.is_reversed else said


def ask_drawn(ask: Callable[[Image.Image], float]) -> DrawingCheck:
    """Ask a model about every drawn road."""
    return DrawingCheck([(ask(Image.fromarray(road)), ask(Image.fromarray(works))) for road, works in drawn_pairs()])
