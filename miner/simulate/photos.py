"""Labelled photos: an operator's folder, or made ones where there is none."""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from detectors.pictures import scene
from miner.errors import ConfigurationError

KINDS = (".jpeg", ".jpg", ".png", ".webp")
CLASSES = {"roadwork": True, "no_roadwork": False}
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


def labelled_photos(folder: Path) -> list[Photo]:
    """Find the photos in the subfolders `roadwork` and `no_roadwork`, sorted, so that a seed means the same everywhere.

    Raises:
        ConfigurationError: one of the two classes has none.
    """
    photos = [
        Photo(path.relative_to(folder).as_posix(), CLASSES[path.parent.name], path)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in KINDS and path.parent.name in CLASSES
    ]
    for name, label in CLASSES.items():
        if not any(photo.is_roadwork is label for photo in photos):
            raise ConfigurationError(f"--data={folder}: no {', '.join(KINDS)} file in a subfolder {name!r}")
    return photos


def made_photos() -> list[Photo]:
    """Return pictures made by arithmetic: good for times, and no measure of a model that knows real roads."""
    return [Photo(str(seed), is_roadwork=seed % 5 > 0) for seed in range(MADE)]  # with cones, but every fifth
