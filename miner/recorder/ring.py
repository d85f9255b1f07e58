"""The files of the recorder: segments of lines and photos, the oldest deleted first; bounded in size and age."""

import shutil
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from miner.recorder.records import IMAGES, SEGMENTS

SHARE = 16  # segments in the whole: the most that is lost of the past when one is deleted
LEAST_FREE = 256 * 2**20  # bytes of the disk that are left to others


class DiskFull(OSError):
    """Writing on would take the last of the disk."""


@dataclass(frozen=True, slots=True)
class _Kept:
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
        (folder / IMAGES).mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        found = [*folder.glob(SEGMENTS), *(folder / IMAGES).iterdir()]
        kept = [_Kept(path, state.st_size, state.st_mtime) for path in found for state in (path.stat(),)]
        self._kept = sorted(kept, key=_since)  # an open segment is not among them
        self._names = {one.path.name for one in kept}
        self.bytes = sum(one.size for one in kept)
        self._segment: FileIO | None = None
        self._segment_since = 0.0
        self._segment_bytes = 0
        self.trim()

    def append(self, line: bytes) -> None:
        """Write a line at the end.

        Raises:
            OSError: the disk does not take it; the next line begins a new segment.
        """
        self._make_room(len(line))
        if self._segment is None or self._is_full(len(line)):
            self.close()
            self._segment_since = self.clock()
            path = self.folder / f"requests-{time.time_ns()}.jsonl"
            self._segment = FileIO(path, "ax" if path.exists() else "x")
            path.chmod(0o600)
        try:
            if self._segment.write(line) != len(line):
                raise DiskFull("only a part of a line was written")
        except OSError:
            self.close()
            raise
        self._segment_bytes += len(line)
        self.bytes += len(line)

    def keep(self, name: str, data: bytes) -> None:
        """Write a photo, if it is not there yet.

        Raises:
            OSError: the disk does not take it.
        """
        if name in self._names or len(data) > self.max_bytes // 2:
            return
        self._make_room(len(data))
        path = self.folder / IMAGES / name
        partial = path.with_suffix(".partial")
        try:
            partial.touch(0o600)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        insort(self._kept, _Kept(path, len(data), self.clock()), key=_since)
        self._names.add(name)
        self.bytes += len(data)

    def trim(self, more: int = 0) -> None:
        """Delete what is too old, and the oldest until `more` bytes fit."""
        if self._segment is not None and self.clock() - self._segment_since > self.max_seconds / SHARE:
            self.close()
        while self._kept and (
            self.bytes + more > self.max_bytes or self.clock() - self._kept[0].since > self.max_seconds
        ):
            oldest = self._kept.pop(0)
            oldest.path.unlink(missing_ok=True)
            self._names.discard(oldest.path.name)
            self.bytes -= oldest.size

    def close(self) -> None:
        """End the segment."""
        if self._segment is not None:
            self._segment.close()
            insort(self._kept, _Kept(Path(self._segment.name), self._segment_bytes, self._segment_since), key=_since)
            self._segment, self._segment_bytes = None, 0

    def _make_room(self, more: int) -> None:
        self.trim(more)
        if self._free(self.folder) < LEAST_FREE + more:
            raise DiskFull(f"less than {LEAST_FREE >> 20} MiB are free")

    def _is_full(self, more: int) -> bool:
        return self._segment_bytes + more > self.max_bytes // SHARE


def _since(kept: _Kept) -> float:
    return kept.since
