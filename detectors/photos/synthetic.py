"""Synthetic pictures: the known picture of the self-test, and a set for the parity check.

They are drawn by arithmetic, so that every machine has the same ones.
"""

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KNOWN_PICTURE_FILE = Path(__file__).with_name("known.png")
SIZES = ((224, 224), (640, 360), (360, 640), (1280, 720), (300, 227), (96, 96), (1920, 1080), (500, 375))


def scene(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return a street-like picture, shape (height, width, 3): sky, road, orange cones, coarse and fine noise.

    Integer arithmetic and PCG64 only, so that every machine makes the same bytes.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    rows = np.arange(height).reshape(-1, 1)
    columns = np.arange(width).reshape(1, -1)
    horizon = height * (40 + seed % 20) // 100
    sky = np.stack([90 + rows * 100 // height + columns * 0, 140 + rows * 60 // height + columns * 0,
                    200 + columns * 40 // width + rows * 0], axis=-1)  # fmt: skip
    road = np.stack([70 + (rows - horizon) * 60 // height + columns * 0] * 3, axis=-1)
    picture = np.where((rows < horizon)[..., np.newaxis], sky, road)
    for _ in range(seed % 5):
        base, top = int(random.integers(horizon, height)), int(random.integers(4, max(5, height // 4)))
        middle = int(random.integers(0, width))
        inside = (rows <= base) & (rows > base - top) & (abs(columns - middle) * 3 <= rows - base + top)
        picture[inside] = (235, 95, 20)
    blocks = random.integers(-30, 31, (height // 16 + 1, width // 16 + 1, 3)).repeat(16, 0).repeat(16, 1)
    noise = random.integers(-12, 13, (height, width, 3))
    picture = np.clip(picture + blocks[:height, :width] + noise, 0, 255)
    return np.asarray(picture, dtype=np.uint8)


@cache
def known_picture() -> bytes:
    """Return the picture of the self-test, `scene(320, 240, seed=3)` as a PNG, which no decoder rounds.

    It comes from a file since a start has no time to make it; once, or a process without a file descriptor left would
    fail its self-test.
    """
    return KNOWN_PICTURE_FILE.read_bytes()


@cache
def parity_pictures() -> tuple[bytes, ...]:
    """Return JPEGs of various sizes and shapes for comparing two implementations of a model; once, they take a second.

    An export with its faster variants asks several times.
    """
    return tuple(_encode(scene(width, height, seed), "JPEG") for seed, (width, height) in enumerate(SIZES, start=1))


def many_pictures(count: int = 64) -> list[bytes]:
    """Return JPEGs of one size and many scenes, for calibrating and judging a faster graph without photos."""
    return [_encode(scene(320, 240, seed), "JPEG") for seed in range(100, 100 + count)]


def drawn_pairs(count: int = 6) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield smooth roads of shape (240, 320, 3), each as it is and with three striped cones on it.

    Unlike `scene`, whose coarse noise hides its cones: the starter says 0.04 of these roads and 0.98 of the cones.
    """
    for seed in range(count):
        road, horizon = _road(320, 240, seed)
        works = road.copy()
        for number in range(3):
            base = horizon + 60 + (seed * 37 + number * 43) % (240 - horizon - 60)
            _draw_cone(works, base, 40 + (seed * 61 + number * 97) % 240, (base - horizon) * 7 // 10)
        yield road, works


def _road(width: int, height: int, seed: int) -> tuple[NDArray[np.uint8], int]:
    """Draw sky, grey road and green verges with fine noise; return them and the row of the horizon."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.arange(height).reshape(-1, 1), np.arange(width).reshape(1, -1)
    horizon = height * (40 + 7 * seed % 20) // 100
    sky = np.stack(
        [start + rows * gain // height + columns * 0 for start, gain in ((130, 60), (160, 50), (200, 20))], -1
    )
    road = np.stack([95 + 7 * seed % 30 + (rows - horizon) * 30 // height + columns * 0] * 3, -1)
    verge = np.array([80, 110, 60]) + random.integers(-10, 11, (height, width, 1))
    beside = abs(columns - width // 2) > (rows - horizon) * width // height + 10
    picture = np.where((rows < horizon)[..., np.newaxis], sky, np.where(beside[..., np.newaxis], verge, road))
    noise = random.integers(-8, 9, (height, width, 3))
    return np.asarray(np.clip(picture + noise, 0, 255), dtype=np.uint8), horizon


def _draw_cone(picture: NDArray[np.uint8], base: int, middle: int, size: int) -> None:
    rows = np.arange(picture.shape[0]).reshape(-1, 1)
    columns = np.arange(picture.shape[1]).reshape(1, -1)
    inside = (rows <= base) & (rows > base - size) & (abs(columns - middle) * 3 <= rows - base + size)
    picture[inside] = (235, 95, 20)
    picture[inside & (rows > base - size * 6 // 10) & (rows <= base - size * 35 // 100)] = (235, 235, 230)


def _encode(pixels: NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=90)
    return buffer.getvalue()
