"""The files that a model is mapped from, kept from being changed under it.

A library that maps a file reads it while it runs: bytes that are written into the file are served, and a file that is
cut short ends the process with SIGBUS. A lease of the kernel (fcntl(2), F_SETLEASE) keeps whoever opens such a file for
writing waiting until it is let go, which is once nothing is read any more. Where there is none to be had (the file is
another user's, some network disks), size and time of change are looked at before each picture. A copy in memory would
be safe too and cost its whole size: of a ViT-base's 343 MB, onnxruntime reads 2 MB in the map once it is loaded.
"""

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from detectors.errors import InferenceError

log = logging.getLogger(__name__)

MAPS = Path("/proc/self/maps")


@dataclass(slots=True)
class Held:
    """A mapped file, open: what it was like when it was mapped, and whether the kernel keeps writers waiting."""

    path: Path
    descriptor: int
    size: int
    changed: int  # nanoseconds
    leased: bool = False
    leasable: bool = False  # as far as was tried

    @property
    def is_same(self) -> bool:
        """Whether nothing was written since; another file of the same name is none of our business."""
        now = os.fstat(self.descriptor)
        return (now.st_size, now.st_mtime_ns) == (self.size, self.changed)

    def lease(self) -> bool:
        """Ask the kernel to keep writers waiting; return whether it does."""
        with suppress(OSError):
            fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGURG)  # which nobody minds; SIGIO would end us
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            self.leased = self.leasable = True
        return self.leased

    @property
    def is_wanted(self) -> bool:
        """Whether a writer waits."""
        return self.leased and fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def let_go(self) -> None:
        """Let writers go on."""
        if self.leased:
            self.leased = False
            with suppress(OSError):
                fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


class MappedFiles:
    """The files below some folders that this process has mapped.

    Safe to use from several threads. Until `hold` there are no leases: only who looks again and again may have them.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = [held for path in mapped_below(folders) if (held := _open(path)) is not None]
        self._lock = threading.Lock()
        self._readers = 0
        self._is_holding = False
        self._fault: str | None = None

    def hold(self) -> None:
        """Keep writers waiting from now on, until `look` has seen them and nobody reads."""
        with self._lock:
            self._is_holding = True
            bare = [str(held.path) for held in self._files if not held.lease()]
        if bare:
            log.info(
                "%s: mapped, and another user's or on a disk without leases: who cuts it short ends this process",
                ", ".join(bare),
            )

    def look(self) -> str | None:
        """Look at the files; return why none of them may be read, or None."""
        with self._lock:
            self._look()
            return self._fault

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the mapped files.

        Raises:
            InferenceError: one of them has changed, or is about to.
        """
        with self._lock:
            self._look()
            if self._fault is not None:
                log.warning("a picture is not scored: %s", self._fault)
                raise InferenceError("the model's files are being changed")  # without their path: a caller reads it
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1

    def close(self) -> None:
        """Let them go."""
        with self._lock:
            for held in self._files:
                os.close(held.descriptor)  # and the lease with it
            self._files = []

    def __del__(self) -> None:
        self.close()

    def _look(self) -> None:
        changed = next((held for held in self._files if not held.is_same), None)
        wanted = next((held for held in self._files if held.is_wanted), None)
        if changed is not None:
            self._fault = f"the model's file {changed.path} was changed while it is served"
        elif wanted is not None:
            self._fault = f"the model's file {wanted.path} is being opened for writing while it is served"
        elif self._fault is not None and all(held.leased or held.lease() or not held.leasable for held in self._files):
            self._fault = None  # who opened it has closed it again, and left it as it was
        if self._fault is not None and self._readers == 0:
            for held in self._files:
                if held is changed or held.is_wanted:
                    held.let_go()


def mapped_below(folders: Sequence[Path], maps: Path = MAPS) -> list[Path]:
    """Return the files below these folders that this process has mapped, those that links there mean among them."""
    roots = [os.path.realpath(folder) + os.sep for folder in folders]
    linked = {os.path.realpath(path) for folder in folders for path in folder.rglob("*") if path.is_symlink()}
    try:
        lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    names = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(Path(name) for name in names if name.startswith(tuple(roots)) or name in linked)


def _open(path: Path) -> Held | None:
    """Open a mapped file; None where another one has taken its place, which nobody serves."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    now = os.fstat(descriptor)
    return Held(path, descriptor, now.st_size, now.st_mtime_ns)
