"""Labelled photos in folders: read, damaged ones left out, and split once and for all by a seed.

Either `DIR/roadwork` and `DIR/no_roadwork`, or the same two in `DIR/train` and optionally `DIR/val` and `DIR/test`.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError, ImageError
from detectors.image import decode
from detectors.training.likeness import groups, thumbnail

CLASSES = ("no_roadwork", "roadwork")  # folders, in the order of the labels
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PARTS = ("train", "val", "test")

Tell = Callable[[int, int], None]  # so many photos are done, of so many


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that can be decoded, with its label (1 = roadwork), the SHA-256 of its file and a thumbnail of it."""

    path: Path
    label: int
    digest: str
    thumbnail: NDArray[np.uint8] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """What people call it: class and file."""
        return f"{self.path.parent.name}/{self.path.name}"


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos of both classes, and what was left out with the reason: `roadwork/a.jpg: the image can't be decoded`."""

    photos: list[Photo]
    skipped: list[str]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels in the order of the photos."""
        return np.array([photo.label for photo in self.photos], dtype=np.int64)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Numbers of the groups of near-identical photos, in the order of the photos."""
        return groups([photo.thumbnail for photo in self.photos])


@dataclass(frozen=True, slots=True)
class DataSet:
    """Photos to learn from, to choose by, and to judge by.

    `skipped` names what could not be read, `alike` what was left out because a part kept back has nearly the same.
    """

    train: list[Photo]
    val: list[Photo]
    test: list[Photo]
    skipped: list[str]
    alike: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many photos of each class each part has."""
        parts: dict[str, list[Photo]] = {name: getattr(self, name) for name in PARTS}
        return {
            name: {kind: sum(photo.label == label for photo in photos) for label, kind in enumerate(CLASSES)}
            for name, photos in parts.items()
        }


def read_photos(folder: Path, tell: Tell = lambda _done, _of: None, workers: int = 2) -> Photos:
    """Read the photos of both classes, in an order that depends on their contents alone.

    A photo that can't be decoded is left out and named, as is one whose very file lies in both classes.

    Raises:
        DetectorConfigError: a class has no folder, or no photo that can be decoded.
    """
    found_in = {kind: _pictures(folder, kind) for kind in CLASSES}
    paths = [(path, label) for label, kind in enumerate(CLASSES) for path in found_in[kind][0]]
    photos: list[Photo] = []
    skipped = [f"{kind}: {_in_words(others)}" for kind, (_, others) in found_in.items() if others]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, found in enumerate(pool.map(_read, paths), 1):
            (photos if isinstance(found, Photo) else skipped).append(found)  # type: ignore[arg-type]
            tell(done, len(paths))
    both = {photo.digest for photo in photos if photo.label} & {photo.digest for photo in photos if not photo.label}
    skipped += [f"{photo.name}: the same file is in the other class" for photo in photos if photo.digest in both]
    kept = sorted((photo for photo in photos if photo.digest not in both), key=lambda p: (p.digest, p.path.name))
    for label, kind in enumerate(CLASSES):
        if not any(photo.label == label for photo in kept):
            faults = f" ({'; '.join(skipped[:3])})" if skipped else ""
            raise DetectorConfigError(
                f"{folder / kind} holds no photo that can be opened{faults}; both classes are needed, "
                f"as {', '.join(SUFFIXES)} files"
            )
    return Photos(kept, skipped)


def read_data_set(
    folder: Path, val_share: float, test_share: float, seed: int, tell: Tell = lambda _done, _of: None, workers: int = 2
) -> DataSet:
    """Read `train`, `val` and `test`; those that are missing are split off the rest, stratified, by the seed.

    Raises:
        DetectorConfigError: no such folder, an empty class, or too few photos to split.
    """
    if not folder.is_dir():
        raise DetectorConfigError(f"{folder} is not a folder")
    if not (folder / "train").is_dir():
        found = read_photos(folder, tell, workers)
        shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
        parts = split(found.photos, shares, seed)
        return DataSet(parts["train"], parts["val"], parts["test"], found.skipped)
    given = {name: read_photos(folder / name, tell, workers) for name in PARTS if (folder / name).is_dir()}
    shares = {"val": val_share, "test": test_share}
    missing = {name: shares[name] for name in PARTS[1:] if name not in given}
    parts = {name: found.photos for name, found in given.items()}
    if missing:
        parts |= split(parts["train"], {"train": 1 - sum(missing.values())} | missing, seed)
    skipped = [f"{name}/{line}" for name, found in given.items() for line in found.skipped]
    parts, alike = _apart({name: parts.get(name, []) for name in PARTS})
    return DataSet(parts["train"], parts["val"], parts["test"], skipped, alike)


def _apart(parts: dict[str, list[Photo]]) -> tuple[dict[str, list[Photo]], list[str]]:
    """Leave out of `train` what is alike to `val` or `test`, and of `val` what is alike to `test`; name it.

    Raises:
        DetectorConfigError: nothing of a class is left in a part.
    """
    backwards = [(name, photo) for name in reversed(PARTS) for photo in parts[name]]
    kept: dict[str, list[Photo]] = {name: [] for name in PARTS}
    alike: list[str] = []
    holds: dict[int, str] = {}  # the part that a group belongs to
    for group, (name, photo) in zip(groups([photo.thumbnail for _, photo in backwards]), backwards, strict=True):
        part = holds.setdefault(int(group), name)
        if part == name:
            kept[name].append(photo)
        else:
            alike.append(f"{name}/{photo.name}: alike to a photo in {part}")
    for name, label in product(PARTS, range(len(CLASSES))):
        if parts[name] and not any(photo.label == label for photo in kept[name]):
            raise DetectorConfigError(
                f"every photo of the class {CLASSES[label]!r} in {name} is alike to one in a part kept back: {alike[0]}"
            )
    return kept, alike


def split(photos: Sequence[Photo], shares: dict[str, float], seed: int) -> dict[str, list[Photo]]:
    """Split photos into parts of these shares in each class; near-identical ones stay together.

    The same photos and seed give the same parts, whatever the files are called and wherever they lie.

    Raises:
        DetectorConfigError: a part would be left without a photo of a class.
    """
    labels = np.array([photo.label for photo in photos])
    group = groups([photo.thumbnail for photo in photos])
    wanted = {name: share for name, share in shares.items() if share > 0}
    parts: dict[str, list[Photo]] = {name: [] for name in shares}
    order = np.random.default_rng(seed).permutation(np.unique(group))
    totals = np.bincount(labels, minlength=len(CLASSES))
    have = {name: np.zeros_like(totals) for name in wanted}
    # Large groups first: the small ones then even the shares out.
    for number in sorted(order.tolist(), key=lambda number: -int((group == number).sum())):
        members = np.flatnonzero(group == number)
        lack = {
            name: sum(wanted[name] * totals[label] - have[name][label] for label in labels[members]) for name in wanted
        }
        part = max(lack, key=lambda name: lack[name])
        have[part] += np.bincount(labels[members], minlength=len(CLASSES))
        parts[part] += [photos[int(index)] for index in members]
    for name in wanted:
        for label, kind in enumerate(CLASSES):
            if not have[name][label]:
                count = int(totals[label])
                raise DetectorConfigError(
                    f"the {count} photo{'s' * (count != 1)} of the class {kind!r} are too few to leave one for {name!r}"
                )
    return {name: sorted(members, key=lambda photo: photo.digest) for name, members in parts.items()}


def _pictures(folder: Path, kind: str) -> tuple[list[Path], Counter[str]]:
    """Return the photos of a class, and how many files of each other format lie among them."""
    if not (folder / kind).is_dir():
        raise DetectorConfigError(f"{folder} holds no folder {kind!r}; one folder a class is needed: {CLASSES}")
    files = sorted(path for path in (folder / kind).rglob("*") if path.is_file() and not path.name.startswith("."))
    others = Counter(path.suffix.lower() or "no suffix" for path in files)
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    return pictures, Counter({suffix: count for suffix, count in others.items() if suffix not in SUFFIXES})


def _in_words(others: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    return f"{others.total()} file{'s' * (others.total() != 1)} of other formats ({kinds})"


def _read(entry: tuple[Path, int]) -> Photo | str:
    path, label = entry
    try:
        data = path.read_bytes()
        return Photo(path, label, hashlib.sha256(data).hexdigest(), thumbnail(decode(data)))
    except ImageError as error:
        return f"{CLASSES[label]}/{path.name}: {error}"
    except OSError as error:
        return f"{CLASSES[label]}/{path.name}: {error.strerror or error}"
