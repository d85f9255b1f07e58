"""Views of a picture: what is cut, what a list may name, and how answers are pooled."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from detectors.errors import ImageError
from detectors.models.processors import BILINEAR
from detectors.photos.views import MOST_VIEWS, PooledViews, parse, views_of
from detectors.preprocess import Preprocessing

SIDES = st.integers(1, 5000)
GRIDS = st.tuples(st.integers(1, 8), st.integers(1, 8)).filter(lambda grid: grid[0] * grid[1] <= MOST_VIEWS)
PLAIN = Preprocessing("shortest", (32, 32), BILINEAR, (28, 28), "down", "torchvision", (1, 1, 1), (0, 0, 0))


def views(*parts: str, pool: Any = "max") -> PooledViews:
    return PooledViews(parse(parts), pool)


@given(SIDES, SIDES, GRIDS)
@example(1, 1, (2, 3))
@example(2, 5000, (8, 3))
def test_tiles_are_half_the_picture_and_lie_evenly_from_edge_to_edge(
    width: int, height: int, grid: tuple[int, int]
) -> None:
    rows, columns = grid
    boxes = [cut.box for cut in views(f"tiles {rows}x{columns}").cuts((width, height)) if cut.box is not None]
    assert len(boxes) == rows * columns
    for side, count, (begin, end) in ((width, columns, (0, 2)), (height, rows, (1, 3))):
        spans = sorted({(box[begin], box[end]) for box in boxes})
        assert {stop - start for start, stop in spans} == {(side + 1) // 2}
        free = side - (side + 1) // 2
        if count == 1:
            assert spans[0][0] == free // 2
            continue
        assert (spans[0][0], spans[-1][1]) == (0, side)
        covered = np.zeros(side, bool)
        for start, stop in spans:
            covered[start:stop] = True
        assert covered.all(), "two halves reach from edge to edge"
        steps = np.diff([start for start, _ in spans])
        assert len(steps) == 0 or steps.max() - steps.min() <= 1 or len(spans) < count


@given(st.integers(1, 300), st.integers(1, 300))
@example(1, 1)
@example(1, 300)
@example(300, 1)
def test_no_view_fails_where_the_whole_is_accepted(width: int, height: int) -> None:
    picture = Image.new("RGB", (width, height), (90, 80, 70))
    every = views("whole", "letterbox", "flip", "tiles 2x3", "tiles 1x1")
    arrays = list(every.arrays(picture, PLAIN, PLAIN.boxed))
    assert len(arrays) == every.count == 10
    assert {array.shape for array in arrays} == {PLAIN.shape}


def test_what_is_too_long_for_the_whole_is_refused_as_ever() -> None:
    def refuse(picture: Image.Image) -> Any:
        raise ImageError("too long")

    with pytest.raises(ImageError):
        list(views("tiles 2x2", "letterbox").arrays(Image.new("RGB", (2, 9)), refuse, refuse))


def test_each_view_shows_its_part_at_its_own_resolution() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    own = Preprocessing(None, (30, 40), BILINEAR, (30, 40), "down", "pillow", (1, 1, 1), (0, 0, 0))
    seen = list(views("whole", "flip", "letterbox", "tiles 2x2").arrays(Image.fromarray(pixels), own, own.boxed))
    whole, letterboxed, flipped, *tiles = seen
    middle = pixels[15:45, 20:60].transpose(2, 0, 1)
    assert (whole[0] == middle).all()
    assert (flipped == whole[..., ::-1]).all()
    assert (letterboxed[0] == np.asarray(Image.fromarray(pixels).resize((40, 30), BILINEAR)).transpose(2, 0, 1)).all()
    for tile, (top, left) in zip(tiles, ((0, 0), (0, 40), (30, 0), (30, 40)), strict=True):
        assert (tile[0] == pixels[top : top + 30, left : left + 40].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(("height", "width"), [(60, 40), (28, 80)])
def test_a_picture_of_another_shape_lies_whole_between_black_bars(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (height, width, 3), np.uint8)
    own = Preprocessing(None, (30, 40), BILINEAR, (30, 40), "down", "pillow", (1, 1, 1), (0, 0, 0))
    (seen,) = views("letterbox").arrays(Image.fromarray(pixels), own, own.boxed)
    across, down = (20, 30) if height > width else (40, 14)
    resized = np.asarray(Image.fromarray(pixels).resize((across, down), BILINEAR)).transpose(2, 0, 1)
    left, top = (40 - across) // 2, (30 - down) // 2
    middle = np.s_[:, top : top + down, left : left + across]
    assert (seen[0][middle] == resized).all()
    bars = np.ones(seen[0].shape, bool)
    bars[middle] = False
    assert bars.any()
    assert (seen[0][bars] == 0).all()


def test_the_whole_is_prepared_once_and_the_next_view_when_it_is_asked_for() -> None:
    asked: list[tuple[int, int]] = []

    def prepare(picture: Image.Image) -> Any:
        asked.append(picture.size)
        return np.zeros((1, 3, 2, 2), np.float32)

    arrays = views("whole", "flip", "tiles 1x2").arrays(Image.new("RGB", (8, 6)), prepare, prepare)
    next(arrays), next(arrays)
    assert asked == [(8, 6)]
    next(arrays)
    assert asked == [(8, 6), (4, 3)]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (["whole", {"tiles": "2x3"}], ("whole", "tiles 2x3")),
        (["tiles 2x3", "flip", "whole"], ("whole", "flip", "tiles 2x3")),
        ("whole, tiles: 2x3", ("whole", "tiles 2x3")),
        (("Letterbox", " tiles  02x3 "), ("letterbox", "tiles 2x3")),
        ([{"tiles": "1x8"}, {"tiles": "2x8"}], ("tiles 1x8", "tiles 2x8")),
    ],
)
def test_a_list_of_views_is_read(value: Any, parts: tuple[str, ...]) -> None:
    assert parse(value) == parts


@pytest.mark.parametrize(
    "value",
    [
        None, 3, ["whole", 3], ["half"], ["whole", "whole"], [{"tiles": "2x3"}, "tiles 2x3"], [{"tiles": "0x3"}], [{}],
        [{"tiles": "9x1"}], [{"tiles": "8x4"}], [{"tiles": 2}], [{"tiles": "2x3", "whole": 1}], ["tiles"], "", [None],
        [{"tiles": "2x"}], [{"tiles": "٢x٣"}], ["whole", "flip", {"tiles": "4x6"}], [["whole"]], {"tiles": "2x3"},
    ],
)  # fmt: skip
def test_what_is_no_list_of_views_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"whole, letterbox, .*ROWSxCOLUMNS"):
        parse(value)


def test_answers_are_pooled() -> None:
    said = [0.2, 0.9, 0.4]
    assert views("whole", "tiles 1x2", pool="max").pooled(said) == 0.9
    assert views("whole", "tiles 1x2", pool="mean").pooled(said) == pytest.approx(0.5)


def test_the_whole_alone_is_what_a_model_without_views_sees() -> None:
    assert views_of((), None) is None
    assert views_of(("whole",), "max") is None
    found = views_of(("whole", "flip"), None)
    assert found is not None
    assert (str(found), found.count) == ("whole + flip, mean", 2)
