"""A request's body: read under limits, then unpacked."""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable

import pybase64
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from miner.errors import BadRequest, BodyStalled, BodyTooLarge, UnreadableImage

# Bytes. Large blocks that grow side by side leave holes in the heap (74 MB were taken for 32 MB of bodies), and small
# ones that a caller drips in would take more than they hold.
PIECE = 2**16
MAX_DIGITS = 20  # of a length; Python makes no number of thousands, of zeros neither
MAX_PARTS = 1000  # of a body's JSON; a synapse has about forty


class Synapse(BaseModel):
    """The fields of an ImageSynapse that a request carries; the authenticated copies of the rest are in the headers."""

    image: str
    testnet_label: int = -1
    prediction: float = -1.0


def declared_length(request: Request) -> int | None:
    """Return the Content-Length, or None.

    Raises:
        BadRequest: it is not a number.
    """
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise BadRequest("the content-length header is not a number")
    return int(text)


def check_length(request: Request, limit: int) -> None:
    """Refuse a body that says it is over `limit` bytes, or compressed, before reading it.

    Raises:
        BodyTooLarge: it does; what a compressed one would grow to, nobody knows before.
    """
    codings = request.headers.getlist("content-encoding") + request.headers.getlist("transfer-encoding")
    if any(coding.strip().lower() not in ("", "identity", "chunked") for coding in codings):
        raise BodyTooLarge("a compressed body is not accepted")
    length = declared_length(request)
    if length is not None and length > limit:
        raise BodyTooLarge(f"the body has {length} bytes; at most {limit} are allowed")


async def read_body(request: Request, limit: int, stall: float, deadline: float, take: Callable[[int], None]) -> bytes:
    """Read a body of at most `limit` bytes, without a pause of `stall` seconds, before `deadline` (monotonic).

    `take` is told of each chunk's length, and may refuse it.

    Raises:
        BodyTooLarge: more bytes came than allowed.
        BodyStalled: they came too slowly.
        ClientDisconnect: the caller hung up.
    """
    pieces, stream, length = [bytearray()], request.stream(), 0
    while True:
        patience = min(stall, deadline - time.monotonic())
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise BodyStalled("the body came too slowly") from None
        if chunk is None:
            return b"".join(pieces)
        length += len(chunk)
        if length > limit:
            raise BodyTooLarge(f"the body has more than the allowed {limit} bytes")
        take(len(chunk))
        if len(pieces[-1]) >= PIECE:
            pieces.append(bytearray())
        pieces[-1] += chunk


def picture_of(body: bytes) -> bytes:
    """Unpack the encoded photo from an ImageSynapse's JSON.

    Raises:
        BadRequest: not JSON, no image, a field of the wrong type, or far too many of them.
        UnreadableImage: the image is not base64.
    """
    # A parser takes half a gigabyte for 16 MB of brackets, and lets no other thread run meanwhile.
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_PARTS:
        raise BadRequest(f"the body is not the JSON of an ImageSynapse: it has over {MAX_PARTS} parts")
    try:
        image = Synapse.model_validate_json(body).image
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "body"
        raise BadRequest(f"the body is not the JSON of an ImageSynapse: {where}: {fault['msg'].lower()}") from None
    try:
        return pybase64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:
        # As forgiving as the reference miner: line breaks and foreign characters are skipped.
        return base64.b64decode(image)
    except (binascii.Error, ValueError):
        raise UnreadableImage("the image is not base64") from None


__all__ = ["ClientDisconnect", "check_length", "declared_length", "picture_of", "read_body"]
