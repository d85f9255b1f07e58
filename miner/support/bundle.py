"""The parts of a bundle, as texts that say why one could not be had, and their archive."""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

import httpx

from detectors.machine import allowed_cores
from miner import __version__
from miner.doctor.findings import Finding, verdict
from miner.errors import CouldNotStart
from miner.inference.plan import cpu_model
from miner.recorder import FOLDER
from miner.recorder.records import SEGMENTS
from miner.settings.settings import Settings
from miner.support.scrub import scrubbed

ANSWER_SECONDS = 5.0  # seconds for the operator's port
LOG_LINES = 5000  # of the journal
LAST_BYTES = 2**22  # of a log file, and of the recorder's lines: the redaction takes a second for each megabyte or two
JOURNAL_SECONDS = 60.0


def asked(address: str, path: str) -> str:
    """Return a page of the operator's port, or why there is none."""
    try:
        return httpx.get(address + path, timeout=ANSWER_SECONDS, trust_env=False).text
    except httpx.HTTPError as error:
        return f"no miner answers at {address}: {error or type(error).__name__}\n"


def findings_text(findings: Sequence[Finding], settings: Settings, *, running: bool) -> str:
    """Return the check-up as `doctor --json` prints it."""
    sentence = verdict(findings, running=running, standalone=settings.is_standalone)
    return json.dumps({"findings": [asdict(one) for one in findings], "verdict": sentence}, indent=2)


def versions_text() -> str:
    """Return this program, the machine, and every installed package with its version."""
    packages = {one.metadata["Name"]: one.version for one in distributions() if one.metadata["Name"]}
    return json.dumps(
        {
            "roadwork-miner": __version__,
            "python": sys.version,
            "platform": platform.platform(),
            "libc": " ".join(platform.libc_ver()),
            "cpu": cpu_model(),
            "cores": allowed_cores(),
            "packages": dict(sorted(packages.items(), key=lambda pair: pair[0].lower())),
        },
        indent=2,
    )


def recorded_texts(state_dir: Path, most: int = LAST_BYTES) -> dict[str, str]:
    """Return the recorder's last lines by name of their file; photos stay here."""
    texts: dict[str, str] = {}
    for path in sorted((state_dir / FOLDER).glob(SEGMENTS), reverse=True):
        if most <= 0:
            break
        try:
            text = last_lines(path, most)
        except FileNotFoundError:  # the ring has turned meanwhile
            continue
        except OSError as error:
            text = f"can't be read: {error.strerror or error}\n"
        if text:
            texts[f"recorder/{path.name}"] = text
            most -= len(text)
    return dict(sorted(texts.items()))


def log_text(file: Path | None, patience: float = JOURNAL_SECONDS) -> str:
    """Return the end of a log file, or of the service's journal where there is one.

    Raises:
        OSError: the file can't be read.
    """
    if file is not None:
        return last_lines(file, LAST_BYTES)
    journal = shutil.which("journalctl")
    if journal is None:
        return "no journal on this machine; --log FILE adds a file\n"
    command = [journal, "--unit=roadwork-miner@*", f"--lines={LOG_LINES}", "--no-pager", "--output=short-iso"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, check=False)  # noqa: S603 - fixed words
    except subprocess.TimeoutExpired:
        return f"the journal was silent for {patience:g} s; --log FILE adds a file\n"
    except OSError as error:
        return f"the journal can't be asked: {error.strerror or error}\n"
    return done.stdout.decode("utf-8", errors="replace") or "the journal has nothing of the service\n"


def kept_log_text(file: Path, most: int = LAST_BYTES) -> str:
    """Return the end of the miner's own LOG_FILE, with that of the one before it where it is short."""
    texts: list[str] = []
    for path in (file, file.with_name(f"{file.name}.1")):
        try:
            texts.insert(0, last_lines(path, most - sum(map(len, texts))))
        except FileNotFoundError:
            continue
        except OSError as error:
            texts.insert(0, f"{path}: can't be read: {error.strerror or error}\n")
    return "".join(texts) or f"LOG_FILE={file}: there is none yet\n"


def last_lines(path: Path, most: int) -> str:
    """Return the last whole lines of a file: the rest of one that was cut could be the rest of a secret.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - most)
        file.seek(max(0, start - 1))
        if start:
            file.readline()
        return file.read(most).decode("utf-8", errors="replace")


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
