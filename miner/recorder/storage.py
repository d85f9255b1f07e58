"""The files of the recorder: segments of lines and photos, the oldest deleted first; bounded in size and age."""

import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from miner.recorder.records import IMAGES, SEGMENTS, began

SHARE = 16  # segments in the whole: the most that is lost of the past when one is deleted
LEAST_FREE = 256 * 2**20  # bytes of the disk that are left to others


class DiskFull(OSError):
    """Writing on would take the last of the disk."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file, and since when it is kept: a segment from its first record on, a photo from its last request."""

    path: Path
    size: int
    since: float


class Ring:
    """Written by one thread; a process that is killed loses at most the line it was writing."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        max_seconds: float,
        clock: Callable[[], float] = time.time,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
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
        if self._segment is not None and self.clock() - self._segment_since > self.max_seconds / SHARE:
            self.close()
        while (oldest := self._oldest()) is not None and (
            self.bytes + more > self.max_bytes or self.clock() - oldest.since > self.max_seconds
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

    def _in_order(self, found: Iterable[tuple[Path, float | None]]) -> OrderedDict[str, _Kept]:
        """Return files of an earlier process by age: their own times if they have any, else when they were written."""
        now = self.clock()  # a time to come would keep a file for longer
        kept = [
            _Kept(path, state.st_size, min(now, state.st_mtime if since is None else since))
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
        return self._segment_bytes + more > self.max_bytes // SHARE
