"""Programs of the distribution that tests drive."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def make_help(folder: Path) -> str:
    """Return what `make help` prints."""
    return subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def find(program: str, package: str) -> str:
    """Return the program's path; where it is missing the test names the package, and fails on CI or is skipped."""
    path = shutil.which(program)
    if path is None:
        missing(program, package)
    return path


def missing(what: str, package: str) -> NoReturn:
    """End the test, which needs this package: with a failure on CI."""
    message = f"{what} is missing; on Debian and Ubuntu: apt-get install --no-install-recommends {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
