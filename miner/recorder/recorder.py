"""The recorder's thread and its files: segments of lines and photos, the oldest deleted first.

Requests are handed over in a microsecond, and dropped when the disk does not keep up.
"""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from miner.recorder import Mode
from miner.recorder.records import IMAGES, SEGMENTS, RequestRecord, ShadowRecord, began, image_name

log = logging.getLogger(__name__)

SEGMENT_COUNT = 16  # segments in the whole: the most that is lost of the past when one is deleted
LEAST_FREE = 256 * 2**20  # bytes of the disk that are left to others

MAX_WAITING = 1000  # records
WAITING_BYTES = 32 * 2**20  # of photos that wait with them
LOOK_SECONDS = 60.0  # between two looks at the ages
REST_SECONDS = 10.0  # after the disk has refused
END_SECONDS = 5.0
STEP_SECONDS = 60.0  # by which the wall clock departs from the monotonic one where it is set
STEADY_SECONDS = 3600.0  # for which it runs on before anything is deleted for its age


class DiskFull(OSError):
    """Writing on would take the last of the disk."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file, and since when it is kept: a segment from its first record on, a photo from its last request."""

    path: Path
    size: int
    since: float


class SegmentRing:
    """Written by one thread; a process that is killed loses at most the line it was writing.

    A clock that is wrong at the start, until NTP sets it, would make everything too old at once, before or after. So
    nothing is deleted for its age until the clock has run on for `steady_seconds`, or for `max_seconds` if that is
    less; the size is bounded all the while.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        max_seconds: float,
        clock: Callable[[], float] = time.time,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        monotonic: Callable[[], float] = time.monotonic,
        steady_seconds: float = STEADY_SECONDS,
    ) -> None:
        """Take over what is in the folder.

        Raises:
            OSError: it can't be made or read.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.clock = clock
        self._free = free
        self._monotonic = monotonic
        self._steady_seconds = min(steady_seconds, max_seconds)
        self._offset = clock() - monotonic()
        self._steady_at: float | None = monotonic() + self._steady_seconds  # None: since then
        images = folder / IMAGES
        images.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for partial in images.glob("*.partial"):  # of a process that was killed
            partial.unlink()
        # Both oldest first; an open segment is not among them.
        self._segments = self._in_order((path, began(path)) for path in folder.glob(SEGMENTS))
        self._photos = self._in_order((path, None) for path in images.iterdir())
        self.bytes = sum(one.size for kept in (self._segments, self._photos) for one in kept.values())
        self._segment: FileIO | None = None
        self._segment_since = 0.0
        self._segment_bytes = 0
        self.trim()

    def append(self, line: bytes, at: float) -> None:
        """Write a record's line at the end; `at` is the record's own time.

        Raises:
            OSError: the disk does not take it; the next line begins a new segment.
        """
        self._make_room(len(line))
        if self._segment is None or self._is_full(len(line)):
            self.close()
            self._segment_since = at
            path = self.folder / f"requests-{time.time_ns()}.jsonl"
            self._segment = FileIO(path, "a")
            path.chmod(0o600)
        try:
            if self._segment.write(line) != len(line):
                raise DiskFull("only a part of a line was written")
        except OSError:
            self.close()
            raise
        self._segment_bytes += len(line)
        self.bytes += len(line)

    def keep(self, name: str, data: bytes, at: float) -> None:
        """Write a photo that was asked about at this time; one that is there is kept for longer.

        Raises:
            OSError: the disk does not take it.
        """
        if self._renew(name, at) or len(data) > self.max_bytes // 2:
            return
        self._make_room(len(data))
        path = self.folder / IMAGES / name
        partial = path.with_suffix(".partial")
        try:
            partial.touch(0o600)
            partial.write_bytes(data)
            os.utime(partial, (at, at))
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._photos[name] = _Kept(path, len(data), at)
        self.bytes += len(data)

    def trim(self, more: int = 0) -> None:
        """Delete what is too old, and the oldest until `more` bytes fit."""
        is_steady = self._is_steady()
        if self._segment is not None and self.clock() - self._segment_since > self.max_seconds / SEGMENT_COUNT:
            self.close()
        while (oldest := self._oldest()) is not None and (
            self.bytes + more > self.max_bytes or (is_steady and self.clock() - oldest.since > self.max_seconds)
        ):
            oldest.path.unlink(missing_ok=True)
            self._forget(oldest)

    def close(self) -> None:
        """End the segment."""
        if self._segment is not None:
            self._segment.close()
            path = Path(self._segment.name)
            self._segments[path.name] = _Kept(path, self._segment_bytes, self._segment_since)
            self._segment, self._segment_bytes = None, 0

    def _is_steady(self) -> bool:
        """Return whether the clock has run on for long enough; times that are still to come then are made present."""
        at, now = self._monotonic(), self.clock()
        before, self._offset = self._offset, now - at
        if abs(self._offset - before) > STEP_SECONDS:
            self._steady_at = at + self._steady_seconds
        if self._steady_at is not None and at >= self._steady_at:
            self._steady_at = None
            for kept in (self._segments, self._photos):  # else they would be kept for longer
                kept.update({name: replace(one, since=now) for name, one in kept.items() if one.since > now})
        return self._steady_at is None

    def _in_order(self, found: Iterable[tuple[Path, float | None]]) -> OrderedDict[str, _Kept]:
        """Return files of an earlier process by age: their own times if they have any, else when they were written."""
        kept = [
            _Kept(path, state.st_size, state.st_mtime if since is None else since)
            for path, since in found
            for state in (path.stat(),)
        ]
        return OrderedDict((one.path.name, one) for one in sorted(kept, key=lambda one: one.since))

    def _renew(self, name: str, at: float) -> bool:
        """Make a photo as young as its last request, for a later process too; return whether it is there."""
        photo = self._photos.get(name)
        if photo is None:
            return False
        try:
            os.utime(photo.path, (at, at))
        except FileNotFoundError:  # somebody has removed it
            self._forget(photo)
            return False
        self._photos[name] = replace(photo, since=at)
        self._photos.move_to_end(name)
        return True

    def _oldest(self) -> _Kept | None:
        """Return the oldest file; a segment goes before the photos it tells of: it is as old as its first record."""
        heads = [next(iter(kept.values())) for kept in (self._segments, self._photos) if kept]
        return min(heads, key=lambda one: one.since, default=None)

    def _forget(self, kept: _Kept) -> None:
        self._segments.pop(kept.path.name, None)
        self._photos.pop(kept.path.name, None)
        self.bytes -= kept.size

    def _make_room(self, more: int) -> None:
        self.trim(more)
        if self._free(self.folder) < LEAST_FREE + more:
            raise DiskFull(f"less than {LEAST_FREE >> 20} MiB are free")

    def _is_full(self, more: int) -> bool:
        return self._segment_bytes + more > self.max_bytes // SEGMENT_COUNT


@dataclass(slots=True)
class Counts:
    """What became of the records."""

    written: int = 0
    behind: int = 0  # dropped: too many waited
    disk: int = 0  # dropped: the disk was full or refused


class FlightRecorder:
    """Takes records on the event loop, and writes them on a thread of its own."""

    def __init__(self, ring: SegmentRing, *, images: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.ring = ring
        self.images = images
        self.counts = Counts()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: deque[tuple[RequestRecord | ShadowRecord, bytes | None]] = deque()
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
        if record.wire != "none":
            self._hand_over(record, photo)

    def take_shadow(self, photo: bytes, probability: float) -> None:
        """Hand over what the shadow says of a photo; never waits."""
        self._hand_over(ShadowRecord(self.ring.clock(), "", probability), photo)

    def _hand_over(self, record: RequestRecord | ShadowRecord, photo: bytes | None) -> None:
        size = len(photo) if photo is not None else 0
        with self._lock:
            if len(self._waiting) >= MAX_WAITING or self._bytes + size > WAITING_BYTES:
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

    def _write(self, record: RequestRecord | ShadowRecord, picture: bytes | None) -> None:
        if self._monotonic() < self._rest_until:
            self.counts.disk += 1
            return
        if self._on_disk(lambda: self._put(record, picture)):
            self.counts.written += 1
        else:
            self.counts.disk += 1

    def _put(self, record: RequestRecord | ShadowRecord, picture: bytes | None) -> None:
        if picture is not None:
            image = hashlib.sha256(picture).hexdigest()
            if isinstance(record, ShadowRecord):  # whose photo was kept with its request
                record = replace(record, image=image)
            else:
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
        return FlightRecorder(SegmentRing(folder, max_bytes, max_seconds), images=mode == "images")
    except OSError as error:
        log.warning("RECORDER=%s: %s can't be used, nothing is recorded: %s", mode, folder, error)
        return None
