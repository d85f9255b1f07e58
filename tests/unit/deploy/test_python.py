"""Which Python an environment is made from: programs in folders of their own, which say what a Python would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.expressions import DEPLOY

SCRIPT = DEPLOY / "python.sh"
OLD = "import sys; sys.version_info = (3, 10, 12); "
BARE = "import sys; sys.modules['ensurepip'] = None; "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder of programs, the only ones on the path but for the script's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "sort", "head", "find"):
        (folder / tool).symlink_to(
            next(place for place in (Path("/usr/bin", tool), Path("/bin", tool)) if place.exists())
        )
    return folder


def python(path: Path, before: str = "import sys; ") -> Path:
    """Make an interpreter that is ours, but for what it does before it obeys."""
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{before}exec(sys.argv[2])" "$@"\n')
    path.chmod(0o755)
    return path


def asked(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(path / "bash"), str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60,
        env={"PATH": str(path), "HOME": str(path)} | environment,
    )  # fmt: skip


def test_the_machines_own_comes_first_and_nothing_is_said(path: Path) -> None:
    python(path / "python3")
    python(path / "python3.12")
    done = asked(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "python3\n", "")


def test_another_is_taken_where_it_is_too_old_or_bare_and_that_is_said(path: Path) -> None:
    python(path / "python3", OLD)
    python(path / "python3.13", BARE)
    python(path / "python3.11")
    done = asked(path)
    assert (done.returncode, done.stdout) == (0, "python3.11\n"), done.stderr
    (said,) = done.stderr.splitlines()
    assert "3.10" in said
    assert "python3.11" in said


def test_uv_is_asked_last_and_may_download_nothing(path: Path) -> None:
    python(path / "python3", OLD)
    own = python(path / "of-uv")
    uv = path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$UV_PYTHON_DOWNLOADS $UV_PYTHON_PREFERENCE $*" >"$HOME/asked"\necho {own}\n')
    uv.chmod(0o755)
    done = asked(path)
    assert (done.returncode, done.stdout) == (0, f"{own}\n"), done.stderr
    assert (path / "asked").read_text().split()[:4] == ["never", "only-managed", "python", "find"]


def test_where_there_is_none_it_says_how_to_get_one(path: Path) -> None:
    python(path / "python3", OLD)
    done = asked(path)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    for part in ("3.11", "3.10", "uv python install"):
        assert part in said
    for missing in path.glob("python*"):
        missing.unlink()
    assert asked(path).returncode == 2


@pytest.mark.parametrize("before", [OLD, BARE])
def test_the_one_that_is_named_is_taken_or_refused(path: Path, before: str) -> None:
    python(path / "python3", before)
    mine = python(path / "mine", before)
    assert asked(path, PYTHON=str(mine)).returncode == 2
    assert str(mine) in asked(path, PYTHON=str(mine)).stderr
    python(path / "mine")
    assert asked(path, PYTHON=str(mine)).stdout == f"{mine}\n"


def test_a_service_is_given_the_real_place_and_none_below_a_home(path: Path) -> None:
    real = os.path.realpath(sys.executable)
    done = asked(path, "--service", PYTHON=sys.executable)
    if real.startswith(("/home/", "/root/")):
        assert (done.returncode, real in done.stderr) == (2, True)
    else:
        assert done.stdout == f"{real}\n"
