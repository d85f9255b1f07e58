"""The photos that the starter detector trains on, and the cones in them.

The data set says which photos have a cone and not where. Cones are orange and wider at the foot, so most can be found
by colour and shape; that lets the training move a cone to another road, and show the same place without its cone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

CLASSES = ("no_roadwork", "roadwork")  # folders, in the order of the labels
SUFFIXES = (".jpg", ".jpeg", ".png")
LONGEST = 448  # pixels; more would only slow the augmentation down
CELL = 4  # pixels of a photo, in both directions, to one cell of its mask
BILINEAR, BOX = Image.Resampling.BILINEAR, Image.Resampling.BOX
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo with its label (1 = roadwork), its orange cells, its cones cut out (RGBA), and itself without them."""

    name: str
    picture: Image.Image
    label: int
    orange: Mask
    cones: tuple[Image.Image, ...] = ()
    erased: Image.Image | None = None


def load(folder: Path) -> list[Photo]:
    """Read the photos of both classes, sorted by name so that a seed means the same on every machine."""
    photos = []
    for label, kind in enumerate(CLASSES):
        for path in sorted(path for path in (folder / kind).iterdir() if path.suffix.lower() in SUFFIXES):
            picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            picture.thumbnail((LONGEST, LONGEST), BILINEAR)
            pixels = _orange(picture)
            cells = _closed(pixels)
            cones = tuple(_cones(picture, pixels, cells)) if label else ()
            erased = _erase(picture, cells) if label else None
            photos.append(Photo(f"{kind}/{path.name}", picture, label, cells, cones, erased))
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


def _orange(picture: Image.Image) -> Mask:
    """Mark the pixels with the colour of a cone: red to orange, strong and not dark; shape (height, width)."""
    hue, strength, value = np.asarray(picture.convert("HSV")).transpose(2, 0, 1)
    return np.asarray(((hue <= 27) | (hue >= 244)) & (strength >= 135) & (value >= 110))


def _closed(pixels: Mask) -> Mask:
    """Bring orange pixels to cells, and close the gaps that white bands leave between orange ones above and below."""
    height, width = pixels.shape
    cells = Image.fromarray(pixels.astype(np.uint8) * 255).resize((width // CELL, height // CELL), BOX)
    mask = np.asarray(cells.point(lambda value: 255 if value > 90 else 0).filter(ImageFilter.MaxFilter(3))) > 0
    band = max(2, len(mask) // 9)  # cells
    closed = mask.copy()
    for row in range(len(mask)):
        closed[row] |= mask[max(0, row - band) : row].any(axis=0) & mask[row + 1 : row + 1 + band].any(axis=0)
    return closed


def _components(mask: Mask) -> list[NDArray[np.int64]]:
    """List the connected parts of a mask, each as its cells' (row, column), shape (cells, 2)."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    parts = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        part, stack = [], [start]
        while stack:
            row, column = stack.pop()
            part.append((row, column))
            for beside in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if beside in left:
                    left.discard(beside)
                    stack.append(beside)
        parts.append(np.array(part))
    return parts


def _cones(picture: Image.Image, pixels: Mask, cells: Mask) -> list[Image.Image]:
    """Cut out what is orange, taller than wide, and wider from the top to the foot."""
    cones = []
    for part in _components(cells):
        (top, left), (bottom, right) = part.min(axis=0), part.max(axis=0) + 1
        height, width = int(bottom - top), int(right - left)
        if height < 9 or width < 4 or not 0.9 <= height / width <= 3.2:
            continue
        if top == 0 or left == 0 or right >= cells.shape[1] - 1:
            continue  # cut by the edge
        first, last = np.full(height, width), np.zeros(height, dtype=int)
        np.minimum.at(first, part[:, 0] - top, part[:, 1] - left)
        np.maximum.at(last, part[:, 0] - top, part[:, 1] - left + 1)
        upper, middle, lower = (float(third.mean()) for third in np.array_split(last - first, 3))
        if not (lower > 1.5 * upper and lower > middle > upper):
            continue
        across = np.arange(width)
        filled = (across >= first[:, None]) & (across < last[:, None])
        box = (int(left) * CELL, int(top) * CELL, int(right) * CELL, int(bottom) * CELL)
        inside = np.kron(filled, np.ones((CELL, CELL))) > 0
        if pixels[box[1] : box[3], box[0] : box[2]][inside].mean() < 0.35 or not 0.4 <= filled.mean() <= 0.85:
            continue
        alpha = Image.fromarray(filled.astype(np.uint8) * 255).resize((width * CELL, height * CELL), BILINEAR)
        cone = picture.crop(box)
        cone.putalpha(alpha.point(lambda value: max(0, min(255, (value - 100) * 5))))
        cones.append(cone)
    return cones


def _erase(picture: Image.Image, cells: Mask) -> Image.Image | None:
    """Fill what is orange from around it; None where there is too little or too much of it to be sure."""
    if not 0.01 <= cells.mean() <= 0.35:
        return None
    grown = Image.fromarray(cells.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(5))
    hole = grown.resize(picture.size, BILINEAR).point(lambda value: 255 if value > 20 else 0)
    known = 1.0 - np.asarray(hole, dtype=np.float64) / 255
    pixels = np.asarray(picture, dtype=np.float64)
    result, missing = pixels.copy(), known == 0
    for radius in (4, 8, 16, 32, 64, 128):  # the nearest surroundings that reach a pixel fill it
        blur = ImageFilter.BoxBlur(radius)
        weight = np.asarray(Image.fromarray(np.uint8(known * 255)).filter(blur), dtype=np.float64)
        blurred = Image.fromarray(np.uint8(pixels * known[..., None])).filter(blur)
        reached = missing & (weight > 25)
        result[reached] = np.asarray(blurred, dtype=np.float64)[reached] * 255 / weight[reached][:, None]
        missing &= ~reached
    if missing.any():
        return None
    soft = Image.fromarray(np.uint8(result.clip(0, 255))).filter(ImageFilter.GaussianBlur(1.5))
    return Image.composite(soft, picture, hole.filter(ImageFilter.GaussianBlur(1)))
