"""Augmented views of the photos, near to what validators send and far from what this small data set happens to hold."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from detectors.training.starter_data import BILINEAR, CELL, Mask, Photo

ERASE = 0.15  # of roadwork photos, shown without their cones: the place alone must say nothing
PASTE = 0.20  # of other photos, given cones cut from roadwork photos: cones on roads are rare in the data set
DECOY = 0.20  # of other photos, given cones' outlines or cones' colours: neither alone is a cone
TURN = 0.15  # of photos that show no cone, all hues turned: red houses and orange leaves are rare in the data set


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


def training_view(photos: Sequence[Photo], index: int, size: int, rng: np.random.Generator) -> tuple[Image.Image, int]:
    """Draw a view of a photo, a square of `size` pixels, and its label, which a moved cone may have changed."""
    photo, dice = photos[index], rng.random()
    picture, label = photo.picture, photo.label
    if label and photo.erased is not None and dice < ERASE:
        picture, label = photo.erased, 0
    picture = _cropped(picture, photo.orange if label else None, rng)
    if not photo.label and dice < PASTE + DECOY:
        label = int(dice < PASTE)
        picture = _pasted(picture, photos, rng, decoy=not label)
    elif not label and rng.random() < TURN:
        picture = _turned(picture, int(rng.integers(256)))
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if rng.random() < 0.2:
        picture = picture.rotate(rng.uniform(-8, 8), BILINEAR)
    if rng.random() < 0.3:  # a small copy, made by someone before it was sent
        small = rng.uniform(0.3, 0.8)
        picture = picture.resize((max(32, int(picture.width * small)), max(32, int(picture.height * small))), BILINEAR)
    picture = squared(picture, size, letterbox=rng.random() < 0.5)
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    picture = _recoloured(picture, rng)
    if rng.random() < 0.4:
        picture = recompressed(picture, int(rng.integers(30, 96)))
    if rng.random() < 0.2:  # something hides a part
        width, height = (int(side) for side in rng.integers(size // 12, size // 5, 2))
        left, top = int(rng.integers(size - width)), int(rng.integers(size - height))
        picture.paste(_colour(rng), (left, top, left + width, top + height))
    return picture, label


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    grey, tint = rng.uniform(0, 255), rng.uniform(-30, 30)  # never the orange of a cone
    return int(max(0, grey - tint)), int(grey), int(min(255, max(0, grey + tint)))


def _cropped(picture: Image.Image, orange: Mask | None, rng: np.random.Generator) -> Image.Image:
    """Crop at random; with a mask, only where most of what is orange stays in."""
    if rng.random() < 0.3:
        return picture
    for _ in range(6):
        share, stretch = np.exp(rng.uniform(np.log(0.15), 0)), np.exp(rng.uniform(-0.35, 0.35))
        width = int(min(1.0, np.sqrt(share) * stretch) * picture.width)
        height = int(min(1.0, np.sqrt(share) / stretch) * picture.height)
        left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
        if orange is not None:
            kept = orange[top // CELL : (top + height) // CELL, left // CELL : (left + width) // CELL].sum()
            if kept < 0.6 * orange.sum():
                continue
        return picture.crop((left, top, left + width, top + height))
    return picture


def _turned(picture: Image.Image, angle: int) -> Image.Image:
    """Turn every hue by an angle; 256 is the full circle."""
    hue, strength, value = picture.convert("RGB").convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda old: (old + angle) % 256), strength, value)).convert("RGB")


def _decoy(cone: Image.Image, photos: Sequence[Photo], rng: np.random.Generator) -> Image.Image:
    """Make what is not a cone of one: with another texture, in another colour, or in another shape."""
    kind = rng.random()
    if kind < 0.3:
        decoy = _turned(cone, int(rng.integers(50, 190)))
    else:
        plain = [photo for photo in photos if not photo.label]
        decoy = ImageOps.fit(plain[int(rng.integers(len(plain)))].picture, cone.size, BILINEAR)
    if kind < 0.5:
        decoy.putalpha(cone.getchannel("A"))
        return decoy
    value = decoy.convert("L").point(lambda old: 100 + old * 6 // 10)  # a box or a blob, orange all over
    hue, strength = Image.new("L", decoy.size, int(rng.integers(256 - 8, 256 + 26)) % 256), int(rng.integers(140, 240))
    decoy = Image.merge("HSV", (hue, Image.new("L", decoy.size, strength), value)).convert("RGB")
    shape = Image.new("L", decoy.size, 255)
    if rng.random() < 0.5:
        shape = Image.new("L", decoy.size, 0)
        ImageDraw.Draw(shape).ellipse((0, 0, decoy.width - 1, decoy.height - 1), fill=255)
    decoy.putalpha(shape)
    stretch = np.exp(rng.uniform(-0.8, 0.8))
    return decoy.resize((max(4, int(decoy.width * stretch)), max(4, int(decoy.height / stretch))), BILINEAR)


def _pasted(picture: Image.Image, photos: Sequence[Photo], rng: np.random.Generator, decoy: bool) -> Image.Image:
    """Put one to four cut-out cones on a road, all alike; or as many decoys."""
    picture = picture.copy()
    donors = [photo for photo in photos if photo.cones]
    donor = donors[int(rng.integers(len(donors)))]
    cone = donor.cones[int(rng.integers(len(donor.cones)))]
    if decoy:
        cone = _decoy(cone, photos, rng)
    tallest = float(np.exp(rng.uniform(np.log(0.12), np.log(0.6))))  # of the picture's height
    for _ in range(int(rng.integers(1, 5))):
        height = max(8, int(picture.height * tallest * rng.uniform(0.7, 1)))
        width = max(4, int(cone.width * height / cone.height))
        one = cone.resize((width, height), BILINEAR)
        if rng.random() < 0.5:
            one = ImageOps.mirror(one)
        left = int(rng.integers(max(1, picture.width - width)))
        foot = int(picture.height * rng.uniform(0.4, 1.0))
        picture.paste(one, (left, foot - height), one)
    return picture


def _recoloured(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and white balance and add noise; an orange stays an orange."""
    pixels = np.asarray(picture, dtype=np.float32) / 255
    if rng.random() < 0.8:
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * rng.uniform(0.6, 1.35)
        pixels = (pixels - pixels.mean()) * rng.uniform(0.65, 1.35) + pixels.mean() * rng.uniform(0.6, 1.4)
        pixels = pixels * rng.uniform(0.88, 1.12, 3).astype(np.float32)
    if rng.random() < 0.2:
        pixels = pixels + rng.normal(0, rng.uniform(0.01, 0.06), pixels.shape)
    return Image.fromarray(np.uint8(pixels.clip(0, 1) * 255))
