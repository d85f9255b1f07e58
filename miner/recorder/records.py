"""The record of a request, which every listener is told at its end, and its line of JSON."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

from miner.errors import ConfigurationError, RefusalReason

Read = TypeVar("Read")
Wire = Literal["dendrite", "btauth"]
OUTCOMES = (
    "ok", "refused", "expired", "unproven", "stalled", "unauthorised", "forbidden", "bad_request", "bad_image",
    "failed", "cancelled", "not_found",
)  # fmt: skip
SEGMENTS = "requests-*.jsonl"
IMAGES = "images"
# How a file begins, and its ending.
MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}

UNWRITTEN = ("caller", "address", "is_permitted", "is_shared", "refusal", "is_invalid")
OF_CASCADES = ("stage", "branches", "stop", "spent", "left")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request that ended. On disk neither the caller's hotkey nor its address nor its signature is kept.

    Attributes:
        at: seconds since 1970, at its end.
        hotkey: of ours, the one that was asked; empty in records of older versions.
        uid: of the caller, if proven and registered.
        seconds: from its arrival to its end; `stages`, the parts of its way and none of a cascade's, adds up to it.
        body_bytes: of the request's body, as far as it was read.
        image_bytes, image: size and SHA-256 of the photo; 0 and empty where it was not unpacked.
        caller, address: the caller's hotkey, empty until it has proved itself, and its IP address.
        is_permitted: whether the caller has a validator permit.
        is_shared: whether it was answered by the inference of an equal picture's request.
        refusal: why a caller who has proved itself was refused.
        is_invalid: whether the model's output was no probability.
        stage, branches: of a cascade, which stage answered: its number from 1, and its branches; None: no cascade.
        stop: why no further one was asked, as in `StageEnd`.
        spent: seconds of each stage that ran, by its branches; empty where it was for an equal picture's request.
        left: seconds until the caller's deadline when the answer was there.
        opinions: of an ensemble, the probability of each branch that was asked.
    """

    at: float
    uid: int | None
    wire: Wire | Literal["none"]  # "none": a path that there is not
    outcome: str
    reason: str
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    timeout: float | None = None
    body_bytes: int = 0
    image_bytes: int = 0
    image: str = ""
    prediction: float | None = None
    hotkey: str = ""
    caller: str = ""
    address: str = ""
    is_permitted: bool = False
    is_shared: bool = False
    refusal: RefusalReason | None = None
    is_invalid: bool = False
    stage: int | None = None
    branches: str = ""
    stop: str = ""
    spent: Mapping[str, float] = field(default_factory=dict)
    left: float | None = None
    opinions: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the record as a line; microseconds are enough."""
        fields = {name: value for name, value in asdict(self).items() if name not in UNWRITTEN} | {
            "at": round(self.at, 6),
            "seconds": round(self.seconds, 6),
            "stages": _rounded(self.stages),
        }
        if self.opinions:
            fields["opinions"] = _rounded(self.opinions)
        else:
            del fields["opinions"]
        if self.stage is None:
            fields = {name: value for name, value in fields.items() if name not in OF_CASCADES}
        else:
            assert self.left is not None
            fields |= {"spent": _rounded(self.spent), "left": round(self.left, 6)}
        return _line(fields)

    @classmethod
    def read(cls, line: bytes) -> Self | None:
        """Return the record of a line; None for one that is torn or of another program."""
        try:
            fields: Any = json.loads(line)
            record = cls(**fields)
            return record if math.isfinite(record.at) and math.isfinite(record.seconds) else None
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """What the shadow model says of a photo, after its request has ended; in the same files, on a line of its own.

    Attributes:
        at: seconds since 1970.
        image: SHA-256 of the photo.
        shadow: its probability of roadwork.
    """

    at: float
    image: str
    shadow: float

    def line(self) -> bytes:
        """Return the record as a line."""
        return _line({"at": round(self.at, 6), "image": self.image, "shadow": round(self.shadow, 6)})

    @classmethod
    def read(cls, line: bytes) -> Self | None:
        """Return the record of a line; None for any other line."""
        try:
            record = cls(**json.loads(line))
            return record if math.isfinite(record.at) and math.isfinite(record.shadow) else None
        except (ValueError, TypeError):
            return None


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


class RequestListener(Protocol):
    """Whoever wants to know of requests that ended; told on the event loop, so it must not wait."""

    def request_ended(self, record: RequestRecord, photo: bytes | None) -> None:
        """Take notice of a request, and of its encoded photo once that was unpacked."""


def image_name(image: str, data: bytes) -> str:
    """Return the name of a photo's file: its hash, and the ending of its format."""
    ending = next((ending for magic, ending in MAGIC.items() if data.startswith(magic)), ".bin")
    return image + ending


def segments(path: Path) -> list[Path]:
    """Return the files of a recorder's folder, oldest first, or the one file that was named.

    Raises:
        ConfigurationError: there is none.
    """
    found = sorted(path.glob(SEGMENTS)) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise ConfigurationError(f"--replay={path}: no recorder's folder or file; RECORDER=meta or images makes one")
    return found


def began(segment: Path) -> float | None:
    """Return the time of the first record in a file; None: there is none.

    Raises:
        OSError: it can't be read.
    """
    with segment.open("rb") as file:
        return next((record.at for line in file if (record := RequestRecord.read(line)) is not None), None)


def read_records(path: Path) -> Iterator[RequestRecord]:
    """Yield the records of a folder or file in their order; torn lines are passed over.

    A recorder may be writing there: the line it writes is passed over, and so is a segment that it removes meanwhile.
    """
    yield from _read(path, RequestRecord.read)


def read_shadow_records(path: Path) -> Iterator[ShadowRecord]:
    """Yield what the shadow has said, in the order of the lines; likewise."""
    yield from _read(path, ShadowRecord.read)


def _read(path: Path, read: Callable[[bytes], Read | None]) -> Iterator[Read]:
    for segment in segments(path):
        with suppress(FileNotFoundError), segment.open("rb") as file:
            for line in file:
                if (record := read(line)) is not None:
                    yield record
