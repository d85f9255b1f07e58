"""How validators prepare photos, by era; the augmented one has the levels of StreetVision's older validators."""

import io
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from detectors.photos.distortions import (
    BILINEAR,
    SIDE,
    SMALLEST,
    blurred,
    darkened,
    desaturated,
    encoded,
    hidden,
    letterbox,
    noisy,
    shrunk,
    tilted,
)

Era = Literal["letterbox", "native", "augmented"]
ERAS: tuple[Era, ...] = get_args(Era)
QUALITY = 75  # of Pillow's JPEG where nothing else is said, as in the validators
LEVELS = 4  # 0: the middle, cut out; 1: other crops, flips, rotation; 2 and 3: distorted too, up to that step

# What each distortion's steps mean, least first.
SATURATION, CONTRAST, SHRINK = (0.4, 0.3), (0.85, 0.725), (2, 3)
BLOCKS, NOISE, BLUR = (16, 32), (0.001, 0.002), (7 / 6, 9 / 6)


def prepare(photo: bytes, era: Era, random: np.random.Generator) -> bytes:
    """Return the JPEG that a validator of the era sends of an encoded photo.

    Raises:
        OSError: the bytes are not a picture.
    """
    picture = opened(photo)
    if era == "letterbox":
        picture = letterbox(picture)
    elif era == "augmented":
        picture = augmented(picture, int(random.integers(LEVELS)), random)
    return encoded(picture, QUALITY)


def opened(photo: bytes) -> Image.Image:
    """Decode a photo as the validators do: without a look at its orientation."""
    return Image.open(io.BytesIO(photo)).convert("RGB")


def augmented(picture: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    """Return a square of 224 pixels: the picture at an augmentation level from 0 to 3."""
    if level == 0:
        return ImageOps.fit(picture, (SIDE, SIDE), BILINEAR)
    picture = _cropped(tilted(picture, random), random)
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if random.random() < 0.5:
        picture = ImageOps.flip(picture)
    for distort in DISTORTIONS[level]:
        step = int(random.integers(level))  # 0: left as it is
        if step:
            picture = distort(picture, step - 1, random)
    return picture


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut a square of a fifth to all of the area out, as far as it fits."""
    width, height = picture.size
    side = min(int(np.sqrt(random.uniform(SMALLEST, 1.0) * width * height)), width, height)
    left, top = int(random.integers(width - side + 1)), int(random.integers(height - side + 1))
    return picture.resize((SIDE, SIDE), BILINEAR, box=(left, top, left + side, top + side))


Distort = Callable[[Image.Image, int, np.random.Generator], Image.Image]
_MILD: tuple[Distort, ...] = (
    lambda picture, step, _: desaturated(picture, SATURATION[step]),
    lambda picture, step, _: darkened(picture, CONTRAST[step]),
    lambda picture, step, _: shrunk(picture, SHRINK[step]),
)
_STRONG: tuple[Distort, ...] = (
    lambda picture, step, random: hidden(picture, BLOCKS[step], random),
    lambda picture, step, random: noisy(picture, NOISE[step], random),
    lambda picture, step, _: blurred(picture, BLUR[step]),
)
DISTORTIONS: tuple[tuple[Distort, ...], ...] = ((), (), _MILD, (*_MILD, *_STRONG))
