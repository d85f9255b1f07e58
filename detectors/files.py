"""Atomic writes of files and folders: a crash leaves no half of one."""

import os
from pathlib import Path


def write_safely(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a half."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


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
