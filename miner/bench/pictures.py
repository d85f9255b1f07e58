"""The pictures of a bench: an operator's own, or made ones of two sizes, as files that the workers read."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from detectors.pictures import scene
from miner.errors import ConfigurationError

SIZES = ((224, 224), (1920, 1080))
ENDINGS = (".jpeg", ".jpg", ".png", ".webp")
MOST = 64  # of an operator's photos; each is read into every worker
QUALITY = 90


@dataclass(frozen=True, slots=True)
class Pictures:
    """Files, and what each is counted as."""

    paths: list[Path]
    kinds: list[str]


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


def own_pictures(folder: Path) -> Pictures:
    """Find an operator's photos.

    Raises:
        ConfigurationError: there are none.
    """
    paths = sorted(path.resolve() for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)[:MOST]
    if not paths:
        raise ConfigurationError(f"--pictures={folder}: no {', '.join(ENDINGS)} file in that folder")
    return Pictures(paths, ["photo"] * len(paths))
