"""From bytes to a picture, and what is no picture."""

import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from detectors.errors import ImageError
from detectors.photos.image import HEADER_READS, JPEG, MAX_PROFILES, MAX_READS, MAX_SCANS, SCAN, decode, memory_of
from tests.models import ORIENTATION, photo

EXIF = b"Exif\0\0"


def png_chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


TEXT = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20 - 10)))  # a megabyte


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is and holds nothing."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND")


def with_chunks(chunks: bytes) -> bytes:
    """Return a PNG with these before its pixels."""
    data = photo(40, 30, kind="PNG")
    pixels = data.index(b"IDAT") - 4
    return data[:pixels] + chunks + data[pixels:]


def with_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again, so that there are as many."""
    buffer = io.BytesIO()
    Image.new("L", (40, 30), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(SCAN) : -2]
    return data[:-2] + last * (count - data.count(SCAN)) + data[-2:]


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
        pytest.param(with_scans(MAX_SCANS), id="many scans"),
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


def with_exif(exif: bytes, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """Return a photo with this as its EXIF."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(40, 30))).convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def entry(tag: int, kind: int, count: int, value: int) -> bytes:
    """Return an EXIF of one entry."""
    return EXIF + b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, tag, kind, count, value) + b"\0" * 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(EXIF + b"MM\0*\0\0", id="cut in its header"),
        pytest.param(EXIF + b"MM\0*\0\0\0\x08\0", id="cut in its count"),
        pytest.param(entry(ORIENTATION, 3, 1, 6 << 16)[:-8], id="cut in its entry"),
        pytest.param(EXIF + b"XX\0*\0\0\0\x08", id="of no byte order"),
        pytest.param(EXIF + b"MM\0*\xff\xff\xff\xff", id="beyond its end"),
        pytest.param(entry(ORIENTATION, 3, 0, 0), id="orientation of no value"),
        pytest.param(entry(ORIENTATION, 3, 2**31, 0), id="orientation of too many values"),
        pytest.param(entry(ORIENTATION, 5, 1, 9999), id="orientation that is nowhere"),
        pytest.param(entry(ORIENTATION, 2, 4, 0x36363600), id="orientation that is a word"),
    ],
)
def test_damaged_metadata_says_nothing_and_the_photo_is_read(exif: bytes, kind: str) -> None:
    assert decode(with_exif(exif, kind)).tobytes() == decode(with_exif(b"", kind)).tobytes()


def test_a_photo_is_turned_once_whoever_looks_at_it_again() -> None:
    picture = decode(photo(40, 30, orientation=6))
    assert ImageOps.exif_transpose(picture).tobytes() == picture.tobytes()


def test_decoding_on_a_thread_leaves_the_filters_of_the_process_s_warnings() -> None:
    filters, large = warnings.filters, photo(3000, 2000)
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(decode, large)
        while not decoding.done():
            assert warnings.filters is filters
    assert decoding.result().size == (3000, 2000)


def test_what_pillow_has_to_say_of_metadata_is_not_logged() -> None:
    odd = with_exif(entry(ORIENTATION, 3, 200, 0))  # Pillow: "Possibly corrupt EXIF data"
    code = "import sys; from detectors.photos.image import decode; print(decode(sys.stdin.buffer.read()).size)"
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, input=odd, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"(40, 30)\n", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not a JPEG", id="empty"),
        pytest.param(b"rubbish" * 100, "not a JPEG", id="rubbish"),
        pytest.param(photo(40, 30, kind="GIF"), "not a JPEG", id="another format"),
        pytest.param(photo(400, 300)[:2000], "can't be decoded", id="truncated"),
        pytest.param(png_header(0, 10), "decoded|not a JPEG", id="no width"),
        pytest.param(png_header(6000, 6000), "6000×6000 pixels; at most 25 million", id="a bomb, by its header alone"),
        pytest.param(png_header(2**31 - 1, 2**31 - 1), "pixels|large", id="a bomb beyond Pillow's own limit"),
        pytest.param(with_scans(MAX_SCANS + 1), "65 scans; at most 64", id="too many scans"),
        *(
            pytest.param(JPEG + part * MAX_READS + photo(40, 30)[2:], "too many parts", id=f"{name} without end")
            for name, part in {"segments": b"\xff\xe0\0\x02", "comments": b"\xff\xfe\0\x02", "fill": b"\xff"}.items()
        ),
        *(
            pytest.param(with_chunks(chunk * MAX_READS), "too many parts", id=f"{name} without end")
            for name, chunk in {"chunks": png_chunk(b"aaAa"), "texts": png_chunk(b"tEXt", b"k\0v")}.items()
        ),
        pytest.param(with_chunks(TEXT * 3), "can't be decoded", id="texts that grow"),
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


SIDE = 2000
PEAK = """
import sys
from pathlib import Path
from detectors.photos.image import decode
small, large = (Path(path).read_bytes() for path in sys.argv[1:])
decode(small)  # what a first picture takes is no later one's

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

before = peak()
decode(large)
print(peak() - before)
"""


def peak_of(folder: Path, data: bytes) -> int:
    """Return the bytes that decoding a picture takes in a process of its own."""
    small, large = folder / "small", folder / "large"
    small.write_bytes(photo(64, 64, kind="PNG"))
    large.write_bytes(data)
    command = [sys.executable, "-c", PEAK, str(small), str(large)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def smooth(mode: str) -> Image.Image:
    """Return a picture that is quick to compress and has something on it."""
    return Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("L", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {"progressive": True, "exif": True}),
        ("RGB", "JPEG", {"exif": True}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {"exif": True}),
        ("L", "PNG", {}),
        ("P", "PNG", {}),
        ("1", "PNG", {}),
        ("RGB", "WEBP", {"quality": 5}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {"lossless": True, "exif": True}),
    ],
    ids=str,
)
def test_decoding_takes_no_more_memory_than_its_header_says(
    tmp_path: Path, mode: str, kind: str, options: dict[str, object]
) -> None:
    if "exif" in options:
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        options = options | {"exif": exif.tobytes()}
    buffer = io.BytesIO()
    smooth(mode).save(buffer, kind, **options)
    peak = peak_of(tmp_path, buffer.getvalue())
    said = memory_of(buffer.getvalue())
    assert peak <= said
    assert said <= 3 * peak + 2**21  # and what fits is not refused for nothing


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_of_many_rows_takes_more_than_its_pixels(tmp_path: Path, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (2, 3_000_000)).save(buffer, "PNG")
    assert peak_of(tmp_path, buffer.getvalue()) <= memory_of(buffer.getvalue())


def test_metadata_takes_memory_too(tmp_path: Path) -> None:
    segment = b"\xff\xe1\xff\xff" + EXIF + b"MM\0*" + bytes(65535 - 2 - 10)
    data = photo(640, 360)
    data = data[:2] + segment * 100 + data[2:]
    assert peak_of(tmp_path, data) <= memory_of(data)


def test_a_bomb_of_34_bytes_is_known_by_its_header() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(buffer, "WEBP", lossless=True, method=0)
    assert len(buffer.getvalue()) < 100
    assert memory_of(buffer.getvalue()) > 400 * 10**6


@pytest.mark.parametrize("data", [b"", b"no picture", png_header(6000, 6000), png_header(1, 1)], ids=len)
def test_what_is_refused_unread_takes_nothing(data: bytes) -> None:
    assert memory_of(data) == 0


def test_a_header_of_many_parts_is_refused_early_and_pixels_in_many_parts_are_not() -> None:
    """A body's header is read on the event loop."""
    header = with_chunks(png_chunk(b"prVt") * HEADER_READS)
    assert memory_of(header) == 0
    with pytest.raises(ImageError, match="too many parts"):
        decode(header)
    data = photo(40, 30, kind="PNG")
    begin = data.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", data[begin : begin + 4])
    pixels, rest = data[begin + 8 : begin + 8 + length], data[begin + 12 + length :]
    parts = b"".join(png_chunk(b"IDAT", pixels[at : at + 1]) for at in range(length))
    assert length > HEADER_READS / 3
    assert decode(data[:begin] + parts + rest).tobytes() == decode(data).tobytes()


def test_a_profile_is_unpacked_a_few_times_at_most() -> None:
    profile = png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**20 - 10)))
    assert memory_of(with_chunks(profile)) > 0
    assert decode(with_chunks(profile)).size == (40, 30)
    assert memory_of(with_chunks(profile * (MAX_PROFILES + 1))) == 0
    with pytest.raises(ImageError, match="profiles"):
        decode(with_chunks(profile * (MAX_PROFILES + 1)))
