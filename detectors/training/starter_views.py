"""Augmented views of the photos, near to what validators send and far from what this small data set happens to hold."""

import io

import numpy as np
from PIL import Image, ImageFilter, ImageOps, ImageStat

from detectors.training.starter_data import BILINEAR, Photo

SMALLEST = 0.15  # share of a photo that a crop keeps, at least
KEPT = 0.6  # of what is orange, in a crop of a photo with cones
TURN = 0.15  # of photos without cones, all hues turned: red houses and orange leaves are rare in the data set


def squared(picture: Image.Image, size: int, letterbox: bool) -> Image.Image:
    """Make a square of `size` pixels: squeezed, as the published preprocessing does, or whole between black bars."""
    if letterbox:
        return ImageOps.pad(picture, (size, size), BILINEAR, color=(0, 0, 0))
    return picture.resize((size, size), BILINEAR)


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture as a JPEG of this quality shows it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def training_view(photo: Photo, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw a view of a photo, a square of `size` pixels."""
    picture = _cropped(photo, rng)
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if rng.random() < 0.2:
        picture = picture.rotate(rng.uniform(-8, 8), BILINEAR)
    if rng.random() < 0.3:  # a small copy, made by someone before it was sent
        small = rng.uniform(0.3, 0.8)
        picture = picture.resize((max(32, int(picture.width * small)), max(32, int(picture.height * small))), BILINEAR)
    picture = squared(picture, size, letterbox=rng.random() < 0.5)
    if not photo.label and rng.random() < TURN:
        picture = _turned(picture, int(rng.integers(256)))
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    picture = _recoloured(picture, rng)
    if rng.random() < 0.4:
        picture = recompressed(picture, int(rng.integers(30, 96)))
    if rng.random() < 0.2:  # something hides a part
        width, height = (int(side) for side in rng.integers(size // 12, size // 5, 2))
        left, top = int(rng.integers(size - width)), int(rng.integers(size - height))
        grey = int(rng.integers(256))
        picture.paste((grey, grey, grey), (left, top, left + width, top + height))
    return picture


def _cropped(photo: Photo, rng: np.random.Generator) -> Image.Image:
    """Crop at random; with cones, only where most of what is orange stays in."""
    full = photo.picture
    if rng.random() < 0.3:
        return full
    for _ in range(6):
        share = np.exp(rng.uniform(np.log(SMALLEST), 0))
        stretch = np.exp(rng.uniform(-0.35, 0.35))
        width = int(min(1.0, np.sqrt(share) * stretch) * full.width)
        height = int(min(1.0, np.sqrt(share) / stretch) * full.height)
        left, top = int(rng.integers(full.width - width + 1)), int(rng.integers(full.height - height + 1))
        orange = photo.orange[top : top + height, left : left + width]
        if not photo.label or orange.sum() >= KEPT * photo.orange.sum():
            return full.crop((left, top, left + width, top + height))
    return full


def _turned(picture: Image.Image, angle: int) -> Image.Image:
    """Turn every hue by an angle; 256 is the full circle."""
    hue, strength, value = picture.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda old: (old + angle) % 256), strength, value)).convert("RGB")


def _recoloured(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and white balance and add noise; an orange stays an orange."""
    if rng.random() < 0.8:
        strength, contrast, light = rng.uniform((0.6, 0.65, 0.6), (1.35, 1.35, 1.4))
        channels = rng.uniform(0.88, 1.12, (3, 1))
        mixture = channels * contrast * (strength * np.eye(3) + (1 - strength) / 3)
        offset = channels * float(np.mean(ImageStat.Stat(picture).mean)) * (light - contrast)
        picture = picture.convert("RGB", tuple(np.hstack([mixture, offset]).ravel().tolist()))
    if rng.random() < 0.2:
        noise = rng.standard_normal((picture.height, picture.width, 3), np.float32) * rng.uniform(3, 15)
        picture = Image.fromarray(np.uint8((np.asarray(picture) + noise).clip(0, 255)))
    return picture
