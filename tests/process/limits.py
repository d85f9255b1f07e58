"""Real limits of this machine for a test: a disk that is full, a cgroup with little memory. Skips where it may not."""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectors.machine import cgroup_folders

LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")  # of version 2 and 1
USAGE_FILES = ("memory.current", "memory.usage_in_bytes")
FILL = """
import sys
data = bytearray(int(sys.argv[1]))
data[::4096] = b"x" * len(data[::4096])
print(flush=True)
sys.stdin.read()
"""
PAGE = 4096


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a disk of this size."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte, and return the file to delete."""
    assert folder.is_mount()
    assert shutil.disk_usage(folder).total < 2**20  # not the machine's own
    path = folder / "everything"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE))
    return path


class MemoryGroup:
    """A cgroup with a memory limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def prefix(self) -> list[str]:
        """What a command line begins with to run in it."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$0" "$@"']

    @property
    def left(self) -> int:
        """Bytes until the limit, cache counted as used."""
        for limit, usage in zip(LIMIT_FILES, USAGE_FILES, strict=True):
            if (self.folder / limit).exists():
                return int((self.folder / limit).read_text()) - int((self.folder / usage).read_text())
        raise AssertionError(self.folder)

    @property
    def used(self) -> int:
        """Bytes that are used, but for cache that can be thrown out."""
        stat = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        usage = next(self.folder / name for name in USAGE_FILES if (self.folder / name).exists())
        cache = sum(int(stat.get(f"total_{kind}", stat.get(kind, 0))) for kind in ("inactive_file", "active_file"))
        return int(usage.read_text()) - cache

    def limit(self, size: int) -> None:
        """Set another limit."""
        next(self.folder / name for name in LIMIT_FILES if (self.folder / name).exists()).write_text(str(size))

    @contextlib.contextmanager
    def neighbour(self, size: int) -> Iterator[None]:
        """Have another process of the group hold so many bytes."""
        command = [*self.prefix, sys.executable, "-c", FILL, str(size)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline(), "the neighbour was killed"
            yield
            process.kill()


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """Make a group below our own with this limit."""
    folder = next(cgroup_folders(Path("/"), "memory")) / f"roadwork-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("may not make a cgroup here")
    try:
        file = next((folder / name for name in LIMIT_FILES if (folder / name).exists()), None)
        if file is None:
            pytest.skip("the groups here have no memory limit")
        file.write_text(str(limit))
        yield MemoryGroup(folder)
    finally:
        folder.rmdir()
