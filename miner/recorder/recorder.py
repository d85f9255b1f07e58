"""The recorder's thread: requests are handed over in a microsecond, and dropped when the disk does not keep up."""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from miner.recorder import Mode
from miner.recorder.records import RequestRecord, image_name
from miner.recorder.storage import Ring

log = logging.getLogger(__name__)

Reason = Literal["behind", "disk"]
WAITING = 1000  # records
WAITING_BYTES = 32 * 2**20  # of photos that wait with them
LOOK_SECONDS = 60.0  # between two looks at the ages
REST_SECONDS = 10.0  # after the disk has refused
END_SECONDS = 5.0


@dataclass(slots=True)
class Counts:
    """What became of the records."""

    written: int = 0
    behind: int = 0  # dropped: too many waited
    disk: int = 0  # dropped: the disk was full or refused


class FlightRecorder:
    """Takes records on the event loop, and writes them on a thread of its own."""

    def __init__(self, ring: Ring, *, images: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.ring = ring
        self.images = images
        self.counts = Counts()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: deque[tuple[RequestRecord, bytes | None]] = deque()
        self._bytes = 0
        self._wake = threading.Event()
        self._ending = False
        self._rest_until = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Hand a record over; never waits."""
        if record.wire == "none":
            return
        size = len(photo) if photo is not None else 0
        with self._lock:
            if len(self._waiting) >= WAITING or self._bytes + size > WAITING_BYTES:
                self.counts.behind += 1
                return
            self._waiting.append((record, photo))
            self._bytes += size
        self._wake.set()

    def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        self._ending = True
        self._wake.set()
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while not self._ending or self._waiting:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            while self._waiting:
                with self._lock:
                    record, picture = self._waiting.popleft()
                    self._bytes -= len(picture) if picture is not None else 0
                self._write(record, picture)
            self._on_disk(self.ring.trim)
        self.ring.close()

    def _write(self, record: RequestRecord, picture: bytes | None) -> None:
        if self._monotonic() < self._rest_until:
            self.counts.disk += 1
            return
        if self._on_disk(lambda: self._put(record, picture)):
            self.counts.written += 1
        else:
            self.counts.disk += 1

    def _put(self, record: RequestRecord, picture: bytes | None) -> None:
        if picture is not None:
            image = hashlib.sha256(picture).hexdigest()
            record = replace(record, image=image, image_bytes=len(picture))
            if self.images:
                self.ring.keep(image_name(image, picture), picture, record.at)
        self.ring.append(record.line(), record.at)

    def _on_disk(self, act: Callable[[], None]) -> bool:
        """Return whether the disk took it; one that does not is left alone for a while."""
        try:
            act()
        except OSError as error:
            if not self._rest_until:
                log.warning("the recorder can't write to %s: %s; the miner goes on answering", self.ring.folder, error)
            self._rest_until = self._monotonic() + REST_SECONDS
            return False
        if self._rest_until and self._monotonic() >= self._rest_until:
            self._rest_until = 0.0
            log.info("the recorder writes again")
        return True


def make_recorder(mode: Mode, folder: Path, max_bytes: int, max_seconds: float) -> FlightRecorder | None:
    """Return a recorder that is not started yet; None when it is off, or has no place to write."""
    if mode == "off":
        return None
    try:
        return FlightRecorder(Ring(folder, max_bytes, max_seconds), images=mode == "images")
    except OSError as error:
        log.warning("RECORDER=%s: %s can't be used, nothing is recorded: %s", mode, folder, error)
        return None
