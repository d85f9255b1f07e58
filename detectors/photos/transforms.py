"""The validators' transforms of photos, by era, with the levels of StreetVision's older validators.

Whoever trains or judges a model needs photos as validators send them.
"""

import io
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

SIDE = 224  # pixels of the square that validators made of photos
GREY, BLOCK = (128, 128, 128), 8  # of the blocks that hide something, and their pixels a side
MAX_ROTATION = 20.0  # degrees, either way
MIN_CROP_SHARE = 0.2  # of its area that a crop leaves of a photo
BILINEAR = Image.Resampling.BILINEAR

Era = Literal["letterbox", "native", "augmented"]
ERAS: tuple[Era, ...] = get_args(Era)
QUALITY = 75  # of Pillow's JPEG where nothing else is said, as in the validators
LEVELS = 4  # 0: the middle, cut out; 1: other crops, flips, rotation; 2 and 3: distorted too, up to that step
# What each distortion's steps mean, least first.
SATURATION, CONTRAST, SHRINK = (0.4, 0.3), (0.85, 0.725), (2, 3)
BLOCKS, NOISE, BLUR = (16, 32), (0.001, 0.002), (7 / 6, 9 / 6)
Distort = Callable[[Image.Image, int, np.random.Generator], Image.Image]
Change = Literal["jpeg", "blur", "noise", "together"]
View = Era | Change
CHANGES: tuple[Change, ...] = get_args(Change)  # each of a letterboxed photo
VIEWS: tuple[View, ...] = (*ERAS, *CHANGES)
MIN_JPEG_QUALITY = 30  # quality of a JPEG that still occurs


def letterbox(picture: Image.Image) -> Image.Image:
    """Return the whole picture in the square, between black bars."""
    return ImageOps.pad(picture, (SIDE, SIDE), BILINEAR, color=(0, 0, 0))


def encoded(picture: Image.Image, quality: int) -> bytes:
    """Return a JPEG of this quality, as Pillow makes it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture as a JPEG of this quality shows it."""
    return Image.open(io.BytesIO(encoded(picture, quality))).convert("RGB")


def tilted(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Turn by up to `MAX_ROTATION`; the corners that come into view are black."""
    return picture.rotate(random.uniform(-MAX_ROTATION, MAX_ROTATION))


def desaturated(picture: Image.Image, share: float) -> Image.Image:
    """Leave this share of the colour."""
    return ImageEnhance.Color(picture).enhance(share)


def darkened(picture: Image.Image, share: float) -> Image.Image:
    """Leave this share of every value: the validators call it contrast."""
    return picture.point(lambda value: value * share)


def shrunk(picture: Image.Image, times: float) -> Image.Image:
    """Leave one pixel of so many a side, and enlarge it again: the validators call it JPEG."""
    small = picture.resize((max(1, int(picture.width / times)), max(1, int(picture.height / times))), BILINEAR)
    return small.resize(picture.size, BILINEAR)


def hidden(picture: Image.Image, count: int, random: np.random.Generator) -> Image.Image:
    """Put so many grey blocks anywhere."""
    picture = picture.copy()
    space = (max(1, picture.width - BLOCK), max(1, picture.height - BLOCK))
    for left, top in random.integers(0, space, (count, 2)):
        picture.paste(GREY, (left, top, left + BLOCK, top + BLOCK))
    return picture


def noisy(picture: Image.Image, variance: float, random: np.random.Generator) -> Image.Image:
    """Add Gaussian noise of that variance, of values from 0 to 1, on lightness and colour."""
    pixels = np.asarray(picture.convert("YCbCr"), dtype=np.float32)
    values = pixels + 255 * np.sqrt(variance) * random.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8), "YCbCr").convert("RGB")


def blurred(picture: Image.Image, radius: float) -> Image.Image:
    """Blur by a Gaussian of that radius in pixels."""
    return picture.filter(ImageFilter.GaussianBlur(radius))


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
    side = min(int(np.sqrt(random.uniform(MIN_CROP_SHARE, 1.0) * width * height)), width, height)
    left, top = int(random.integers(width - side + 1)), int(random.integers(height - side + 1))
    return picture.resize((SIDE, SIDE), BILINEAR, box=(left, top, left + side, top + side))


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


def sent(photo: bytes, view: View, random: np.random.Generator) -> bytes:
    """Return the JPEG that a validator sends of an encoded photo: as its era prepares it, or with a change added.

    The strength of a change is drawn, from a little to the most that the augmented era has.

    Raises:
        OSError: the bytes are not a picture.
    """
    if view == "letterbox" or view == "native" or view == "augmented":
        return prepare(photo, view, random)
    picture, quality = letterbox(opened(photo)), QUALITY
    if view in ("blur", "together"):
        picture = blurred(picture, random.uniform(0.3, BLUR[-1]))
    if view in ("noise", "together"):
        picture = noisy(picture, random.uniform(NOISE[0] / 4, NOISE[-1]), random)
    if view in ("jpeg", "together"):
        quality = int(random.integers(MIN_JPEG_QUALITY, QUALITY))
    return encoded(picture, quality)
