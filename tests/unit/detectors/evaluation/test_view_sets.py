"""Sets of views: what each is worth and costs, and which one is advised."""

from pathlib import Path

import numpy as np
import pytest

from detectors.evaluation.view_sets import ALONE, AskedViews, MeasuredSet, advised, measure_sets
from detectors.models.config import read_config
from detectors.photos.views import PooledViews, parse

TILED, FLIPPED = PooledViews(parse("whole, tiles 2x3"), "max"), PooledViews(parse("whole, flip"), "mean")
SETS = [TILED, FLIPPED]


def asked(photos: int, found_by_tiles: float, seed: int = 0) -> tuple[np.ndarray, AskedViews]:
    """Return labels, and answers of a model that finds half of the works, and in its tiles this share of the rest."""
    random = np.random.default_rng(seed)
    labels = np.arange(photos) % 2 == 0
    near = random.random(photos) < 0.5
    far = random.random(photos) < found_by_tiles
    noise = random.uniform(0, 0.2, (photos, 8))
    whole = np.where(labels & near, 0.7, 0.0)[:, None] + noise[:, :1]
    tiles = noise[:, 1:7] + np.where(labels & far, 0.75, 0.0)[:, None] * (np.arange(6) == 2)
    said = {"whole": whole, "tiles 2x3": tiles, "flip": whole}
    return labels, AskedViews(said, {"whole": 0.01, "tiles 2x3": 0.06, "flip": 0.011}, 0.002)


def measured(photos: int, found_by_tiles: float) -> list[MeasuredSet]:
    labels, answers = asked(photos, found_by_tiles)
    return measure_sets(labels, answers, SETS)


def test_a_set_that_gains_is_advised_with_its_threshold_and_its_cost() -> None:
    alone, tiled, flipped = rows = measured(400, 0.8)
    assert [row.views for row in rows] == [ALONE, *SETS]
    assert (alone.gain.value, flipped.gain.value) == (0, pytest.approx(0, abs=1e-9))
    assert tiled.own.recall > alone.own.recall + 0.2
    assert tiled.gain.low > 0
    assert (tiled.seconds, tiled.times) == (pytest.approx(0.072), pytest.approx(6))
    assert advised(rows) is tiled
    assert tiled.plain()["views"] == ["whole", "tiles 2x3"]


def test_what_gains_by_chance_or_not_at_all_is_not_advised() -> None:
    assert advised(measured(400, 0.0)) is None
    assert advised(measured(40, 0.15)) is None


def test_the_cheaper_of_two_that_are_alike_is_advised() -> None:
    labels, answers = asked(400, 0.8)
    again = PooledViews(parse("whole, flip, tiles 2x3"), "max")
    chosen = advised(measure_sets(labels, answers, [again, TILED]))
    assert chosen is not None
    assert chosen.views == TILED


def test_its_own_threshold_is_of_other_photos_and_half_is_half() -> None:
    labels, answers = asked(400, 0.8)
    shifted = AskedViews({name: values * 0.3 for name, values in answers.said.items()}, answers.seconds, 0.002)
    _, tiled, _ = measure_sets(labels, shifted, SETS)
    assert (tiled.half.recall, tiled.half.specificity) == (0, 1)
    assert tiled.own.recall > 0.7
    assert tiled.threshold < 0.3


def test_the_lines_that_it_writes_serve_that_set(tmp_path: Path) -> None:
    row = measured(100, 0.8)[1]
    path = tmp_path / "mine.yaml"
    path.write_text(f"hf_repo: you/model\n{row.yaml}\n")
    config = read_config(str(path))
    assert config.pooled_views == TILED
    assert config.threshold == pytest.approx(row.threshold, abs=1e-9)


@pytest.mark.parametrize("odds", [-11.0, -6.0, 0.0, 8.0, 11.0])
def test_the_threshold_that_it_writes_decides_as_the_one_that_was_found(tmp_path: Path, odds: float) -> None:
    labels = np.arange(60) % 2 == 0
    said = 1 / (1 + np.exp(-(odds + np.where(labels, 1, -1) * np.random.default_rng(0).uniform(0.01, 0.5, 60))))
    answers = AskedViews({"whole": said[:, None], "flip": said[:, None]}, {"whole": 0.01, "flip": 0.01}, 0.0)
    row = measure_sets(labels, answers, [FLIPPED])[1]
    path = tmp_path / "mine.yaml"
    path.write_text(f"hf_repo: you/model\n{row.yaml}\n")
    cut = read_config(str(path)).threshold
    assert cut is not None
    assert ((said > cut) == labels).all()
    assert len(repr(cut)) <= len("0.99999999")
