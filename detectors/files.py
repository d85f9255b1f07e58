"""Atomic writes of files and folders, so that a crash leaves no half of one; and locks on folders that are read."""

import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

_OWNING = threading.RLock()
TRIES, PAUSE = 5, 0.1  # seconds; who looks whether a folder is locked has it for a moment


def write_safely(path: Path, data: bytes, *, like: os.stat_result | None = None, mode: int = 0o666) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a half; no link is followed.

    Args:
        path: where it is to be.
        data: what is to be in it.
        like: owner, group and mode are to be this file's; None: those that a new file has.
        mode: of a new file, before the umask.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # of a process that was killed, or a link that somebody put there
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(partial, flags, mode if like is None else 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if like is not None:
            os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """Turn safetensors' own error, such as of a full disk, into the kind that any other file has; it names the path.

    Raises:
        OSError: the tensors can't be written there.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} can't be written: {error}") from error


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Write as a folder's owner, or its next parent's while it is not there yet; for the whole process.

    Root, who does something for a service, would make files that its user can't read, and follow any link it planted.
    One thread at a time is inside: the first to leave would make the others root again.
    """
    with _OWNING:
        found = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        link = found.lstat()  # of a user who may have planted it, to a folder of root
        owner = link if link.st_uid != 0 else found.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            yield
            return
        before = os.getegid()
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(before)


def settle(partial: Path, path: Path) -> None:
    """Put a file that somebody else wrote in its place, once it has reached the disk."""
    flush(partial)
    partial.replace(path)


def flush(path: Path) -> None:
    """Have a file that somebody else wrote reach the disk, so that it may be moved into its place."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLocks:
    """Shared locks on folders whose files this process reads, until they are closed or it ends, however it ends.

    They are on the folders themselves, which may be read-only. A folder that can't be locked is read all the same.
    A forked child, such as one that loads photos, lets go at once: it may outlive its killed parent by seconds.
    """

    _open: ClassVar[WeakSet["FolderLocks"]] = WeakSet()

    def __init__(self, *folders: Path) -> None:
        self._descriptors = [opened for folder in folders if (opened := _open_folder(folder)) is not None]
        self._open.add(self)
        for descriptor in self._descriptors:
            for _ in range(TRIES):
                if _try_lock(descriptor, fcntl.LOCK_SH):
                    break
                time.sleep(PAUSE)

    def close(self) -> None:
        """Let the folders go."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __del__(self) -> None:
        self.close()

    @classmethod
    def close_all(cls) -> None:
        """Let all folders go, in a child; its parent's locks stay, since it has descriptors of its own."""
        for locks in tuple(cls._open):
            locks.close()


os.register_at_fork(after_in_child=FolderLocks.close_all)


@contextmanager
def held_alone(folder: Path) -> Iterator[bool]:
    """Keep others from locking a folder; yield False where one has it locked: it reads what is in there."""
    descriptor = _open_folder(folder)
    try:
        yield descriptor is None or _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_in_use(folder: Path) -> bool:
    """Return whether a process has a folder locked."""
    with held_alone(folder) as is_free:
        return not is_free


def _open_folder(folder: Path) -> int | None:
    with suppress(OSError):
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return None


def _try_lock(descriptor: int, kind: int) -> bool:
    with suppress(OSError):  # a file system without locks, where nobody can have one
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
