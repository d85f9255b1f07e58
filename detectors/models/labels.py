"""Which of a classifier's outputs means roadwork: one rule for every kind of model.

A checkpoint's classes stand in the order of its training folders, so `roadwork, safe` puts roadwork first and
`no_roadwork, roadwork` second. The wrong one answers the opposite of every picture, at full confidence.
"""

import re
from collections.abc import Mapping, Sequence

from detectors.errors import DetectorConfigError
from detectors.models.documents import shown, some

LABEL_KEY, INDEX_KEY = "roadwork_label", "roadwork_class_index"
SHOWN = 10  # labels in a message or a line; a network of a thousand classes has no more to say

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
WITHOUT = {
    "absent", "background", "clean", "clear", "empty", "false", "free", "lacks", "negative", "neg", "no", "non", "none",
    "normal", "not", "nothing", "null", "other", "others", "safe", "un", "usual", "without",
}  # fmt: skip
GLUED = re.compile(r"(?:non|not|no|without)(?=.)")  # "noroadwork"


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
    if len(labels) == 1 and activation != "sigmoid":
        raise DetectorConfigError(
            f"the network has one class, {shown(labels[0])}, and says 1.0 of every picture: one that knows roads "
            f"without works as well is needed, or one whose single output goes through a sigmoid"
        )


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
    if any(word in WITHOUT for word in words):
        return True
    joined = "".join(words)
    glued = GLUED.match(joined)
    return glued is not None and joined[glued.end() :] in ROADWORK


def words(labels: Sequence[str], index: int) -> str:
    """Return in words which class counts, for wherever a model is shown."""
    return f"class {index} {shown(labels[index])} of {some([shown(label) for label in labels], SHOWN)}"


def listed(labels: Mapping[int, str]) -> str:
    """Return the labels for a message."""
    return f"its labels are {some([shown(labels[index]) for index in sorted(labels)], SHOWN)}"


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
