"""From bytes to a picture, and what is no picture."""

import contextlib
import io
import struct
import zlib

import pytest
from PIL import Image, ImageOps

from detectors.errors import ImageError
from detectors.image import decode
from tests.models import photo


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is and holds nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(photo(40, 30), id="JPEG"),
        pytest.param(photo(40, 30, mode="L"), id="grey"),
        pytest.param(photo(40, 30, mode="CMYK"), id="CMYK"),
        pytest.param(photo(40, 30, mode="RGBA", kind="PNG"), id="RGBA"),
        pytest.param(photo(40, 30, mode="P", kind="PNG"), id="palette"),
        pytest.param(photo(40, 30, mode="I;16", kind="PNG"), id="16 bits"),
        pytest.param(photo(40, 30, mode="1", kind="PNG"), id="1 bit"),
        pytest.param(photo(40, 30, kind="WEBP"), id="WebP"),
    ],
)
def test_what_cameras_send_becomes_rgb(data: bytes) -> None:
    picture = decode(data)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photo_is_put_upright(orientation: int) -> None:
    data = photo(40, 30, orientation=orientation)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert decode(data).tobytes() == expected.tobytes()
    assert decode(data).size == ((40, 30) if orientation < 5 else (30, 40))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not a JPEG, PNG or WebP", id="empty"),
        pytest.param(b"rubbish" * 100, "not a JPEG, PNG or WebP", id="rubbish"),
        pytest.param(photo(40, 30, kind="GIF"), "not a JPEG, PNG or WebP", id="another format"),
        pytest.param(photo(400, 300)[:2000], "can't be decoded", id="truncated"),
        pytest.param(png_header(0, 10), "decoded|not a JPEG", id="no width"),
        pytest.param(png_header(6000, 6000), "6000×6000 pixels; at most 25 million", id="a bomb, by its header alone"),
        pytest.param(png_header(2**31 - 1, 2**31 - 1), "pixels|large", id="a bomb beyond Pillow's own limit"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_every_byte_of_a_photo_may_be_wrong() -> None:
    data = photo(64, 48)
    for position in range(0, len(data), 7):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        with contextlib.suppress(ImageError):
            assert decode(damaged).mode == "RGB"
