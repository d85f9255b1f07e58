"""Photos as validators send them."""

import io

import numpy as np
import pytest
from PIL import Image

from detectors.photos.transforms import (
    CHANGES,
    DISTORTIONS,
    ERAS,
    LEVELS,
    VIEWS,
    Era,
    View,
    augmented,
    opened,
    prepare,
    sent,
)
from tests.models import photo


def test_letterboxed_pictures_are_whole_between_black_bars() -> None:
    picture = opened(prepare(photo(640, 320), "letterbox", np.random.default_rng(0)))
    pixels = np.asarray(picture)
    assert picture.size == (224, 224)
    assert pixels[:50].max() < 20
    assert pixels[60:160].mean() > 50


def test_native_pictures_keep_their_size() -> None:
    assert opened(prepare(photo(640, 320), "native", np.random.default_rng(0))).size == (640, 320)


@pytest.mark.parametrize("level", range(LEVELS))
@pytest.mark.parametrize("size", [(640, 320), (100, 300), (224, 224)])
def test_augmented_pictures_are_squares_and_repeat_with_their_seed(level: int, size: tuple[int, int]) -> None:
    source = Image.open(io.BytesIO(photo(*size)))
    views = [np.asarray(augmented(source, level, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert views[0].shape == (224, 224, 3)
    assert (views[0] == views[1]).all()
    assert (views[0] == views[2]).all() == (level == 0)


def test_every_distortion_changes_a_picture() -> None:
    source = opened(prepare(photo(640, 320), "letterbox", np.random.default_rng(0)))
    for distort in DISTORTIONS[3]:
        for step in (0, 1):
            changed = distort(source.copy(), step, np.random.default_rng(0))
            assert (changed.size, changed.mode) == (source.size, source.mode)
            assert (np.asarray(changed) != np.asarray(source)).mean() > 0.005, distort


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_a_jpeg_that_follows_from_its_seed(view: View) -> None:
    source = photo(640, 320)
    one, same = (sent(source, view, np.random.default_rng(3)) for _ in range(2))
    assert one == same
    assert Image.open(io.BytesIO(one)).format == "JPEG"


@pytest.mark.parametrize("era", ERAS)
def test_a_view_of_an_era_is_what_simulate_sends(era: Era) -> None:
    source = photo(640, 320)
    assert sent(source, era, np.random.default_rng(5)) == prepare(source, era, np.random.default_rng(5))


@pytest.mark.slow
def test_a_change_is_made_at_the_size_that_is_sent_and_its_jpeg_comes_last() -> None:
    source = photo(1920, 1080)
    plain = np.asarray(opened(prepare(source, "letterbox", np.random.default_rng(0))), dtype=float)
    for change in CHANGES:
        pixels = np.asarray(opened(sent(source, change, np.random.default_rng(0))), dtype=float)
        assert pixels.shape == (224, 224, 3)
        assert np.abs(pixels - plain)[60:160].mean() > 0.5, change
