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
LEAST = {"as they are": 0.98, "letterbox": 0.98, "native": 0.98, "jpeg": 0.95, "blur": 0.95, "noise": 0.95}
MOST_BYTES = 14e6  # of all that ships
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
    sizes = {path.name: path.stat().st_size for path in STARTER.iterdir() if path.is_file()}
    assert sum(sizes.values()) < MOST_BYTES
    assert f"{sum(sizes.values()) / 1e6:.1f} MB" in CARD
    assert f"{sizes['model.onnx'] / 1e6:.1f} MB as ONNX" in CARD
    assert f"{sizes['model.safetensors'] / 1e6:.1f} MB as safetensors" in CARD
    manifest = Manifest.read(STARTER)
    assert (manifest.name, manifest.detector, manifest.output.labels) == ("starter", "ViT", ["None", "Roadwork"])
    assert manifest.revision in CARD
    assert manifest.parity.max_difference < 1e-3


def test_the_licence_of_the_weights_it_began_with_lies_beside_it() -> None:
    assert "Apache License, Version 2.0" in (STARTER / "NOTICE").read_text()
    assert "license: apache-2.0" in CARD
