"""The payload of a request: read and unpacked under limits of size, time and memory."""

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import pybase64
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from detectors.photos import MAX_PIXELS
from detectors.photos.image import memory_of
from miner.errors import BadRequest, BodyStalled, BodyTooLarge, RequestError, UnreadableImage
from miner.inference.memory import UNPROVEN_BYTES, Budget, Claim, ProvenAddresses
from miner.inference.service import Picture
from miner.settings.settings import Settings

GROWTH_BYTES = 2**16  # bytes by which a body of unknown length grows
LEAST_RATE = 4096  # bytes a second of such a body
RATE_TOLERANCE = 2  # times as slow as it would have to be at least
SMALL_BODY_BYTES = 256 * 2**10  # bytes of a body that takes less time to unpack than the way to a thread and back
UNPACKED_FACTOR = (
    6.25  # bytes for each of a body while it is unpacked: up to 4 of its text in Python, the photo, its metadata
)
MAX_DIGITS = 20  # of a length; Python makes no number of thousands, of zeros neither
MAX_PARTS = 1000  # of a body's JSON; a synapse has about forty


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of all our hotkeys, so that several hold no more in memory than one."""

    max_body: int
    body_stall: float
    deadline_cap: float
    deadline_margin: float
    max_pixels: int = MAX_PIXELS
    budget: Budget = field(init=False)
    proven: ProvenAddresses = field(init=False, default_factory=ProvenAddresses)
    # One body at a time is unpacked, which takes twice its size for some milliseconds.
    unpacking: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    unpacker: ThreadPoolExecutor = field(init=False, default_factory=lambda: ThreadPoolExecutor(1, "unpacking"))

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those that the operator has set."""
        return cls(
            settings.max_body_bytes,
            settings.body_stall_seconds,
            settings.deadline_cap_seconds,
            settings.deadline_margin_seconds,
            settings.max_image_pixels,
        )

    def __post_init__(self) -> None:
        # Two of the largest bodies of unproven callers, so that one is not in the way of another.
        object.__setattr__(self, "budget", Budget(unproven=max(UNPROVEN_BYTES, 2 * self.max_body)))

    def patience(self, arrived: float, timeout: float) -> float:
        """Return when the caller stops waiting, or we for it, on the clock of `arrived`."""
        return arrived + min(timeout, self.deadline_cap)

    def deadline(self, arrived: float, timeout: float) -> float:
        """Return when the answer must be on its way."""
        return self.patience(arrived, timeout) - self.deadline_margin


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


class BodyReader:
    """A request's body on its way in, which must keep a pace at which it will be there in time.

    Args:
        request: whose body it is.
        limits: what one may cost.
        deadline: on `time.monotonic`, when its answer must be on its way.
        claim: on the memory, which is asked before a byte is taken.
    """

    def __init__(self, request: Request, limits: Limits, deadline: float, claim: Claim) -> None:
        self._request = request
        self._limits = limits
        self._deadline = deadline
        self._claim = claim
        self._length = declared_length(request)
        self._pieces: list[bytearray] = []
        self._scope: asyncio.Timeout | None = None
        self._why: RequestError | None = None

    @property
    def _patience(self) -> float:
        """Until when memory is waited for, so that the body still has the time to come."""
        return min(self._deadline, time.monotonic() + self._limits.body_stall) - 1.0

    def _check(self) -> None:
        if self._why is not None:
            raise self._why

    def stop(self, why: RequestError) -> None:
        """Give up at once, for this reason: what is held of the body is wanted for another."""
        self._why = why
        for piece in self._pieces:  # it is wanted now, and not when the reader wakes
            piece.clear()
        if self._scope is not None:
            with contextlib.suppress(RuntimeError):  # it ends at this very moment
                self._scope.reschedule(0)

    async def read(self) -> bytearray:
        """Return the body.

        Raises:
            BodyTooLarge: more bytes came than allowed.
            BodyStalled: they came too slowly.
            Refused: there is no memory for it, or it was stopped.
            ClientDisconnect: the caller hung up.
        """
        # Blocks that grow side by side leave holes in the heap: so one of the full size, or pieces.
        if self._length is not None:
            return await self._read_whole(self._length)
        pieces, filled = self._pieces, 0
        await self._claim.obtain(GROWTH_BYTES, self._patience, self._check)
        async for chunk in self._chunks():
            if filled + len(chunk) > self._claim.bytes:
                self._claim.grow(max(GROWTH_BYTES, len(chunk)))
            if not pieces or len(pieces[-1]) >= GROWTH_BYTES:
                pieces.append(bytearray())
            pieces[-1] += chunk
            self._claim.fill(len(chunk))
            filled += len(chunk)
        await self._claim.obtain(filled, self._patience, self._check)  # for the moment in which it is there twice
        body = bytearray().join(pieces)
        pieces.clear()
        self._claim.shrink(filled)
        return body

    async def _read_whole(self, length: int) -> bytearray:
        await self._claim.obtain(length, self._patience, self._check)
        body, filled = bytearray(length), 0
        self._pieces.append(body)
        async for chunk in self._chunks():
            body[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
            self._claim.fill(len(chunk))
        self._check()
        del body[filled:]
        self._pieces.clear()
        return body

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what comes, as long as it is not too much nor too slow."""
        stream, began, filled = self._request.stream(), time.monotonic(), 0
        while (chunk := await self._chunk(stream)) is not None:
            filled += len(chunk)
            if filled > self._limits.max_body:
                raise BodyTooLarge(f"the body has more than the allowed {self._limits.max_body} bytes")
            yield chunk
            self._check_pace(filled, began)

    async def _chunk(self, stream: AsyncGenerator[bytes, None]) -> bytes | None:
        patience = min(self._limits.body_stall, self._deadline - time.monotonic())
        self._check()
        try:
            async with asyncio.timeout(patience) as self._scope:
                return await anext(stream, None)
        except TimeoutError:
            raise (self._why or BodyStalled("the body came too slowly")) from None
        finally:
            self._scope = None

    def _check_pace(self, filled: int, began: float) -> None:
        """Raise if the rest can't be there in time, by far; one of unknown length has a rate to keep.

        Raises:
            BodyStalled: what it is.
        """
        seconds = time.monotonic() - began
        if seconds < self._limits.body_stall:
            return
        if self._length is None:
            wanted = LEAST_RATE * (seconds - self._limits.body_stall)
        else:
            wanted = self._length * seconds / (self._deadline - began) / RATE_TOLERANCE
        if filled < wanted:
            raise BodyStalled("the body came too slowly")


def unpack(body: bytearray, max_pixels: int) -> Picture:
    """Unpack the encoded photo from an ImageSynapse's JSON, and see what it takes to decode it.

    Takes up to `UNPACKED_FACTOR` times the body's size meanwhile, so it is asked for before; some ms for a large
    one, so it is not for the event loop. Raises as `picture_of`.
    """
    data = picture_of(body)
    hash(data)  # which it keeps: to look for an equal one takes no time then
    return Picture(data, memory_of(data, max_pixels))


def picture_of(body: bytes | bytearray) -> bytes:
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
