"""The lock of a state folder: one daemon each; the kernel lets go of it however the process ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from miner.errors import CouldNotStart

LOCK_FILE = "miner.lock"
TRIES, PAUSE = 5, 0.1  # seconds; `holder` has the lock for a moment


@contextlib.contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Hold the state folder for as long as the context lasts; our pid stands in the lock's file.

    Raises:
        CouldNotStart: another process holds it, or it can't be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CouldNotStart(f"STATE_DIR={state_dir}: can't be used: {error.strerror}{_owner(state_dir)}") from error
    try:
        for attempt in range(TRIES):
            if _lock(descriptor, fcntl.LOCK_EX):
                break
            if attempt == TRIES - 1:
                raise CouldNotStart(
                    f"STATE_DIR={state_dir}: a running miner uses it, with pid {_read(descriptor) or 'unknown'}; "
                    f"a second one needs a folder of its own"
                )
            time.sleep(PAUSE)
        os.truncate(descriptor, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _owner(state_dir: Path) -> str:
    """Say whose the folder is, or the lock within, if they are another user's: such as of a container's volume."""
    for path in (state_dir / LOCK_FILE, state_dir):
        with contextlib.suppress(OSError):
            owner = path.stat().st_uid
            if owner != os.geteuid():
                return f"; {path} belongs to user {owner}, and this one is {os.geteuid()}"
    return ""


def holder(state_dir: Path) -> int | None:
    """Return the pid of the daemon that holds a state folder, or None.

    Raises:
        CouldNotStart: the folder can't be read.
    """
    try:
        descriptor = os.open(state_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CouldNotStart(f"STATE_DIR={state_dir}: can't be read: {error.strerror}") from error
    try:
        return None if _lock(descriptor, fcntl.LOCK_SH) else _read(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
