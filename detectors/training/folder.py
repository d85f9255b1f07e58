"""Labelled photos in folders: read, damaged ones left out, and split once and for all by a seed.

Either `DIR/roadwork` and `DIR/no_roadwork`, or the same two in `DIR/train` and optionally `DIR/val` and `DIR/test`.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class DataSet:
    """Photos to learn from, to choose by, and to judge by."""

    train: list[Photo]
    val: list[Photo]
    test: list[Photo]
    skipped: list[str]

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
    paths = [(path, label) for label, kind in enumerate(CLASSES) for path in _pictures(folder, kind)]
    photos: list[Photo] = []
    skipped: list[str] = []
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
        return DataSet(**split(found.photos, shares, seed), skipped=found.skipped)
    given = {name: read_photos(folder / name, tell, workers) for name in PARTS if (folder / name).is_dir()}
    shares = {"val": val_share, "test": test_share}
    missing = {name: shares[name] for name in PARTS[1:] if name not in given}
    parts = {name: found.photos for name, found in given.items()}
    if missing:
        parts |= split(parts["train"], {"train": 1 - sum(missing.values())} | missing, seed)
    skipped = [f"{name}/{line}" for name, found in given.items() for line in found.skipped]
    return DataSet(**parts, skipped=skipped)


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


def _pictures(folder: Path, kind: str) -> list[Path]:
    if not (folder / kind).is_dir():
        raise DetectorConfigError(f"{folder} holds no folder {kind!r}; one folder a class is needed: {CLASSES}")
    return sorted(path for path in (folder / kind).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _read(entry: tuple[Path, int]) -> Photo | str:
    path, label = entry
    try:
        data = path.read_bytes()
        return Photo(path, label, hashlib.sha256(data).hexdigest(), thumbnail(decode(data)))
    except ImageError as error:
        return f"{CLASSES[label]}/{path.name}: {error}"
    except OSError as error:
        return f"{CLASSES[label]}/{path.name}: {error.strerror or error}"
