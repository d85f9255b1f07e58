"""A head on views: what it makes of their features, and what of a damaged file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.errors import DetectorConfigError, InferenceError, ModelFileError
from detectors.photos.view_head import HEAD_FILE, ViewHead, check_views, head_views, pool
from detectors.photos.views import Pool

VIEWS = head_views("whole,tiles:1x2")
FEATURES = np.array([[1, 2], [4, 0], [3, 8]], dtype=np.float32)  # of the whole and two tiles
HEAD = ViewHead(VIEWS, np.array([[1, 0], [2, 3]], np.float32), np.array([0.5, -1], np.float32))


def test_the_largest_of_each_feature_counts() -> None:
    assert pool(FEATURES).tolist() == [4, 8]


def test_the_answer_is_that_of_a_linear_layer() -> None:
    assert HEAD.width == 2
    assert HEAD([row[None] for row in FEATURES]).tolist() == [[4.5, 2 * 4 + 3 * 8 - 1]]


def test_a_head_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert ViewHead.read(tmp_path) is None
    HEAD.write(tmp_path)
    again = ViewHead.read(tmp_path)
    assert again is not None
    assert again.views == VIEWS
    assert np.array_equal(again.weight, HEAD.weight)
    assert np.array_equal(again.bias, HEAD.bias)


@pytest.mark.parametrize(
    "change",
    [
        {"views": ["whole"]},
        {"views": ["tiles 99x1"]},
        {"weight": [[], []]},
        {"weight": [[1.0], [1.0, 2.0]]},
        {"weight": [1.0] * 6},
        {"weight": [[float("nan")] * 6] * 2},
        {"bias": [1.0]},
        {"bias": "none"},
        {"weight": []},
    ],
)
def test_a_damaged_head_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    HEAD.write(tmp_path)
    path = tmp_path / HEAD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFileError, match=HEAD_FILE):
        ViewHead.read(tmp_path)
    path.write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match=HEAD_FILE):
        ViewHead.read(tmp_path)


def test_features_of_another_graph_are_no_answer() -> None:
    with pytest.raises(InferenceError, match=r"\(1, 2\)"):
        HEAD([np.zeros((1, 3), np.float32)] * 3)


@pytest.mark.parametrize("value", ["whole", "", "whole,tiles:0x2", "whole,whole"])
def test_a_head_needs_several_views(value: str) -> None:
    with pytest.raises(ValueError, match="view"):
        head_views(value)


def test_a_yaml_file_names_the_views_of_the_head_or_none() -> None:
    words = str(VIEWS)
    for parts, wanted in (((), None), (VIEWS.parts, "head")):
        check_views(words, parts, wanted, "a.yaml")
    check_views("", VIEWS.parts, "mean", "a.yaml")
    wrong: list[tuple[str, tuple[str, ...], Pool | None]] = [
        (words, VIEWS.parts, None),
        (words, VIEWS.parts, "max"),
        (words, ("whole", "tiles 2x2"), "head"),
        ("", VIEWS.parts, "head"),
    ]
    for learned, parts, wanted in wrong:
        with pytest.raises(DetectorConfigError, match=r"a\.yaml: .*pool=.*train"):
            check_views(learned, parts, wanted, "a.yaml")
