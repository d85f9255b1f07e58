"""The photos that the starter detector trains on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

CLASSES = ("no_roadwork", "roadwork")  # folders, in the order of the labels
SUFFIXES = (".jpg", ".jpeg", ".png")
LONGEST = 448  # pixels; more would only slow the augmentation down
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo with its label (1 = roadwork) and its pixels in the colour of a cone, shape (height, width)."""

    name: str
    picture: Image.Image
    label: int
    orange: NDArray[np.bool_]


def load(folder: Path) -> list[Photo]:
    """Read the photos of both classes, sorted by name so that a seed means the same on every machine."""
    photos = []
    for label, kind in enumerate(CLASSES):
        for path in sorted(path for path in (folder / kind).iterdir() if path.suffix.lower() in SUFFIXES):
            picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            picture.thumbnail((LONGEST, LONGEST), BILINEAR)
            hue, strength, value = np.asarray(picture.convert("HSV")).transpose(2, 0, 1)
            orange = ((hue <= 27) | (hue >= 244)) & (strength >= 135) & (value >= 110)
            photos.append(Photo(f"{kind}/{path.name}", picture, label, orange))
    return photos


def groups(photos: Sequence[Photo], alike: float = 0.88) -> list[int]:
    """Number the groups of near-identical photos: thumbnails, mirrored or not, that correlate by more than `alike`."""
    tiny = np.stack([np.asarray(photo.picture.resize((24, 24), BILINEAR), dtype=np.float64) for photo in photos])

    def normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = values.reshape(len(values), -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-9))

    likeness = np.maximum(normal(tiny) @ normal(tiny).T, normal(tiny) @ normal(tiny[:, :, ::-1]).T)
    group = list(range(len(photos)))
    for one, other in zip(*np.nonzero(np.triu(likeness > alike, 1)), strict=True):
        keep, drop = group[one], group[other]
        group = [keep if number == drop else number for number in group]
    return group


def folds(photos: Sequence[Photo], count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the photos held out in each fold; near-identical ones stay together, and the classes stay balanced."""
    group, labels = np.array(groups(photos)), np.array([photo.label for photo in photos])
    rng, fold = np.random.default_rng(seed), np.full(len(photos), -1)
    for number in rng.permutation(np.unique(group)):
        members = group == number
        label = labels[members][0]
        sizes = [int(((fold == candidate) & (labels == label)).sum()) for candidate in range(count)]
        fold[members] = int(np.argmin(sizes))
    for number in range(count):
        yield np.flatnonzero(fold == number)
