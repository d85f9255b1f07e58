"""How many files a thing passes on its way, counted by `tests/hops.py` in a process of its own."""

import re
import subprocess
import sys

import pytest

from tests.hops import MOST
from tests.house import ROOT

pytestmark = pytest.mark.slow
ENDS = {
    "model": ("detectors/models/config", "detectors/backends/onnx"),
    "training": ("miner/cli/train", "detectors/backends/ort_cache"),
    "setting": ("miner/settings/settings", "miner/inference/queue"),
    "request": ("miner/axon/body", "detectors/backends/onnx"),
}


@pytest.mark.parametrize("way", ["model", pytest.param("training", marks=pytest.mark.export), "setting", "request"])
def test_a_way_is_short_and_goes_from_end_to_end(way: str) -> None:
    if way == "training":
        pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-m", "tests.hops", way], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(rf"^{way}: \d+, at most \d+: (.+)$", done.stdout, re.MULTILINE)
    files = line.split(", ")
    assert len(files) <= MOST[way], line
    assert set(ENDS[way]) <= set(files)
