"""Composed views: works stand on the road, shapes of their colours anywhere, and a seed draws the same."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from detectors.training import composed

GREY = Image.new("RGB", (320, 200), (120, 120, 120))


def reddish(picture: Image.Image) -> np.ndarray:
    """Which pixels are red or orange."""
    red, green, blue = np.asarray(picture, dtype=int).transpose(2, 0, 1)
    mask: np.ndarray = (red > green + 40) & (red > blue + 40)
    return mask


@pytest.mark.parametrize("change", [composed.with_works, composed.with_shapes, composed.zoomed, composed.recoloured])
def test_a_seed_draws_the_same_and_leaves_the_photo_alone(
    change: Callable[[Image.Image, np.random.Generator], Image.Image],
) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 320, 3), np.uint8))
    before = photo.tobytes()
    drawn = [change(photo, np.random.default_rng(seed)).tobytes() for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert photo.tobytes() == before


def test_works_are_red_of_every_size_and_below_the_horizon() -> None:
    masks = [reddish(composed.with_works(GREY, np.random.default_rng(seed))) for seed in range(60)]
    shares = sorted(float(mask.mean()) for mask in masks)
    assert shares[0] > 0
    assert shares[6] < 0.01 < shares[-6]  # far and near
    tops = [int(np.flatnonzero(mask.any(axis=1))[0]) for mask in masks]
    assert np.median(tops) > 0.25 * GREY.height


def test_shapes_have_all_colours() -> None:
    masks = [reddish(composed.with_shapes(GREY, np.random.default_rng(seed))) for seed in range(60)]
    assert 15 < sum(bool(mask.any()) for mask in masks) < 60


def test_a_zoom_shows_from_a_little_to_all() -> None:
    areas = []
    for seed in range(100):
        part = composed.zoomed(GREY, np.random.default_rng(seed))
        areas.append(part.width * part.height / (GREY.width * GREY.height))
    assert 0.02 < min(areas) < 0.06
    assert 0.8 < max(areas) <= 1
    assert 0.1 < np.median(areas) < 0.3


def test_a_hue_is_turned_and_light_stays() -> None:
    photo = Image.new("RGB", (8, 8), (200, 60, 20))
    seen = [composed.recoloured(photo, np.random.default_rng(seed)).getpixel((0, 0)) for seed in range(8)]
    assert len(set(seen)) == 8
    assert all(isinstance(value, tuple) and max(value) == 200 for value in seen)


def test_the_smallest_photo_can_be_changed() -> None:
    for change in (composed.with_works, composed.with_shapes, composed.zoomed, composed.recoloured):
        for size in ((1, 1), (3, 500), (500, 3)):
            change(Image.new("RGB", size), np.random.default_rng(0))
