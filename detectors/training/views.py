"""Changed views of a photo, as validators may send it; each follows from the seed, the photo and a number alone."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from detectors.photos.distortions import SIDE, SMALLEST, blurred, hidden, letterbox, noisy, recompressed, shrunk, tilted
from detectors.photos.image import decode
from detectors.photos.labelled import Photo
from detectors.training.config import Augment

VERSION = 2  # goes up with every change of what a view looks like: cached features depend on it
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
    """Draw the changes and make them, in the order in which they befall a photo: taken, squared, distorted, sent."""
    # One draw for each switch, always, so that a switch turned off leaves the others' draws as they are.
    drawn = dict(zip(type(augment).model_fields, random.random(len(type(augment).model_fields)), strict=True))
    happening = {name for name, value in drawn.items() if value < getattr(augment, name)}
    if "flip" in happening:
        picture = ImageOps.mirror(picture)
    if "upside_down" in happening:
        picture = ImageOps.flip(picture)
    if "rotate" in happening:
        picture = tilted(picture, random)
    if "crop" in happening:
        picture = _cropped(picture, random)
    if "light" in happening:
        for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = kind(picture).enhance(float(random.uniform(0.65, 1.4)))
    if "letterbox" in happening:
        picture = letterbox(picture)
    elif happening & {"shrink", "blocks", "noise", "blur"}:
        # Validators distort small pictures: at a camera's size, little of it would be left for the network to see.
        picture = ImageOps.contain(picture, (SIDE, SIDE))
    if "shrink" in happening:
        picture = shrunk(picture, random.uniform(1.0, 3.0))
    if "blocks" in happening:
        picture = hidden(picture, int(random.integers(8, 33)), random)
    if "noise" in happening:
        picture = noisy(picture, random.uniform(0.0002, 0.0025), random)
    if "blur" in happening:
        picture = blurred(picture, random.uniform(0.3, 1.5))
    if "jpeg" in happening:
        picture = recompressed(picture, int(random.integers(30, 96)))
    return picture


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    share, stretch = random.uniform(SMALLEST, 1.0), np.exp(random.uniform(-0.2, 0.2))
    width = max(1, int(min(1.0, np.sqrt(share) * stretch) * picture.width))
    height = max(1, int(min(1.0, np.sqrt(share) / stretch) * picture.height))
    left, top = int(random.integers(picture.width - width + 1)), int(random.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))
