"""Intervals and differences of figures measured on photos."""

import numpy as np
import pytest

from detectors.evaluation.estimates import (
    Estimate,
    rates,
    resampled_rates,
    reward_estimate,
    reward_gain,
    reward_of,
    share_estimate,
)

LABELS = np.arange(400) % 2 == 0


def answers(accuracy: float, seed: int) -> np.ndarray:
    right = np.random.default_rng(seed).random(len(LABELS)) < accuracy
    return np.where(right, LABELS, ~LABELS)


def test_rates_are_of_each_class() -> None:
    labels, said = np.array([True, True, False, False]), np.array([True, False, False, False])
    assert rates(labels, said) == (0.5, 1.0)
    assert rates(np.array([True]), np.array([True])) == (1.0, 0.5)


def test_the_reward_does_not_depend_on_how_many_photos_show_works() -> None:
    labels = np.array([True] * 10 + [False] * 10)
    said = np.array([True] * 9 + [False] + [False] * 9 + [True])
    many = np.concatenate([labels, labels[:10].repeat(9)]), np.concatenate([said, said[:10].repeat(9)])
    assert reward_of(*many) == pytest.approx(reward_of(labels, said))


def test_an_interval_covers_what_other_photos_would_have_said() -> None:
    covered = 0
    for seed in range(20):
        said = answers(0.9, seed)
        estimate = reward_estimate(LABELS, said, resamples=100, rounds=300, seed=seed)
        assert estimate.low < estimate.value < estimate.high
        covered += estimate.low <= 0.624 <= estimate.high
    assert covered >= 17


def test_an_interval_holds_its_figure_where_no_mistake_was_seen() -> None:
    reward = reward_estimate(LABELS[:40], LABELS[:40], resamples=100, rounds=300)
    assert reward.low < 0.9 < reward.value == reward.high
    for share in (0.0, 1.0):
        estimate = share_estimate(np.full(40, share == 1.0))
        assert 0 <= estimate.low <= share <= estimate.high <= 1


def test_more_photos_make_an_interval_narrower() -> None:
    said = answers(0.9, 1)
    few = reward_estimate(LABELS[:80], said[:80], resamples=200)
    many = reward_estimate(LABELS, said, resamples=200)
    assert many.high - many.low < few.high - few.low


@pytest.mark.slow
def test_a_gain_on_the_same_photos_is_surer_than_two_intervals() -> None:
    before = answers(0.9, 2)
    after = before.copy()
    after[np.flatnonzero(before != LABELS)[:12]] ^= True  # twelve mistakes fewer, none new
    gain = reward_gain(LABELS, before, after)
    assert not gain.is_noise
    assert gain.value == pytest.approx(reward_of(LABELS, after) - reward_of(LABELS, before))
    assert reward_estimate(LABELS, before).high > reward_estimate(LABELS, after).low


@pytest.mark.slow
def test_a_difference_by_chance_is_noise() -> None:
    assert reward_gain(LABELS, answers(0.9, 8), answers(0.9, 9)).is_noise
    assert reward_gain(LABELS, LABELS, LABELS) == Estimate(0.0, 0.0, 0.0)


def test_copies_of_photos_say_no_more_than_the_photos() -> None:
    before, after = answers(0.85, 3), answers(0.9, 4)
    groups = np.tile(np.arange(len(LABELS)), 4)
    labels, old, new = (np.tile(flags, 4) for flags in (LABELS, before, after))
    once, copied = reward_gain(LABELS, before, after), reward_gain(labels, old, new, groups=groups)
    assert copied.value == pytest.approx(once.value)
    assert copied.error == pytest.approx(once.error, rel=0.1)
    assert reward_gain(labels, old, new).error < 0.6 * once.error  # each for itself, they would
    for estimate in (reward_estimate(labels, new, 200, 300), reward_estimate(labels, new, 200, 300, groups=groups)):
        assert estimate.value == pytest.approx(reward_of(LABELS, after))
    assert reward_estimate(labels, new, groups=groups).error > 1.5 * reward_estimate(labels, new).error


def test_every_detector_sees_the_same_draws() -> None:
    said = answers(0.8, 5)
    found, spared = resampled_rates(LABELS, np.stack([said, said]), 20, seed=1)
    assert found.shape == (2, 20)
    assert (found[0] == found[1]).all()
    assert (spared[0] == spared[1]).all()


def test_a_share_has_an_interval() -> None:
    estimate = share_estimate(answers(0.9, 7) == LABELS)
    assert estimate.low == pytest.approx(estimate.value - 0.03, abs=0.01)
    assert str(Estimate(0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)"


def test_no_mistake_among_few_photos_is_no_promise() -> None:
    estimate = reward_estimate(LABELS[:40], LABELS[:40], resamples=200, rounds=300)
    assert estimate.value == pytest.approx(1.0)
    assert estimate.low < 0.9
    assert share_estimate(np.ones(40, dtype=bool)).low == pytest.approx(0.91, abs=0.01)
