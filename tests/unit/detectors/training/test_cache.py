"""Features on disk."""

from pathlib import Path

import numpy as np
import pytest

from detectors.training.config import Augment
from detectors.training.features import FeatureCache, FeatureKey, Row

ROWS: list[Row] = [("a" * 64, 0), ("a" * 64, 1), ("b" * 64, 0)]
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)
KEY = FeatureKey("weights", "preprocessing", 1, Augment(), 0)


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert cache.missing(ROWS) == ROWS
    cache.add(ROWS[:2], FEATURES[:2])
    cache.flush()
    again = FeatureCache(tmp_path)
    assert again.missing(ROWS) == ROWS[2:]
    again.add(ROWS[2:], FEATURES[2:])
    again.flush()
    whole = FeatureCache(tmp_path)
    assert np.array_equal(whole.matrix(ROWS[::-1]), FEATURES[::-1])
    assert len(list(tmp_path.iterdir())) == 2


def test_caches_of_two_machines_are_merged_by_copying(tmp_path: Path) -> None:
    for name, part in (("here", slice(0, 2)), ("there", slice(1, 3))):
        cache = FeatureCache(tmp_path / name)
        cache.add(ROWS[part], FEATURES[part])
        cache.flush()
    for path in (tmp_path / "there").iterdir():
        path.rename(tmp_path / "here" / path.name)
    assert np.array_equal(FeatureCache(tmp_path / "here").matrix(ROWS), FEATURES)


def test_a_damaged_file_is_named_and_what_it_held_is_missing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.add(ROWS, FEATURES)
    cache.flush()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    warnings: list[str] = []
    assert FeatureCache(tmp_path, warnings.append).missing(ROWS) == ROWS
    assert str(path) in warnings[0]


def test_a_kill_costs_a_minute_of_work_at_most(tmp_path: Path) -> None:
    now = 0.0
    cache = FeatureCache(tmp_path, clock=lambda: now)
    for now, row, files in ((30.0, 0, 0), (61.0, 1, 1), (90.0, 2, 1)):  # noqa: B007
        cache.add([ROWS[row]], FEATURES[row : row + 1])
        assert len(list(tmp_path.iterdir())) == files


def test_a_file_that_was_being_written_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "features-0000.npz.partial").write_bytes(b"half a file")
    warnings: list[str] = []
    assert len(FeatureCache(tmp_path, warnings.append)) == 0
    assert not warnings


@pytest.mark.parametrize(
    "other",
    [
        FeatureKey("other weights", "preprocessing", 1, Augment(), 0),
        FeatureKey("weights", "other preprocessing", 1, Augment(), 0),
        FeatureKey("weights", "preprocessing", 2, Augment(), 0),
        FeatureKey("weights", "preprocessing", 1, Augment(blur=0.5), 0),
        FeatureKey("weights", "preprocessing", 1, Augment(), 1),
        FeatureKey("weights", "preprocessing", 1, Augment(), 0, "whole + tiles 2x3, head"),
    ],
)
def test_whatever_features_depend_on_is_in_the_key(other: FeatureKey, tmp_path: Path) -> None:
    assert other.folder(tmp_path, "vit") != KEY.folder(tmp_path, "vit")
    assert KEY.folder(tmp_path, "vit") == FeatureKey("weights", "preprocessing", 1, Augment(), 0).folder(
        tmp_path, "vit"
    )
