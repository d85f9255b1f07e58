"""Bytes to a bounded picture."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from detectors.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP")
# Kept as it is now: ultralytics replaces `Image.open` in every process that imports it.
_open = Image.open

MAX_PIXELS = 25_000_000  # a 25 MP photo decodes to 75 MB; nothing larger is a street photo
MIN_SIDE = 2  # pixels; a single one is no photo


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a photo, upright and in RGB, as the reference pipelines do.

    The size is read from the header before a pixel is decoded, and only formats that cameras and validators send are
    opened at all. Orientation comes first and the colour conversion second, in the order of `transformers.load_image`
    and of Ultralytics' loader.

    Raises:
        ImageError: not a JPEG, PNG or WebP, empty, truncated, of more than `max_pixels`, or a mere line or dot.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is the sender's business
            picture: Image.Image = _open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(
                    f"the image has {width}×{height} pixels; at most {max_pixels / 1e6:g} million are allowed"
                )
            if min(width, height) < MIN_SIDE:
                raise ImageError(f"the image has {width}×{height} pixels, which shows nothing")
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            return upright if upright.mode == "RGB" else upright.convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("the image is not a JPEG, PNG or WebP") from error
    # Pillow's decoders raise whatever their parsers meet in hostile bytes.
    except (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, ZeroDivisionError, EOFError) as error:
        raise ImageError("the image can't be decoded") from error
    except (Image.DecompressionBombError, MemoryError, OverflowError) as error:
        raise ImageError("the image is too large to be opened") from error
