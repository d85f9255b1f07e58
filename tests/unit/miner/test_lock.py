"""One daemon for each state folder."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from miner.errors import CouldNotStart
from miner.lock import LOCK_FILE, alone, holder

NOBODY = 65534
HOLD = """
import sys
from pathlib import Path
from miner.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    """Return another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_one_is_refused_with_the_pid_of_the_first_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    with hold(tmp_path) as other:
        assert holder(tmp_path) == other.pid
        with pytest.raises(CouldNotStart, match=rf"STATE_DIR=.*, with pid {other.pid};"), alone(tmp_path):
            pass
        other.kill()
    assert holder(tmp_path) is None
    with alone(tmp_path):
        assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None


def test_a_folder_is_made_on_first_use_and_nobody_holds_one_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert holder(folder) is None
    with alone(folder):
        assert (folder / LOCK_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else for a while")
def test_a_folder_of_another_user_is_told_with_both() -> None:
    with tempfile.TemporaryDirectory() as folder:  # where anybody may look
        os.seteuid(NOBODY)
        try:
            with pytest.raises(CouldNotStart, match=rf"user 0\b.* {NOBODY}$"), alone(Path(folder)):
                pass
        finally:
            os.seteuid(0)


def test_a_folder_that_can_not_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refusal = pytest.raises(CouldNotStart, match=r"STATE_DIR=.*file/state: .*: Not a directory")
    with refusal, alone(tmp_path / "file" / "state"):
        pass
