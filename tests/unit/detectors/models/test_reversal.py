"""What tells a model that says the opposite."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import ModelFiles, RunOptions
from detectors.models.labels import DrawingCheck, ask_drawn, sorting_of
from detectors.models.manifest import Manifest
from detectors.registry import backend_class, network_class
from tests.reversed import copy_starter


@pytest.mark.slow  # it imports scikit-learn
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60))
def test_the_auc_is_that_of_scikit_learn_with_ties(rows: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score

    labels, said = [label for label, _ in rows], [tenth / 10 for _, tenth in rows]
    if len(set(labels)) == 2:
        assert sorting_of(labels, said).auc == pytest.approx(roc_auc_score(labels, said))


@pytest.mark.parametrize(
    ("works", "clear", "is_reversed"),
    [
        ([0.1] * 20, [0.9] * 20, True),
        ([0.9] * 20, [0.1] * 20, False),
        ([0.1] * 2, [0.9] * 2, False),  # one in six draws is like that
        ([0.1] * 4, [0.9] * 4, True),
        ([1.0] * 20, [1.0] * 20, False),  # says the same of everything
    ],
)
def test_reversed_is_an_auc_lower_than_chance(works: list[float], clear: list[float], is_reversed: bool) -> None:
    labels = [True] * len(works) + [False] * len(clear)
    assert sorting_of(labels, works + clear).is_reversed is is_reversed


def test_answers_drawn_by_lot_are_seldom_called_reversed() -> None:
    random = np.random.default_rng(1)
    labels = np.arange(40) < 13
    called = sum(sorting_of(labels, random.random(40)).is_reversed for _ in range(2000))
    assert called / 2000 < 0.04


@pytest.mark.parametrize("index", [0, 1])
def test_cones_in_a_drawn_road_tell_which_class_of_the_starter_is_roadwork(tmp_path: Path, index: int) -> None:
    folder = copy_starter(tmp_path / "model", index=index, labels=["LABEL_0", "LABEL_1"])
    detector = network_class("ViT")(ModelFiles(folder, Manifest.read(folder)), backend_class("onnx"), RunOptions())
    drawn = ask_drawn(lambda picture: detector.judge(picture).probability)
    assert drawn.is_reversed is (index == 0)
    assert all((without < with_cones) is (index == 1) for without, with_cones in drawn.pairs)


@pytest.mark.parametrize(
    "pairs", [(), [(0.5, 0.4)] * 6, [(0.9, 0.1)] * 5 + [(0.1, 0.2)], [(0.1, 0.9)] * 6]
)  # fmt: skip
def test_a_drawing_that_changes_little_or_both_ways_tells_nothing(pairs: list[tuple[float, float]]) -> None:
    assert not DrawingCheck(pairs).is_reversed
