"""A label check that is stopped in the middle of its features keeps those that it has."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.photos import fill
from tests.process.daemon import PATIENCE, clean_environment

pytest.importorskip("torch")
pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow
CACHED = re.compile(r"features: (\d+) of (\d+) are cached")


def start(folder: Path) -> "subprocess.Popen[str]":
    arguments = ["labels", "photos", "--model", "lite0", "--cache", "cache"]
    settings = ["threads=1", "workers=0", "micro_batch=1"]
    return subprocess.Popen(
        [sys.executable, "-m", "miner", *arguments, *(word for one in settings for word in ("--set", one))],
        cwd=folder, stderr=subprocess.PIPE, text=True,
        env=clean_environment(PYTHONPATH=str(Path(__file__).parents[2])),
    )  # fmt: skip


def test_features_outlive_a_stop(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 40)
    with start(tmp_path) as stopped:
        assert stopped.stderr is not None
        for line in stopped.stderr:
            if line.startswith("estimate: "):  # from here on it computes, and looks behind each photo
                stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(PATIENCE) == 3
    again = start(tmp_path)
    _, told = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, told
    (found,) = CACHED.findall(told)
    kept, of = map(int, found)
    assert 0 < kept < of
    assert (tmp_path / "doubts.html").is_file()
