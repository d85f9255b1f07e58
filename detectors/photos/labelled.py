"""Folders of labelled photos: `FOLDER/roadwork` and `FOLDER/no_roadwork`, read by one rule everywhere.

A photo that can't be opened is left out and named, as is one whose very file lies in both classes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    first = np.arange(len(thumbnails))

    def root(number: int) -> int:
        while first[number] != number:
            number = int(first[number])
        return number

    for start, similarity in _similarities(thumbnails):
        for one, other in zip(*np.nonzero(similarity > alike), strict=True):
            a, b = sorted((root(start + int(one)), root(int(other))))
            first[b] = a
    return np.array([root(number) for number in range(len(first))], dtype=np.int64)


def near_pairs(
    thumbnails: Sequence[NDArray[np.uint8]], labels: NDArray[np.int64], alike: float
) -> list[tuple[int, int, float]]:
    """Return pairs of photos whose thumbnails correlate by more than `alike`: two numbers, and the correlation.

    Of each photo it is the pair with the most alike one of its own label, and of the other: all pairs of a scene that
    was filmed would be the square of its photos. Those of two labels come first, then the most alike.
    """
    found: dict[tuple[int, int], float] = {}
    for start, similarity in _similarities(thumbnails):
        rows = np.arange(start, start + len(similarity))
        similarity[rows - start, rows] = -1.0  # nobody's own neighbour
        same = labels[rows, None] == labels[None, :]
        for nearest in (np.where(same, similarity, -1.0), np.where(same, -1.0, similarity)):
            others = nearest.argmax(axis=1)
            for row, other, value in zip(rows, others, nearest[rows - start, others], strict=True):
                if value > alike:
                    found[min(int(row), int(other)), max(int(row), int(other))] = float(value)
    ordered = [(one, other, value) for (one, other), value in found.items()]
    return sorted(ordered, key=lambda pair: (labels[pair[0]] == labels[pair[1]], -pair[2], pair[:2]))


def _similarities(thumbnails: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the correlations of some photos with all, mirrored or not, and the number of the first of them."""
    tiny = np.stack(thumbnails).astype(np.float32)
    plain, mirrored = _normal(tiny), _normal(tiny[:, :, ::-1])
    for start in range(0, len(tiny), COMPARED_ROWS):
        rows = plain[start : start + COMPARED_ROWS]
        yield start, np.maximum(rows @ plain.T, rows @ mirrored.T)


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
    """Photos of both classes, and what was left out with the reason: `roadwork/a.jpg: the image can't be decoded`.

    `contradictory` are those left out because their very file lies in both classes.
    """

    photos: list[Photo]
    skipped: list[str]
    contradictory: list[Photo] = field(default_factory=list)

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


def read_photos(
    folder: Path,
    tell: Tell = lambda _done, _of: None,
    workers: int = 2,
    most: int | None = None,
    *,
    one_will_do: bool = False,
) -> LabelledPhotos:
    """Read the photos of both classes, in an order that depends on their contents alone.

    Args:
        folder: holds a folder for each class.
        tell: is told how many are done.
        workers: threads that decode.
        most: photos of a class; of more, so many from all over the folder are taken. None: all.
        one_will_do: whether one class is enough; the folder may then be that of the class itself.

    Raises:
        DetectorConfigError: a class has no folder, or no photo that can be decoded.
    """
    if not folder.is_dir():
        raise DetectorConfigError(f"{folder} is not a folder; one with the subfolders {_AND} is needed")
    kinds: Sequence[str] = CLASSES
    if one_will_do:
        there = [kind for kind in CLASSES if (folder / kind).is_dir()]
        if not there and folder.resolve().name in CLASSES:
            folder = folder.resolve()
            folder, there = folder.parent, [folder.name]
        if not there:
            raise DetectorConfigError(f"{folder} holds no folder {CLASSES[0]} or {CLASSES[1]}, and is not called so")
        kinds = there
    found_in = {kind: pictures_of(folder, kind) for kind in kinds}
    entries = [(folder, path, CLASSES.index(kind)) for kind in kinds for path in _some(found_in[kind][0], most)]
    photos, unread = _read_all(entries, tell, workers)
    skipped = [*(f"{kind}: {_in_words(others)}" for kind, (_, others) in found_in.items() if others), *unread]
    both = {photo.digest for photo in photos if photo.label} & {photo.digest for photo in photos if not photo.label}
    contradictory = [photo for photo in photos if photo.digest in both]
    skipped += [f"{photo.name}: the same file is in the other class" for photo in contradictory]
    kept = sorted((photo for photo in photos if photo.digest not in both), key=lambda p: (p.digest, p.path.name))
    for kind in () if one_will_do and kept else kinds:
        if not any(CLASSES[photo.label] == kind for photo in kept):
            faults = f" ({'; '.join(skipped[:3])})" if skipped else ""
            raise DetectorConfigError(
                f"{folder / kind} holds no photo that can be opened{faults}; both classes are needed, "
                f"as {', '.join(SUFFIXES)} files"
            )
    return LabelledPhotos(kept, skipped, contradictory)


def read_listed(
    folder: Path, labels: Mapping[Path, int], tell: Tell = lambda _done, _of: None, workers: int = 2
) -> LabelledPhotos:
    """Read some photos of a labelled folder, in an order that depends on their contents alone; none will do.

    Args:
        folder: that they lie in.
        labels: of each, by its path.
        tell: is told how many are done.
        workers: threads that decode.
    """
    photos, skipped = _read_all([(folder, path, label) for path, label in labels.items()], tell, workers)
    return LabelledPhotos(sorted(photos, key=lambda photo: photo.digest), skipped)


def _read_all(entries: Sequence[tuple[Path, Path, int]], tell: Tell, workers: int) -> tuple[list[Photo], list[str]]:
    """Return the photos that can be opened, and why others can't."""
    photos: list[Photo] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, found in enumerate(pool.map(_read, entries), 1):
            if isinstance(found, Photo):
                photos.append(found)
            else:
                skipped.append(found)
            tell(done, len(entries))
    return photos, skipped


def _some(paths: list[Path], most: int | None) -> list[Path]:
    if most is None or len(paths) <= most:
        return paths
    return [paths[number * len(paths) // most] for number in range(most)]


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
