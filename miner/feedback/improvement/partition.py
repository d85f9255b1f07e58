"""The partition of labelled photos into those to learn from, to choose by, and to judge by.

A photo's part follows from its content alone, so that it is the same every night: what has judged a model was never
learnt from, by none of the models before it either.
"""

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from detectors.errors import DetectorConfigError
from detectors.files import write_safely
from detectors.photos.labelled import CLASSES, pictures_of
from miner.errors import ConfigurationError
from miner.feedback import is_sampled
from miner.feedback.labels import Labels
from miner.feedback.traffic import RecordedPhoto

Part = Literal["train", "val", "test"]
Source = Literal["random", "labelled", "own"]
PARTS: tuple[Part, ...] = get_args(Part)
TWENTIETHS: Mapping[Part, int] = {"test": 2, "val": 3, "train": 15}  # of the photos that are not of the random tenth
# What of all photos comes into a part; of test also the random tenth.
SHARES: Mapping[Part, float] = {"train": 0.675, "val": 0.135, "test": 0.19}
LEAST: Mapping[Part, int] = {"train": 4, "val": 2, "test": 4}  # photos of a class, below which nothing could be said
TABLE = "photos.json"


@dataclass(frozen=True, slots=True)
class PartPhoto:
    """A photo of a part.

    Attributes:
        digest: SHA-256 of its file, its name in the part's folder.
        kind: its class.
        part: where it is.
        source: `random`, of the random tenth of the traffic; `labelled`, any other of the traffic; `own`.
        name: what people call it.
    """

    digest: str
    kind: str
    part: Part
    source: Source
    name: str


def part_of(digest: str) -> Part:
    """Return the part of a photo, for ever.

    Whatever falls into the random tenth judges, wherever it is from: an own photo may be sent by a validator one day.

    Args:
        digest: SHA-256 of the photo's file, in hexadecimal.
    """
    if is_sampled(digest):
        return "test"
    number = int(digest[8:16], 16) % sum(TWENTIETHS.values())  # other digits than `is_sampled` goes by
    for part, count in TWENTIETHS.items():
        if number < count:
            return part
        number -= count
    raise AssertionError


def lay_out(folder: Path, labels: Labels, own: Sequence[Path]) -> list[PartPhoto]:
    """Put every labelled photo into the folder of its part and class, by a hard link where the disk allows it.

    The folder is made anew, and is there as a whole or not at all. A label goes before the class of an own photo.

    Args:
        folder: gets `train`, `val` and `test`, as `train` reads them, and a table of all.
        labels: of recorded photos.
        own: folders with a folder for each class.

    Raises:
        ConfigurationError: an own folder has none of a class.
        OSError: the disk does not take them.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    for part in PARTS:
        for kind in CLASSES:
            (partial / part / kind).mkdir(parents=True, mode=0o700)
    photos: dict[str, PartPhoto] = {}
    for label in labels.decided:
        path = labels.path_of(label.digest)
        is_traffic = label.reason != "import"
        source: Source = "own" if not is_traffic else "random" if is_sampled(label.digest) else "labelled"
        photos[label.digest] = PartPhoto(label.digest, label.kind, part_of(label.digest), source, path.name)
        _place(path, partial, photos[label.digest])
    both = set[str]()
    for root, kind, path in _own(own):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        known = photos.get(digest)
        if known is None:
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            photos[digest] = PartPhoto(digest, kind, part_of(digest), "own", name)
            _place(path, partial, photos[digest])
        elif known.kind != kind and known.digest not in labels:
            both.add(digest)
    for digest in both:  # in the folders of both classes: nobody knows
        one = photos.pop(digest)
        for path in (partial / one.part / one.kind).glob(f"{digest}.*"):
            path.unlink()
    rows = sorted(photos.values(), key=lambda one: one.digest)
    write_safely(partial / TABLE, json.dumps([asdict(one) for one in rows], indent=0).encode(), mode=0o600)
    partial.replace(folder)
    return rows


def read_parts(folder: Path) -> list[PartPhoto]:
    """Return the photos that `lay_out` has put there, by digest."""
    return [PartPhoto(**row) for row in json.loads((folder / TABLE).read_bytes())]


def unlabelled(folder: Path, labels: Labels, traffic: Mapping[str, RecordedPhoto]) -> int:
    """Put the recorded photos that a teacher may judge into a folder; return how many.

    Neither those with a label or skipped, nor those that would judge or choose if they got one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    count = 0
    for photo in traffic.values():
        if photo.digest not in labels and part_of(photo.digest) == "train":
            count += _link(photo.path, folder / photo.path.name)
    return count


def counts_of(photos: Iterable[PartPhoto]) -> dict[str, dict[str, int]]:
    """Return how many photos of each class each part has."""
    found = Counter((one.part, one.kind) for one in photos)
    return {part: {kind: found[part, kind] for kind in CLASSES} for part in PARTS}


def sum_of(photos: Iterable[PartPhoto]) -> str:
    """Return a sum of photos and their classes, in their order."""
    return hashlib.sha256(json.dumps([(one.digest, one.kind, one.source) for one in photos]).encode()).hexdigest()


def refuse_too_few(photos: Sequence[PartPhoto]) -> None:
    """See that each part has some photos of each class, before anything long begins.

    Raises:
        ConfigurationError: a line for each class that lacks some, with about how many more labels fill its parts.
    """
    counts: Mapping[str, Mapping[str, int]] = counts_of(photos)
    lines: list[str] = []
    for kind in CLASSES:
        lacking = {part: least - counts[part][kind] for part, least in LEAST.items() if counts[part][kind] < least}
        if lacking:
            more = max(math.ceil(missing / SHARES[part]) for part, missing in lacking.items())
            has = ", ".join(f"{counts[part][kind]} {words}" for part, words in _WORDS.items())
            count = sum(counts[part][kind] for part in PARTS)
            lines.append(
                f"{count} photos of {kind!r} ({has}) are too few: label about {more} more (`roadwork-miner label`), "
                "or give a folder of photos (--data)"
            )
    if lines:
        raise ConfigurationError("\n".join(lines))


_WORDS: Mapping[Part, str] = {"train": "to learn from", "val": "to choose by", "test": "to judge by"}


def _own(folders: Sequence[Path]) -> Iterable[tuple[Path, str, Path]]:
    for folder in folders:
        for kind in CLASSES:
            try:
                found, _ = pictures_of(folder, kind)
            except DetectorConfigError as error:
                raise ConfigurationError(f"--data={folder}: {error}") from error
            yield from ((folder, kind, path) for path in found)


def _place(path: Path, folder: Path, photo: PartPhoto) -> None:
    _link(path, folder / photo.part / photo.kind / f"{photo.digest}{path.suffix.lower()}")


def _link(path: Path, target: Path) -> bool:
    """Return whether a file of this content is there now; a recorder may have removed it meanwhile."""
    try:
        try:
            os.link(path.resolve(), target)
        except FileExistsError:
            return False
        except OSError:  # another disk, one without links, or another user's file
            write_safely(target, path.read_bytes(), mode=0o600)
    except FileNotFoundError:
        return False
    return True


def facts_of(photos: Sequence[PartPhoto]) -> dict[str, Any]:
    """Return what the state and the report say of the photos."""
    sources = Counter(one.source for one in photos)
    return {
        "photos": len(photos), "counts": counts_of(photos), "sum": sum_of(photos),
        "sources": {source: sources[source] for source in get_args(Source)},
        "kept_back": {
            source: sum(one.source == source and one.part == "test" for one in photos) for source in get_args(Source)
        },
    }  # fmt: skip
