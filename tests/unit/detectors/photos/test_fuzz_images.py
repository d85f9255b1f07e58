"""Whatever bytes come as a picture: a bounded RGB picture or an `ImageError`, and never anything else."""

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detectors.errors import ImageError
from detectors.photos.image import decode, memory_of
from detectors.photos.synthetic import scene
from tests.models import photo
from tests.mutations import Damage, damaged, damages

pytestmark = pytest.mark.fuzz

MAX_PIXELS = 5000


def seeds() -> Iterator[bytes]:
    """Return small pictures of every format, colour mode and orientation that is opened."""
    for mode in ("RGB", "L", "CMYK"):
        yield photo(40, 30, mode=mode)
    for orientation in range(2, 9):
        yield photo(24, 16, orientation=orientation)
    for mode in ("RGB", "RGBA", "P", "1", "L", "LA", "I;16"):
        picture = Image.fromarray(scene(24, 16, seed=1)).convert("RGBA" if mode == "LA" else mode)
        yield encoded(picture.convert("LA") if mode == "LA" else picture, "PNG")
    small = Image.fromarray(scene(24, 16, seed=1))
    yield encoded(small, "JPEG", progressive=True)
    yield encoded(small, "JPEG", comment=b"roadwork" * 20)
    yield encoded(small, "PNG", optimize=True)
    yield encoded(small.convert("P"), "PNG", transparency=b"\0" * 5)
    for options in ({"lossless": True}, {"quality": 30}):
        yield encoded(small, "WEBP", **options)
        yield encoded(small.convert("RGBA"), "WEBP", **options)
    yield encoded(small, "WEBP", save_all=True, append_images=[small.rotate(180)])  # an animation
    yield encoded(small, "PNG", save_all=True, append_images=[small.rotate(180)])
    for kind in ("JPEG", "PNG", "WEBP"):
        yield encoded(small, kind, exif=b"Exif\0\0MM\0*\0\0")  # cut in its header
        yield encoded(small, kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


SEEDS = list(seeds())


def look(data: bytes) -> None:
    memory = memory_of(data, MAX_PIXELS)
    try:
        picture = decode(data, MAX_PIXELS)
    except ImageError:
        return
    assert picture.mode == "RGB"
    assert 4 <= picture.width * picture.height <= MAX_PIXELS
    assert memory >= 4 * picture.width * picture.height  # it was asked for
    assert len(picture.tobytes()) == 3 * picture.width * picture.height


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_the_seeds_are_pictures(seed: int) -> None:
    assert decode(SEEDS[seed]).mode == "RGB"


@given(st.sampled_from(SEEDS), damages)
def test_a_damaged_picture(seed: bytes, changes: list[Damage]) -> None:
    look(damaged(seed, changes))


@given(st.sampled_from(SEEDS), st.sampled_from(SEEDS), st.floats(0, 1))
def test_the_head_of_one_and_the_tail_of_another(head: bytes, tail: bytes, place: float) -> None:
    look(head[: int(place * len(head))] + tail[int(place * len(tail)) :])


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8 "]), st.binary(max_size=200)
)
def test_noise_behind_a_signature(signature: bytes, noise: bytes) -> None:
    look(signature + noise)
