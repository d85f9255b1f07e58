"""What befalls a photo before it reaches a miner; every change is a function of the picture and of its strength."""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

SIDE = 224  # pixels of the square that validators made of photos
GREY, BLOCK = (128, 128, 128), 8  # of the blocks that hide something, and their pixels a side
TILT = 20.0  # degrees, either way
SMALLEST = 0.2  # of its area that a crop leaves of a photo
BILINEAR = Image.Resampling.BILINEAR


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
    """Turn by up to `TILT`; the corners that come into view are black."""
    return picture.rotate(random.uniform(-TILT, TILT))


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
