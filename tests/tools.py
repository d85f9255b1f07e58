"""Programs of the distribution that tests drive."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from miner.chain.client import CLOSE_SECONDS, GRACE_SECONDS
from miner.http.server import CLOSING_SECONDS
from miner.inference.background import LAST_SECONDS
from miner.settings.settings import Settings


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


def longest_stop() -> float:
    """Return how many seconds a miner may take to stop: whoever kills it has to wait for longer.

    Drained, then both ports and the chain's client closed, then what may hold a test of the model under way: beat,
    health and reload.
    """
    return Settings().drain_seconds + 2 * CLOSING_SECONDS + CLOSE_SECONDS + GRACE_SECONDS + 3 * LAST_SECONDS
