"""Programs of the distribution that tests drive."""

import os
import shutil

import pytest


def find(program: str, package: str) -> str:
    """Return the program's path; where it is missing the test names the package, and fails on CI or is skipped."""
    path = shutil.which(program)
    if path is not None:
        return path
    message = f"{program} is missing; on Debian and Ubuntu: apt-get install --no-install-recommends {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
