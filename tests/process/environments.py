"""Environments of their own for what can't live beside our dependencies: older SDKs, other Pythons."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.process.daemon import clean_environment

REPOSITORY = Path(__file__).resolve().parents[2]
MARKER = "complete"  # written last
MINUTES = 60  # seconds


def cache() -> Path:
    return Path(os.environ.get("ROADWORK_TEST_CACHE") or REPOSITORY / ".cache").resolve()


def environment(name: str, python: str, *steps: Sequence[str], salt: bytes = b"") -> Path:
    """Return the Python of a virtual environment, made on first use or when its recipe has changed.

    Args:
        name: of its folder in the cache.
        python: the interpreter it is made from.
        steps: what is installed and taken out, each as arguments of pip.
        salt: what else the recipe depends on.
    """
    recipe = hashlib.sha256(repr((version_of(python), steps)).encode() + salt).hexdigest()
    folder = cache() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions may share the cache
        marker = folder / MARKER
        if not (marker.is_file() and marker.read_text() == recipe):
            shutil.rmtree(folder, ignore_errors=True)
            run(python, "-m", "venv", "--without-pip", str(folder))
            for step in steps:
                pip(folder / "bin" / "python", *step)
            marker.write_text(recipe)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str) -> None:
    """Install or take out packages of another Python's environment.

    By uv, whose cache the environments share by hard links. Where it finds no index, by pip: uv reads none of pip's
    settings.
    """
    command, *rest = arguments
    if execute(sys.executable, "-m", "uv", "pip", command, "--python", str(python), *rest).returncode != 0:
        run(sys.executable, "-m", "pip", "--python", str(python), *arguments)


def run(*command: str) -> str:
    """Run it and return what it printed; an error shows what it said."""
    done = execute(*command)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def execute(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run it, whatever comes of it."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=10 * MINUTES,
        env=clean_environment(UV_CACHE_DIR=str(cache() / "uv"), **quiet),
    )  # fmt: skip


def version_of(python: str) -> str | None:
    """Return `3.12` for an interpreter that runs; a shim of pyenv may be there and not run."""
    try:
        done = subprocess.run(
            [python, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, timeout=MINUTES,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find_python(version: str) -> str | None:
    """Return an interpreter of this version: our own, on the path, or of pyenv."""
    candidates = [sys.executable, shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        candidates += [str(path) for path in sorted(Path(root, "versions").glob(f"{version}*/bin/python"))]
    return next((path for path in candidates if path and version_of(path) == version), None)
