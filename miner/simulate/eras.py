"""How validators prepare photos, by era; the augmented one has the levels of StreetVision's older validators."""

import io
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Era = Literal["letterbox", "native", "augmented"]
ERAS: tuple[Era, ...] = get_args(Era)
SIDE = 224  # pixels
QUALITY = 75  # of Pillow's JPEG where nothing else is said, as in the validators
BILINEAR = Image.Resampling.BILINEAR
LEVELS = 4  # 0: the middle, cut out; 1: other crops, flips, rotation; 2 and 3: distorted too, up to that step

# What each distortion's steps mean, least first.
SATURATION, CONTRAST, SHRINK = (0.4, 0.3), (0.85, 0.725), (2, 3)
BLOCKS, NOISE, BLUR = (16, 32), (0.001, 0.002), (7, 9)


def prepare(photo: bytes, era: Era, random: np.random.Generator) -> bytes:
    """Return the JPEG that a validator of the era sends of an encoded photo.

    Raises:
        OSError: the bytes are not a picture.
    """
    picture = Image.open(io.BytesIO(photo)).convert("RGB")
    if era == "letterbox":
        picture = ImageOps.pad(picture, (SIDE, SIDE), BILINEAR, color=(0, 0, 0))
    elif era == "augmented":
        picture = augmented(picture, int(random.integers(LEVELS)), random)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def augmented(picture: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    """Return a square of 224 pixels: the picture at an augmentation level from 0 to 3."""
    if level == 0:
        return ImageOps.fit(picture, (SIDE, SIDE), BILINEAR)
    picture = _cropped(picture.rotate(random.uniform(-20, 20)), random)
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
    side = min(int(np.sqrt(random.uniform(0.2, 1.0) * width * height)), width, height)
    left, top = int(random.integers(width - side + 1)), int(random.integers(height - side + 1))
    return picture.resize((SIDE, SIDE), BILINEAR, box=(left, top, left + side, top + side))


def _saturation(picture: Image.Image, step: int, random: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(picture).enhance(SATURATION[step])


def _contrast(picture: Image.Image, step: int, random: np.random.Generator) -> Image.Image:
    return picture.point(lambda value: value * CONTRAST[step])  # darker too: that is how the validators had it


def _shrink(picture: Image.Image, step: int, random: np.random.Generator) -> Image.Image:
    """What the validators call JPEG: half the pixels or fewer, and back."""
    small = picture.resize((picture.width // SHRINK[step], picture.height // SHRINK[step]), BILINEAR)
    return small.resize(picture.size, BILINEAR)


def _blocks(picture: Image.Image, step: int, random: np.random.Generator) -> Image.Image:
    for left, top in random.integers(0, SIDE - 8, (BLOCKS[step], 2)):
        picture.paste((128, 128, 128), (left, top, left + 8, top + 8))
    return picture


def _noise(picture: Image.Image, step: int, random: np.random.Generator) -> Image.Image:
    """Gaussian noise of that variance, of values from 0 to 1, on lightness and colour."""
    pixels = np.asarray(picture.convert("YCbCr"), dtype=np.float32)
    noisy = pixels + 255 * np.sqrt(NOISE[step]) * random.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8), "YCbCr").convert("RGB")


def _blur(picture: Image.Image, step: int, random: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(BLUR[step] / 6))


Distort = Callable[[Image.Image, int, np.random.Generator], Image.Image]
_MILD: tuple[Distort, ...] = (_saturation, _contrast, _shrink)
DISTORTIONS: tuple[tuple[Distort, ...], ...] = ((), (), _MILD, (*_MILD, _blocks, _noise, _blur))
