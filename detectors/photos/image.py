"""The decoder of photos: bytes to a picture within limits of size, memory and time.

Whoever sends the bytes may be hostile, and Pillow alone would try to decode anything.
"""

import base64
import io
import struct
import warnings
import zlib

from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from detectors.errors import ImageError
from detectors.photos import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP")
JPEG, SCAN = b"\xff\xd8", b"\xff\xda"  # markers, which no pixel of a JPEG looks like
# Kept as it is now: ultralytics replaces `Image.open` in every process that imports it.
_open = Image.open

MIN_SIDE = 2  # pixels; a single one is no photo
MAX_SCANS = 64  # of a JPEG, each over all its pixels: 42 bytes are 15 ms of a core at 25 MP. Encoders write up to 18
MAX_READS = 50_000  # of a file: parsers written in Python take time and memory for each part, however small it is
HEADER_READS = 4_000  # of these, up to its pixels: 10 ms. A camera's file takes some dozens
MAX_PROFILES = 4  # of a PNG's colours, each unpacked to up to 1 MiB in 1 ms; one is allowed
PNG, PROFILE = b"\x89PNG", b"iCCP"
# What Pillow's parsers raise when they meet hostile bytes; `struct.error` and `zlib.error` are no `ValueError`.
DECODER_ERRORS = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, struct.error, SyntaxError, TypeError, ValueError,
    zlib.error,
)  # fmt: skip
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # bytes that Pillow takes for a pixel; 4 in all other modes
CANVASES = 17  # bytes for a pixel that libwebp takes besides
POINTERS = 16  # bytes for a row besides its pixels
METADATA = 6  # bytes for each of the file, as if all of it were EXIF: as it is read, collected and looked through
PREVIEW, PREVIEW_QUALITY = (320, 240), 75  # pixels at most, and the JPEG's: about 12 kB
RESIZED = 4 * 512 * 512  # bytes of a square picture after the resize
ORIENTATIONS = {  # what EXIF's orientation asks for; 1 and all else: nothing
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of odd metadata, which is the sender's business. Once and not around each picture: the filters belong to
# the whole process, and `catch_warnings` on two threads leaves them in disorder.
warnings.filterwarnings("ignore", module=r"PIL\.")
PngImagePlugin.MAX_TEXT_MEMORY = 2 * 2**20  # bytes that compressed texts may grow to, in all; 64 MiB otherwise


class _Counted(io.BytesIO):
    """A file that can be read only so often."""

    reads = 0
    most = HEADER_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > self.most:
            raise ImageError("the image's file has too many parts")
        return super().read(size)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a photo, upright and in RGB, as the reference pipelines do.

    The size is read from the header before a pixel is decoded, and only formats that cameras and validators send are
    opened at all. Orientation comes first and the colour conversion second, in the order of `transformers.load_image`
    and of Ultralytics' loader.

    Raises:
        ImageError: not a JPEG, PNG or WebP, empty, truncated, of more than `max_pixels`, a mere line or dot, or made to
            take long.
    """
    try:
        file = _Counted(data)
        picture = _opened(file, data)
        width, height = picture.size
        if width * height > max_pixels:
            raise ImageError(f"the image has {width}×{height} pixels; at most {max_pixels / 1e6:g} million are allowed")
        if min(width, height) < MIN_SIDE:
            raise ImageError(f"the image has {width}×{height} pixels, which shows nothing")
        if data.startswith(JPEG) and (scans := data.count(SCAN)) > MAX_SCANS:
            raise ImageError(f"the image has {scans} scans; at most {MAX_SCANS} are allowed")
        file.most = MAX_READS
        picture.load()
        picture = _upright(picture)  # and not under another name: the one before would stay in memory meanwhile
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        picture.info.clear()  # the orientation is in it: whoever looks there would turn the picture once more
        return picture
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("the image is not a JPEG, PNG or WebP") from error
    except (Image.DecompressionBombError, MemoryError, OverflowError) as error:
        raise ImageError("the image is too large to be opened") from error
    except DECODER_ERRORS as error:
        raise ImageError("the image can't be decoded") from error


def preview(data: bytes) -> str:
    """Return a small JPEG of a photo, whole and upright, as an address that holds it.

    Raises:
        ImageError: it can't be decoded.
    """
    small, file = ImageOps.contain(decode(data), PREVIEW, Image.Resampling.LANCZOS), io.BytesIO()
    small.save(file, "JPEG", quality=PREVIEW_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height as the header says them; no pixel is decoded.

    Raises:
        ImageError: not a JPEG, PNG or WebP.
    """
    try:
        return _opened(_Counted(data), data).size
    except (Image.DecompressionBombError, MemoryError, OverflowError, *DECODER_ERRORS) as error:
        raise ImageError("the image can't be opened") from error


def memory_of(data: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Return the bytes that decoding a photo takes at most, judged by its header; 0: `decode` refuses it unread.

    Measured with Pillow 13 on pictures of 16 million pixels: a WebP is drawn on canvases of its own before it is
    copied, a progressive JPEG holds all its coefficients, and turning or converting a picture takes a second one.
    """
    try:
        picture = _opened(_Counted(data), data)
        (width, height), mode = picture.size, picture.mode
        if width * height > max_pixels or min(width, height) < MIN_SIDE:
            return 0
        turns = picture.format == "PNG" or _turn(picture) is not None  # of a PNG it may follow the pixels
        coefficients = 2 * len(picture.getbands()) if "progressive" in picture.info else 0
    except (ImageError, Image.DecompressionBombError, MemoryError, OverflowError, *DECODER_ERRORS):
        return 0
    stored = BYTES_PER_PIXEL.get(mode, 4)
    decoder = CANVASES if picture.format == "WEBP" else coefficients
    turned = max(_rows(width, height, stored), _rows(height, width, stored)) if turns else 0
    converted = max(_rows(width, height, 4), _rows(height, width, 4) if turns else 0) if mode != "RGB" else 0
    # The shorter side becomes a few hundred pixels, and the longer one as many times more as it is longer.
    resized = RESIZED * max(width, height) // min(width, height)
    pixels = _rows(width, height, stored) + max(decoder * width * height, turned, converted)
    return pixels + min(resized, 4 * MAX_PIXELS) + METADATA * len(data)


def _opened(file: _Counted, data: bytes) -> Image.Image:
    """Read a picture's header; takes some milliseconds at most, whatever is in it."""
    if data.startswith(PNG) and data.count(PROFILE) > MAX_PROFILES:
        raise ImageError("the image has too many colour profiles")
    return _open(file, formats=FORMATS)


def _rows(width: int, height: int, each: int) -> int:
    """Return the bytes of a picture: Pillow fills up each row to four, and keeps a pointer to it."""
    return height * ((width * each + 3) // 4 * 4 + POINTERS)


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its metadata says; damaged metadata says nothing, and the picture may be whole."""
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return ORIENTATIONS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except (*DECODER_ERRORS, MemoryError):
        return None
