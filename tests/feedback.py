"""Recorded photos made for tests of the feedback loop."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from miner.feedback import is_sampled
from miner.recorder.records import IMAGES, RequestRecord, image_name
from tests.photos import patches

BEGAN = 1_790_000_000.0  # seconds since 1970


def jpeg(seed: int, *, cone: bool = False) -> bytes:
    data = io.BytesIO()
    patches(seed, cone=cone).save(data, "JPEG", quality=85)
    return data.getvalue()


def digest_of(photo: bytes) -> str:
    return hashlib.sha256(photo).hexdigest()


def photos(*, sampled: bool, first: int = 0) -> Iterator[bytes]:
    """Yield photos that are of the random tenth, or are not."""
    seed = first
    while True:
        photo = jpeg(seed)
        if is_sampled(digest_of(photo)) == sampled:
            yield photo
        seed += 1


def record(recorder: Path, said: dict[bytes, float | None]) -> list[str]:
    """Write photos and what was answered as a recorder does, the oldest first; return their digests."""
    (recorder / IMAGES).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (photo, prediction) in enumerate(said.items()):
        digest = digest_of(photo)
        (recorder / IMAGES / image_name(digest, photo)).write_bytes(photo)
        record = RequestRecord(
            BEGAN + number, 7, "dendrite", "ok", "", 0.2, image=digest, image_bytes=len(photo), prediction=prediction
        )
        lines.append(record.line())
    with (recorder / "requests-1.jsonl").open("ab") as file:
        file.writelines(lines)
    return [digest_of(photo) for photo in said]
