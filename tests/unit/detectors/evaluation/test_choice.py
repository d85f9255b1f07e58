"""Combinations that are fitted, shrunk, judged and chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.evaluation.combine import Trial, judge_ways
from detectors.evaluation.estimates import reward_of
from detectors.evaluation.fitters import Combination, fit, shrunk_line, shrunk_threshold, ways
from detectors.models.calibration import Kind, log_odds, logistic

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.random(1200) < 0.8


def odds_of(labels: np.ndarray, sure: float, noise: float) -> np.ndarray:
    return np.where(labels, sure, -sure) + RANDOM.normal(0, noise, len(labels))


GOOD, OTHER = (logistic(odds_of(LABELS, 2.0, 2.0)) for _ in range(2))


def test_ways_begin_with_the_simplest() -> None:
    found = list(ways(["a", "b", "c"]))
    assert found[0] == Combination("mean", ("a",), moved=False)
    assert [way.branches for way in found[-5:]] == [("a", "b", "c")] * 5
    assert len(found) == 6 + 4 * 5


@pytest.mark.parametrize("kind", ["mean", "weighted", "logistic", "mlp"])
def test_two_that_err_apart_are_better_together(kind: Kind) -> None:
    branches = {"a": GOOD, "b": OTHER}
    fusion = fit(Combination(kind, ("a", "b"), moved=True), LABELS, branches)
    alone = max(reward_of(LABELS, values > 0.5) for values in branches.values())
    assert reward_of(LABELS, fusion(branches) > 0.5) > alone + 0.05


def test_a_threshold_of_few_photos_stays_near_the_middle_and_of_many_goes_where_it_was_moved_to() -> None:
    off = logistic(log_odds(GOOD) + 1.5)
    many, few = shrunk_threshold(LABELS, off), shrunk_threshold(LABELS[:12], off[:12])
    assert many == pytest.approx(float(logistic(np.array(1.5))), abs=0.05)
    assert 0.5 < few < many


@pytest.mark.parametrize("said", [1 - GOOD, np.full(1200, 0.3)], ids=["reversed", "the same of all"])
def test_what_says_nothing_right_keeps_the_middle(said: np.ndarray) -> None:
    assert shrunk_threshold(LABELS, said) == 0.5


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(3, 40), st.floats(0.2, 5))
@settings(max_examples=25, deadline=None)
def test_a_line_depends_on_no_order_and_no_scale(seed: int, count: int, photos: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(2 * photos) % 2 == 0
    values = np.where(labels, 1.0, -1.0)[:, np.newaxis] + random.normal(0, 1.5, (2 * photos, count))
    weights, bias = shrunk_line(labels, values)
    order = random.permutation(count)
    again, also = shrunk_line(labels, values[:, order] * scale)
    assert again * scale == pytest.approx(weights[order], rel=1e-2, abs=1e-3)
    assert also == pytest.approx(bias, rel=1e-2, abs=1e-3)
    # A prior that outweighs the photos: the plain mean.
    assert np.ptp(weights) <= np.ptp(shrunk_line(np.tile(labels, 50), np.tile(values, (50, 1)))[0]) + 1e-3


@pytest.fixture(scope="module")
def trial() -> Trial:
    return judge_ways(LABELS[:300], {"a": GOOD[:300], "b": OTHER[:300]}, 3)


@pytest.mark.slow
def test_each_photo_is_judged_by_what_saw_neither_its_fold_nor_the_one_left_out(trial: Trial) -> None:
    labels, branches = LABELS[:300], {"a": GOOD[:300], "b": OTHER[:300]}
    for row in trial.rows:
        for one in range(3):
            for left_out in range(3):
                held, seen = trial.fold == one, (trial.fold != one) & (trial.fold != left_out)
                fusion = fit(row.way, labels[seen], {name: values[seen] for name, values in branches.items()})
                said = fusion({name: values[held] for name, values in branches.items()})
                assert row.without[left_out, held] == pytest.approx(said)
        assert row.values == pytest.approx(row.without[trial.fold, np.arange(300)])


@pytest.mark.slow
def test_two_folds_are_enough() -> None:
    choice = judge_ways(LABELS[:60], {"a": GOOD[:60], "b": OTHER[:60]}, 2).choose()
    assert choice.values.shape == (60,)
    assert choice.way.branches == ("a", "b")


@pytest.mark.slow
def test_the_choice_is_shrunk_and_of_all_branches_and_judged_as_it_was_made(trial: Trial) -> None:
    choice = trial.choose()
    assert choice.way.branches == ("a", "b")
    assert choice.way.is_shrunk
    figures = trial.figures(choice.said)
    assert figures.accuracy > 0.85
    assert figures.gain.low <= figures.gain.value <= figures.gain.high
    measured = figures.measured(300)
    assert measured.reward_low < measured.reward < measured.reward_high
    each = {row.way: row for row in trial.rows}
    for number in range(3):  # what was said of a fold is what one of the ways says
        held = trial.fold == number
        assert any((choice.values[held] == row.values[held]).all() for row in each.values())


@pytest.mark.slow
def test_a_part_is_chosen_from_its_own_ways(trial: Trial) -> None:
    assert trial.part(["b"]).choose().way == Combination("mean", ("b",), moved=True)


@pytest.mark.slow
def test_another_way_takes_the_place_of_the_shrunk_ones_where_it_is_surely_better() -> None:
    labels = LABELS[:400]
    good = logistic(odds_of(labels, 2.0, 1.2))
    wild = np.where(RANDOM.random(400) < 0.5, 1e-9, 1 - 1e-9)  # so sure that no mean and no line bears it
    branches = {"good": good, "wild": wild, "wilder": wild[::-1].copy()}
    trial = judge_ways(labels, branches, 2)
    choice = trial.choose()
    assert "good" in choice.way.branches
    assert reward_of(labels, choice.said) > reward_of(labels, trial.plain) + 0.3


@pytest.mark.slow
def test_small_samples_of_three_earn_no_less_than_the_plain_mean_on_other_photos() -> None:
    many = np.arange(4000) % 5 > 0
    strong, weak = odds_of(many, 1.5, 1.2), odds_of(many, 0.6, 1.2)
    models = {
        "a": logistic(strong),
        "copy": logistic(0.7 * strong + RANDOM.normal(0, 1, 4000) + 1),
        "b": logistic(weak),
    }
    gains = []
    for seed in range(4):
        drawn = np.random.default_rng(seed).integers(4000, size=300)
        others = np.setdiff1d(np.arange(4000), drawn)
        way = judge_ways(many[drawn], {name: values[drawn] for name, values in models.items()}, 2).choose().way
        fusion = fit(way, many[drawn], {name: values[drawn] for name, values in models.items()})
        said = fusion({name: values[others] for name, values in models.items()}) > 0.5
        plain = np.mean([values[others] for values in models.values()], axis=0) > 0.5
        gains.append(reward_of(many[others], said) - reward_of(many[others], plain))
    assert min(gains) > -0.02
    assert np.mean(gains) > 0
