"""The pictures of a bench: an operator's own, or made ones of two sizes, as files that the workers read."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from detectors.photos.labelled import SUFFIXES, openable
from detectors.photos.synthetic import scene
from miner.errors import ConfigurationError

SIZES = ((224, 224), (1920, 1080))
MOST = 64  # of an operator's photos; each is read into every worker
QUALITY = 90


@dataclass(frozen=True, slots=True)
class Pictures:
    """Files, what each is counted as, and which could not be opened and why."""

    paths: list[Path]
    kinds: list[str]
    left_out: list[str] = field(default_factory=list)


def made_pictures(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> Pictures:
    """Write a JPEG of each size into `folder`."""
    paths = []
    for width, height in sizes:
        path = folder / f"{width}x{height}.jpg"
        path.write_bytes(made_jpeg(width, height))
        paths.append(path)
    return Pictures(paths, [f"{width}×{height}" for width, height in sizes])


def made_jpeg(width: int, height: int) -> bytes:
    """Return an encoded street-like picture; 320×240 is about 20 kB."""
    buffer = io.BytesIO()
    Image.fromarray(scene(width, height, seed=3)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def own_pictures(folder: Path, most: int | None = MOST) -> Pictures:
    """Find an operator's photos, labelled or not; None: all of them.

    Raises:
        ConfigurationError: there are none that can be opened.
    """
    found = list(islice(openable(folder), most))
    paths = [one.resolve() for one in found if isinstance(one, Path)]
    left_out = [one for one in found if isinstance(one, str)]
    if not paths:
        faults = f" that can be opened ({'; '.join(left_out[:3])})" if left_out else ""
        raise ConfigurationError(f"--pictures={folder}: no {', '.join(SUFFIXES)} file in that folder{faults}")
    return Pictures(paths, ["photo"] * len(paths), left_out)
