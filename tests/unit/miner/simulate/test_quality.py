"""How sure the figures are: the same photos are sent again and again."""

import numpy as np
import pytest
from numpy.typing import NDArray

from miner.simulate.report import best_shift, best_threshold, quality_of

Floats = NDArray[np.float64]
MODELS = 40  # that are played with photos of their own
PHOTOS, TIMES = 40, 10  # in all, half of them roadwork; and how often each is sent


def apart(count: int) -> NDArray[np.int64]:
    return np.arange(count)


def drawn(random: np.random.Generator, views: float) -> tuple[NDArray[np.bool_], Floats, NDArray[np.int64]]:
    """Return labels, predictions and pictures of a play; 0.5 is the best line, and right is 84 % of all photos.

    `views`: how much two views of a photo differ; 0: a photo gets the same answer every time.
    """
    works = np.arange(PHOTOS) % 2 == 0
    photos = random.normal(np.where(works, 1.0, -1.0), np.sqrt(1 - views**2))
    pictures = random.integers(PHOTOS, size=PHOTOS * TIMES)
    odds = photos[pictures] + views * random.normal(size=len(pictures))
    return works[pictures], 1 / (1 + np.exp(-odds)), pictures


def test_exactly_a_half_is_no_roadwork() -> None:
    quality = quality_of(np.array([True, False]), np.array([0.5, 0.5]), apart(2))
    assert (quality.sensitivity, quality.specificity, quality.accuracy) == (0, 1, 0.5)


@pytest.mark.slow
def test_a_threshold_that_helps_is_found_and_not_flattered() -> None:
    random = np.random.default_rng(0)
    labels = random.random(600) < 0.5
    predictions = np.clip(random.normal(np.where(labels, 0.45, 0.15), 0.12), 0, 1)  # the best line is at 0.3
    assert best_threshold(labels, predictions) == pytest.approx(0.3, abs=0.05)
    shift, quality = best_shift(labels, predictions, apart(600), 0.0), quality_of(labels, predictions, apart(600))
    assert shift is not None
    assert quality.sensitivity is not None
    assert quality.sensitivity < 0.5 < shift.reward
    assert 0.2 < shift.gain.low < shift.gain.value < shift.gain.high
    half = best_shift(labels, predictions, apart(600), 0.5)
    assert half is not None
    assert half.gain.value == pytest.approx(shift.gain.value / 2)
    noise = best_shift(labels, random.random(600), apart(600), 0.0)  # nothing to be found there
    assert noise is not None
    assert noise.reward < 0.1
    assert noise.gain.is_noise


@pytest.mark.parametrize("views", [0.0, 0.5])
@pytest.mark.slow
def test_a_photo_that_is_sent_again_is_no_other_photo(views: float) -> None:
    """The line is at its best already: what is found must not look like a gain, and the intervals must hold."""
    random = np.random.default_rng(1)
    gains, wins, covered = [], 0, 0
    for _ in range(MODELS):
        labels, predictions, pictures = drawn(random, views)
        quality, shift = quality_of(labels, predictions, pictures), best_shift(labels, predictions, pictures, 0.0, 200)
        assert quality.interval is not None
        assert shift is not None
        assert quality.photos <= PHOTOS < quality.count
        covered += quality.interval[0] <= 0.8413 <= quality.interval[1]
        gains.append(shift.gain.value)
        wins += shift.gain.low > 0
    assert covered >= 0.9 * MODELS
    assert np.mean(gains) < 0.01
    assert wins <= 0.05 * MODELS


def test_few_photos_of_a_class_choose_no_threshold_however_often_they_are_sent() -> None:
    labels = np.arange(400) % 2 == 0
    predictions = np.where(labels, 0.4, 0.3)
    assert best_shift(labels, predictions, np.arange(400) % 6, 0.0) is None
    assert best_shift(labels, predictions, np.arange(400) % 8, 0.0) is not None
