"""Labelled photos: an operator's folder, or made ones where there is none."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from detectors.photos.labelled import Photos
from detectors.photos.synthetic import scene

MADE = 40
SIZE = (640, 360)  # pixels, of the made ones


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo and whether it shows roadwork; made ones have no file."""

    name: str
    is_roadwork: bool
    path: Path | None = None

    def read(self) -> bytes:
        """Return the encoded photo.

        Raises:
            OSError: it can't be read.
        """
        if self.path is not None:
            return self.path.read_bytes()
        buffer = io.BytesIO()
        Image.fromarray(scene(*SIZE, seed=int(self.name))).save(buffer, "PNG")
        return buffer.getvalue()


def labelled_photos(found: Photos) -> list[Photo]:
    """Return what was read of a labelled folder, in its order, so that a seed means the same wherever the folder is."""
    return [Photo(one.name, is_roadwork=one.label == 1, path=one.path) for one in found.photos]


def made_photos() -> list[Photo]:
    """Return pictures made by arithmetic: good for times, and no measure of a model that knows real roads."""
    return [Photo(str(seed), is_roadwork=seed % 5 > 0) for seed in range(MADE)]  # with cones, but every fifth
