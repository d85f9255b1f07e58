"""Atomic writes of files and folders: a crash leaves no half of one."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
def as_owner(folder: Path) -> Iterator[None]:
    """Write as a folder's owner, or its next parent's while it is not there yet; for the whole process.

    Root, who does something for a service, would make files that its user can't read, and follow any link it planted.
    """
    owner = next(one for one in (folder, *folder.absolute().parents) if one.exists()).stat()
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
