"""Changed views of a photo, as validators may send it; each follows from the seed, the photo and a number alone."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from detectors.image import decode
from detectors.training.config import Augment
from detectors.training.folder import Photo
from detectors.training.starter_views import recompressed, squared

VERSION = 1  # goes up with every change of what a view looks like: cached features depend on it
LETTERBOX = 224  # pixels a side, of the validators' pictures
PLAIN = 0  # the number of the view that is the photo itself


@dataclass(frozen=True, slots=True)
class Views:
    """Every view of every photo; two of the same seed show the same."""

    augment: Augment
    seed: int

    def view(self, photo: Photo, number: int) -> Image.Image:
        """Return a view of a photo, RGB; number 0 is the photo as it is.

        Raises:
            ImageError: the file has changed since it was read first.
        """
        picture = decode(photo.path.read_bytes())
        if number == PLAIN:
            return picture
        return changed(picture, self.augment, np.random.default_rng((self.seed, int(photo.digest[:15], 16), number)))


def changed(picture: Image.Image, augment: Augment, random: np.random.Generator) -> Image.Image:
    """Draw the changes and make them, in the order in which they befall a photo: taken, squared, sent."""
    # One draw for each switch, always, so that a switch turned off leaves the others' draws as they are.
    drawn = dict(zip(type(augment).model_fields, random.random(len(type(augment).model_fields)), strict=True))

    def happens(name: str) -> bool:
        return bool(drawn[name] < getattr(augment, name))

    if happens("flip"):
        picture = ImageOps.mirror(picture)
    if happens("crop"):
        picture = _cropped(picture, random)
    if happens("light"):
        for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = kind(picture).enhance(float(random.uniform(0.65, 1.4)))
    if happens("letterbox"):
        picture = squared(picture, LETTERBOX, letterbox=True)
    if happens("blur"):
        picture = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(0.3, 1.5))))
    if happens("noise"):
        noise = random.standard_normal((picture.height, picture.width, 3), np.float32) * random.uniform(3, 15)
        picture = Image.fromarray(np.uint8((np.asarray(picture) + noise).clip(0, 255)))
    if happens("jpeg"):
        picture = recompressed(picture, int(random.integers(30, 96)))
    return picture


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    share, stretch = random.uniform(0.6, 1.0), np.exp(random.uniform(-0.2, 0.2))
    width = max(1, int(min(1.0, np.sqrt(share) * stretch) * picture.width))
    height = max(1, int(min(1.0, np.sqrt(share) / stretch) * picture.height))
    left, top = int(random.integers(picture.width - width + 1)), int(random.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))
