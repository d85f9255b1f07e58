"""Folders of labelled photos made for tests: patches of colour, with an orange cone where there are works."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from detectors.photos.labelled import CLASSES


def patches(seed: int, *, cone: bool, width: int = 96, height: int = 72) -> Image.Image:
    """Return a picture like no other one of another seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 200, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    if cone:
        left, top = int(random.integers(width // 3)), int(random.integers(height // 3))
        corners = [(left, top + height // 2), (left + width // 4, top), (left + width // 2, top + height // 2)]
        ImageDraw.Draw(picture).polygon(corners, fill=(250, 110, 10))
    return picture


def fill(folder: Path, count: int = 10, *, first_seed: int = 0) -> Path:
    """Write so many photos of each class, no two alike."""
    for label, kind in enumerate(CLASSES):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            seed = first_seed + 2 * number + label
            patches(seed, cone=bool(label)).save(folder / kind / f"{number}.jpg", quality=92)
    return folder
