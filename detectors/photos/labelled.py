"""Folders of labelled photos: `FOLDER/roadwork` and `FOLDER/no_roadwork`, read by one rule everywhere.

A photo that can't be opened is left out and named, as is one whose very file lies in both classes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.errors import DetectorConfigError, ImageError
from detectors.photos.image import decode

THUMBNAIL_SIDE = 24  # pixels of a thumbnail
DUPLICATE_CORRELATION = 0.88  # correlation of two thumbnails; copies at another size or JPEG quality are above .99
COMPARED_ROWS = 1024  # rows compared at a time, so that memory stays small with many photos

CLASSES = ("no_roadwork", "roadwork")  # folders, in the order of the labels
UNLABELLED = -1  # the label of a photo that nobody has sorted
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_AND = " and ".join(CLASSES)
Tell = Callable[[int, int], None]  # so many photos are done, of so many


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """Return an RGB picture in little, shape (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)."""
    return np.asarray(
        picture.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0), dtype=np.uint8
    )


def groups(thumbnails: Sequence[NDArray[np.uint8]], alike: float = DUPLICATE_CORRELATION) -> NDArray[np.int64]:
    """Number the groups of near-identical photos: thumbnails, mirrored or not, that correlate by more than `alike`.

    Returns:
        The number of each photo's group, which is that of its first member.
    """
    tiny = np.stack(thumbnails).astype(np.float32)
    plain, mirrored = _normal(tiny), _normal(tiny[:, :, ::-1])
    first = np.arange(len(tiny))

    def root(number: int) -> int:
        while first[number] != number:
            number = int(first[number])
        return number

    for start in range(0, len(tiny), COMPARED_ROWS):
        rows = plain[start : start + COMPARED_ROWS]
        similarity = np.maximum(rows @ plain.T, rows @ mirrored.T)
        for one, other in zip(*np.nonzero(similarity > alike), strict=True):
            a, b = sorted((root(start + int(one)), root(int(other))))
            first[b] = a
    return np.array([root(number) for number in range(len(tiny))], dtype=np.int64)


def _normal(values: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that can be decoded.

    Attributes:
        path: of its file.
        name: what people call it: its path below the folder that was read, as `roadwork/a.jpg`.
        label: 1 = roadwork; `UNLABELLED`: nobody knows.
        digest: SHA-256 of its file.
        thumbnail: to tell near-identical photos by.
    """

    path: Path
    name: str
    label: int
    digest: str
    thumbnail: NDArray[np.uint8] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LabelledPhotos:
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


def is_labelled(folder: Path) -> bool:
    """Return whether a folder has a subfolder for each class."""
    return all((folder / kind).is_dir() for kind in CLASSES)


def read_photos(folder: Path, tell: Tell = lambda _done, _of: None, workers: int = 2) -> LabelledPhotos:
    """Read the photos of both classes, in an order that depends on their contents alone.

    Raises:
        DetectorConfigError: a class has no folder, or no photo that can be decoded.
    """
    if not folder.is_dir():
        raise DetectorConfigError(f"{folder} is not a folder; one with the subfolders {_AND} is needed")
    found_in = {kind: pictures_of(folder, kind) for kind in CLASSES}
    entries = [(folder, path, label) for label, kind in enumerate(CLASSES) for path in found_in[kind][0]]
    photos: list[Photo] = []
    skipped = [f"{kind}: {_in_words(others)}" for kind, (_, others) in found_in.items() if others]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, found in enumerate(pool.map(_read, entries), 1):
            if isinstance(found, Photo):
                photos.append(found)
            else:
                skipped.append(found)
            tell(done, len(entries))
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
    return LabelledPhotos(kept, skipped)


def read_unlabelled(folders: Sequence[Path], tell: Tell = lambda _done, _of: None, workers: int = 2) -> LabelledPhotos:
    """Read every photo below some folders, each content once, whatever their subfolders are called.

    Raises:
        DetectorConfigError: a folder holds no photo that can be decoded.
    """
    entries = [(folder, path, UNLABELLED) for folder in folders for path in photos_below(folder)]
    photos: dict[str, Photo] = {}
    skipped: list[str] = []
    opened: set[Path] = set()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, (entry, found) in enumerate(zip(entries, pool.map(_read, entries), strict=True), 1):
            if isinstance(found, Photo):
                photos.setdefault(found.digest, found)
                opened.add(entry[0])
            else:
                skipped.append(found)
            tell(done, len(entries))
    if empty := [folder for folder in folders if folder not in opened]:
        faults = f" ({'; '.join(skipped[:3])})" if skipped else ""
        raise DetectorConfigError(f"{empty[0]} holds no photo that can be opened{faults}; {', '.join(SUFFIXES)} count")
    return LabelledPhotos(sorted(photos.values(), key=lambda photo: photo.digest), skipped)


def photos_below(folder: Path) -> list[Path]:
    """Return the files below a folder that are photos by their names, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def openable(folder: Path) -> Iterator[Path | str]:
    """Yield every photo below a folder, labelled or not, by name; of one that can't be opened a line that says why."""
    for path in photos_below(folder):
        found = _read((folder, path, 0))
        yield path if isinstance(found, Photo) else found


def pictures_of(folder: Path, kind: str) -> tuple[list[Path], Counter[str]]:
    """Return the photos of a class, and how many files of each other format lie among them.

    Raises:
        DetectorConfigError: there is no folder of this class.
    """
    if not (folder / kind).is_dir():
        raise DetectorConfigError(f"{folder} holds no folder {kind!r}; one folder a class is needed: {_AND}")
    files = sorted(path for path in (folder / kind).rglob("*") if path.is_file() and not path.name.startswith("."))
    others = Counter(path.suffix.lower() or "no suffix" for path in files)
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    return pictures, Counter({suffix: count for suffix, count in others.items() if suffix not in SUFFIXES})


def _in_words(others: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    return f"{others.total()} file{'s' * (others.total() != 1)} of other formats ({kinds})"


def _read(entry: tuple[Path, Path, int]) -> Photo | str:
    folder, path, label = entry
    name = path.relative_to(folder).as_posix()
    try:
        data = path.read_bytes()
        return Photo(path, name, label, hashlib.sha256(data).hexdigest(), thumbnail(decode(data)))
    except ImageError as error:
        return f"{name}: {error}"
    except OSError as error:
        return f"{name}: {error.strerror or error}"
