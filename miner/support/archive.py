"""The archive: every text through the sieve, and into one file that only its owner can read."""

import io
import os
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from miner.errors import CouldNotStart
from miner.support.scrub import scrubbed


def write_archive(path: Path, texts: Mapping[str, str], secrets: Sequence[str]) -> None:
    """Write the texts as files of a `tar.gz`, in a folder of the archive's name.

    Raises:
        CouldNotStart: the file can't be written.
    """
    folder, now = path.name.removesuffix(".tar.gz"), int(time.time())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in texts.items():
                data = scrubbed(text, secrets).encode()
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size, member.mtime, member.mode = len(data), now, 0o600
                archive.addfile(member, io.BytesIO(data))
    except OSError as error:
        raise CouldNotStart(f"--out={path}: can't be written: {error.strerror or error}") from error
