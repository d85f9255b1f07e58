"""Features of a frozen network."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("torch")

import torch

from detectors.console import Screen
from detectors.photos.labelled import read_photos
from detectors.preprocess import from_processor_config
from detectors.training.budget import GB, MachineReading
from detectors.training.config import Augment
from detectors.training.dataset import Views
from detectors.training.features import FeatureCache, ViewPixels, precompute, rows_of
from detectors.training.job import TIME_OVER
from tests.photos import fill

SMALL = from_processor_config({"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}})


class Network(torch.nn.Module):
    """Says that memory is short when it is given more photos than it can take."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.most, self.head = most, torch.nn.Linear(3, 2)
        self.batches: list[int] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.batches.append(len(pixels))
        logits: torch.Tensor = self.head(pixels.mean((2, 3)))
        return logits


def calm() -> MachineReading:
    return MachineReading(resident=GB, available=8 * GB, memory=16 * GB)


def test_features_are_computed_once_and_in_smaller_parts_where_memory_runs_short(tmp_path: Path) -> None:
    photos = read_photos(fill(tmp_path / "photos", 3)).photos
    views, rows, said = Views(Augment(), 0), rows_of(photos, 1), io.StringIO()
    screen = Screen(Console(file=said))
    network, cache = Network(most=2), FeatureCache(tmp_path / "cache")
    wanted = ViewPixels(photos, rows, views, SMALL)
    assert precompute(network, wanted, cache, screen, calm, micro_batch=8, workers=1) == 12
    assert network.batches == [2] * 6
    assert "micro-batch 2 from here on" in said.getvalue()

    again = FeatureCache(tmp_path / "cache")
    assert again.missing(rows) == []
    expected = SMALL(views.view(photos[2], 1)).mean((2, 3))[0]
    assert np.allclose(again.matrix([(photos[2].digest, 1)])[0], expected, atol=1e-5)


def test_where_it_has_to_stop_what_is_there_is_kept(tmp_path: Path) -> None:
    photos = read_photos(fill(tmp_path / "photos", 3)).photos
    wanted = ViewPixels(photos, rows_of(photos, 1), Views(Augment(), 0), SMALL)
    cache, screen = FeatureCache(tmp_path / "cache"), Screen(Console(file=io.StringIO()))
    reasons = iter([None, TIME_OVER])
    stopped = precompute(Network(8), wanted, cache, screen, calm, micro_batch=4, stop=lambda: next(reasons))
    assert stopped == 8
    assert FeatureCache(tmp_path / "cache").missing(wanted.rows) == wanted.rows[8:]
