"""The partition of labelled photos: folds to learn from and to judge by in turn, and the random tenth, which judges.

Labels are few and dear, so none is spared: a model is made of all of them, and one of each fold's others judges the
fold (cross-validation). Photos of one scene are together. What the model that serves has learnt from judges nothing: it
knows these photos by heart. Nor does what was labelled because models were wrong, unsure or at odds there.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from detectors.errors import DetectorConfigError, ImageError
from detectors.files import write_safely
from detectors.photos.image import decode
from detectors.photos.labelled import CLASSES, groups, pictures_of, thumbnail
from miner.errors import ConfigurationError
from miner.feedback import BY_ANSWERS, is_sampled
from miner.feedback.labels import Label, Labels
from miner.feedback.traffic import RecordedPhoto

Source = Literal["random", "labelled", "chosen", "own"]
Place = Literal["traffic", "own"]  # subfolders, since own photos have to be prepared as validators do
FOLDS = 4
LEAST_LEARNT, LEAST_JUDGED = 2 * FOLDS, 4  # scenes of a class: two a fold, as each needs some to validate by
MOST_REPEATS = 5  # of a photo of the traffic, where there are many more own ones
TABLE, STORE, FINAL = "photos.json", "store", "final"


@dataclass(frozen=True, slots=True)
class PartPhoto:
    """A photo of an improvement.

    Attributes:
        digest: SHA-256 of its file, its name in every folder.
        kind: its class.
        source: `random`, of the random tenth of the traffic; `chosen`, of the traffic by what models said of it;
            `labelled`, any other of the traffic; `own`.
        name: what people call it.
        fold: the model of the others judges it; None: nothing learns from it: it is of a scene of the tenth.
        scene: near-identical photos have the same.
        is_known: whether what serves has learnt from it, or from another one of its scene.
    """

    digest: str
    kind: str
    source: Source
    name: str
    fold: int | None = None
    scene: int = 0
    is_known: bool = False

    @property
    def judges(self) -> bool:
        """Whether it is a fair judge: not known to what serves, and not chosen because that was unsure or wrong."""
        return not self.is_known and self.source != "chosen"

    @property
    def place(self) -> Place:
        """The subfolder it lies in."""
        return "own" if self.source == "own" else "traffic"


def lay_out(folder: Path, labels: Labels, own: Sequence[Path], learnt: frozenset[str] = frozenset()) -> list[PartPhoto]:
    """Put every labelled photo into the folders that models learn from and judge, by hard links where these can be.

    The folder is made anew, and is there as a whole or not at all. A label goes before the class of an own photo.

    Args:
        folder: gets `learn/0` and so on, `learn/final`, `judge/traffic/0` and so on, and a table of all.
        labels: of recorded photos.
        own: folders with a folder for each class.
        learnt: digests of what the model that serves has learnt from.

    Raises:
        ConfigurationError: an own folder has none of a class.
        OSError: the disk does not take them.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    (partial / STORE).mkdir(parents=True, mode=0o700)
    found = _gather(partial / STORE, labels, own)
    photos = folded(list(found), list(found.values()), learnt)
    for photo in photos:
        (stored,) = (partial / STORE).glob(f"{photo.digest}.*")
        judged = f"judge/{photo.place}/{FINAL if photo.fold is None else photo.fold}/{photo.kind}"
        learning = [] if photo.fold is None else [FINAL, *(str(one) for one in range(FOLDS) if one != photo.fold)]
        for place in (judged, *(f"learn/{name}/{photo.kind}/{photo.place}" for name in learning)):
            (partial / place).mkdir(parents=True, exist_ok=True, mode=0o700)
            _link(stored, partial / place / stored.name)
    write_safely(partial / TABLE, json.dumps([asdict(one) for one in photos], indent=0).encode(), mode=0o600)
    partial.replace(folder)
    return photos


def folded(
    photos: Sequence[PartPhoto], thumbnails: Sequence[np.ndarray[Any, np.dtype[np.uint8]]], learnt: frozenset[str]
) -> list[PartPhoto]:
    """Give each photo its scene and fold: of each class about as many in each fold, and a scene in one."""
    if not photos:
        return []
    scenes = groups(list(thumbnails)).tolist()
    kept_back = {scene for scene, photo in zip(scenes, photos, strict=True) if photo.source == "random"}
    known = {scene for scene, photo in zip(scenes, photos, strict=True) if photo.digest in learnt}
    members: dict[int, list[PartPhoto]] = {}
    for scene, photo in zip(scenes, photos, strict=True):
        members.setdefault(scene, []).append(photo)
    counts: Counter[tuple[int, str, Place]] = Counter()
    totals: Counter[int] = Counter()
    folds: dict[int, int | None] = dict.fromkeys(kept_back)
    for scene in sorted(members, key=lambda scene: (-len(members[scene]), min(one.digest for one in members[scene]))):
        if scene not in folds:
            key = members[scene][0].kind, members[scene][0].place
            folds[scene] = fold = min(range(FOLDS), key=lambda one: (counts[one, *key], totals[one], one))
            totals[fold] += len(members[scene])
            counts.update((fold, one.kind, one.place) for one in members[scene])
    rows = (
        replace(photo, fold=folds[scene], scene=scene, is_known=scene in known)
        for scene, photo in zip(scenes, photos, strict=True)
    )
    return sorted(rows, key=lambda one: one.digest)


def source_of(label: Label) -> Source:
    """Return where a labelled photo is from."""
    if label.reason == "import":
        return "own"
    if is_sampled(label.digest):
        return "random"
    return "chosen" if label.reason in BY_ANSWERS else "labelled"


def _gather(store: Path, labels: Labels, own: Sequence[Path]) -> dict[PartPhoto, Any]:
    """Put each photo into a folder once, and return them with their thumbnails; what can't be opened is left out."""
    found: dict[str, tuple[PartPhoto, Path]] = {}
    for label in labels.decided:
        path = labels.path_of(label.digest)
        found[label.digest] = PartPhoto(label.digest, label.kind, source_of(label), path.name), path
    both = set[str]()
    for root, kind, path in _own(own):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in found:
            found[digest] = PartPhoto(digest, kind, "own", f"{root.name}/{path.relative_to(root).as_posix()}"), path
        elif found[digest][0].kind != kind and digest not in labels:
            both.add(digest)  # in the folders of both classes: nobody knows
    photos: dict[PartPhoto, Any] = {}
    for digest, (photo, path) in found.items():
        if digest in both:
            continue
        try:
            tiny = thumbnail(decode(path.read_bytes()))
        except (ImageError, OSError):
            continue
        if _link(path, store / f"{digest}{path.suffix.lower()}"):
            photos[photo] = tiny
    return photos


def read_photo_table(folder: Path) -> list[PartPhoto]:
    """Return the photos that `lay_out` has put there, by digest."""
    return [PartPhoto(**row) for row in json.loads((folder / TABLE).read_bytes())]


def learnt_in(folder: Path) -> frozenset[str]:
    """Return what the model of an improvement has learnt from; nothing where that is not known any more."""
    try:
        return frozenset(one.digest for one in read_photo_table(folder) if one.fold is not None)
    except (OSError, ValueError, TypeError):
        return frozenset()


def repeats_of(photos: Iterable[PartPhoto]) -> int:
    """Return how often a photo of the traffic counts, so that all of them count as much as the own ones."""
    counts = Counter(one.place for one in photos if one.fold is not None)
    return min(MOST_REPEATS, max(1, round(counts["own"] / counts["traffic"]))) if counts["traffic"] else 1


def unlabelled(folder: Path, labels: Labels, traffic: Mapping[str, RecordedPhoto]) -> int:
    """Put the recorded photos that a teacher may judge into a folder; return how many.

    Neither those with a label or skipped, nor those of the random tenth, nor any of a scene that is in it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    kept_back = [label.digest for label in labels.decided if is_sampled(label.digest)]
    paths = {digest: labels.path_of(digest) for digest in kept_back}
    paths |= {one.digest: one.path for one in traffic.values() if one.digest not in labels}
    tiny: dict[str, Any] = {}
    for digest, path in paths.items():
        try:
            tiny[digest] = thumbnail(decode(path.read_bytes()))
        except (ImageError, OSError):  # a recorder may have removed it meanwhile
            continue
    scenes = dict(zip(tiny, groups(list(tiny.values())).tolist(), strict=True)) if tiny else {}
    barred = {scene for digest, scene in scenes.items() if is_sampled(digest)}
    return sum(
        _link(paths[digest], folder / paths[digest].name)
        for digest, scene in scenes.items()
        if scene not in barred and digest not in labels
    )


def refuse_too_few(photos: Sequence[PartPhoto]) -> None:
    """See that there are scenes of each class to learn from and to judge by, before anything long begins.

    Raises:
        ConfigurationError: a line for each class that lacks some, with how many more labels are needed.
    """
    lines: list[str] = []
    for kind in CLASSES:
        mine = [one for one in photos if one.kind == kind]
        learnt = len({one.scene for one in mine if one.fold is not None})
        judged = len({one.scene for one in mine if one.judges})
        more = max(LEAST_LEARNT - learnt, LEAST_JUDGED - judged)
        if more > 0:
            lines.append(
                f"{learnt} scenes of {kind!r} to learn from and {judged} to judge by are too few: label about {more} "
                "more (`roadwork-miner label`), or give a folder of photos (--data)"
            )
    if lines:
        raise ConfigurationError("\n".join(lines))


def sum_of(photos: Iterable[PartPhoto]) -> str:
    """Return a sum of photos and their classes, in their order."""
    return hashlib.sha256(json.dumps([(one.digest, one.kind, one.source) for one in photos]).encode()).hexdigest()


def counts_of(photos: Sequence[PartPhoto]) -> dict[str, dict[str, int]]:
    """Return how many photos of each class are learnt from, and how many judge."""
    parts = {
        "learnt": [one for one in photos if one.fold is not None], "judged": [one for one in photos if one.judges]
    }  # fmt: skip
    return {part: {kind: sum(one.kind == kind for one in chosen) for kind in CLASSES} for part, chosen in parts.items()}


def facts_of(photos: Sequence[PartPhoto]) -> dict[str, Any]:
    """Return what the state and the report say of the photos."""
    sources = Counter(one.source for one in photos)
    return {
        "photos": len(photos), "scenes": len({one.scene for one in photos}), "counts": counts_of(photos),
        "sum": sum_of(photos), "sources": {source: sources[source] for source in get_args(Source)},
        "known": sum(one.is_known for one in photos), "repeats": repeats_of(photos),
    }  # fmt: skip


def _own(folders: Sequence[Path]) -> Iterable[tuple[Path, str, Path]]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(f"--data={folder}: is not a folder")
        for kind in CLASSES:
            try:
                found, _ = pictures_of(folder, kind)
            except DetectorConfigError as error:
                raise ConfigurationError(f"--data={folder}: {error}") from error
            yield from ((folder, kind, path) for path in found)


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
