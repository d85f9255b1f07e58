"""The shipped starter and what its card says of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from detectors.evaluation.estimates import share_estimate
from detectors.models.manifest import Manifest

STARTER = Path(__file__).resolve().parents[4] / "detectors" / "starter"
CARD = (STARTER / "README.md").read_text()
# What is demanded of it on photos that it has not seen.
LEAST = {"as they are": 0.97, "letterbox": 0.95, "jpeg": 0.95, "blur": 0.95, "noise": 0.95}
ROWS = re.findall(r"^\| ([a-z ]+?) \| (\d+) of (\d+) \| ([\d.]+) % \| ([\d.]+) to ([\d.]+) %", CARD, flags=re.MULTILINE)


def test_the_card_measures_what_is_demanded() -> None:
    measured = {name: int(right) / int(of) for name, right, of, *_ in ROWS[: len(ROWS) // 2]}
    assert measured.keys() >= LEAST.keys()
    assert {name: measured[name] >= least for name, least in LEAST.items()} == dict.fromkeys(LEAST, True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[2]}")
def test_an_interval_of_the_card_follows_from_its_counts(row: tuple[str, ...]) -> None:
    right, of = int(row[1]), int(row[2])
    share = share_estimate(np.arange(of) < right)
    assert [f"{100 * value:.1f}" for value in (share.value, share.low, share.high)] == list(row[3:])


def test_it_is_small_and_what_the_card_calls_it() -> None:
    size = (STARTER / "model.onnx").stat().st_size
    assert size < 12e6
    assert f"{size / 1e6:.1f} MB as ONNX" in CARD
    manifest = Manifest.read(STARTER)
    assert (manifest.name, manifest.detector, manifest.output.labels) == ("starter", "ViT", ["None", "Roadwork"])
    assert manifest.revision in CARD
