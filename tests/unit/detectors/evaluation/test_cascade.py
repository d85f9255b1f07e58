"""The fit of a cascade: its order, its bands, and what it is worth on photos that it was not fitted to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.errors import DetectorConfigError
from detectors.evaluation.cascade import (
    WIDENINGS,
    Cascade,
    cross_validated,
    fit_bands,
    fit_cascade,
    fit_widening,
    order_of,
    play,
)
from detectors.evaluation.combine import Choice, Trial, judge_ways
from detectors.evaluation.estimates import reward_of
from detectors.evaluation.fitters import EQUAL_REWARD, Combination
from detectors.models.calibration import Stage, are_unsure, logistic

RANDOM = np.random.default_rng(0)
LABELS = np.arange(600) % 2 > 0
SECONDS = {"cheap": 0.02, "dear": 0.2, "dearer": 0.4}


def said(sure: float, noise: float = 1.0, random: np.random.Generator = RANDOM) -> np.ndarray:
    return logistic(np.where(LABELS, sure, -sure) + random.normal(0, noise, len(LABELS)))


def fitted(branches: dict[str, np.ndarray], order: list[str]) -> Cascade:
    trial = judge_ways(LABELS, branches, 3)
    return fit_cascade(trial, trial.choose(), order, SECONDS)


def test_the_order_is_by_seconds_or_as_it_is_named() -> None:
    assert order_of(["dear", "cheap"], SECONDS) == ["cheap", "dear"]
    assert order_of(["dear", "cheap"], SECONDS, ["dear", "cheap"]) == ["dear", "cheap"]
    with pytest.raises(DetectorConfigError, match=r" a, b .*--order"):
        order_of(["a", "dear", "b"], SECONDS)
    for named in (["dear"], ["dear", "cheap", "cheap"], ["dear", "other"]):
        with pytest.raises(DetectorConfigError, match=r"^--order=dear.*dear, cheap"):
            order_of(["dear", "cheap"], SECONDS, named)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 0.5), st.floats(0.5, 1))
def test_what_goes_on_is_what_the_miner_sends_on(values: list[float], low: float, high: float) -> None:
    stage = Stage(branches=["a"], band=(low, high))
    expected = [(low < value or low == 0) and (value < high or high == 1) for value in values]
    assert are_unsure(np.array(values), (low, high)).tolist() == expected
    assert [stage.is_unsure(value) for value in values] == expected


BANDS = st.tuples(st.floats(0, 0.5), st.floats(0.5, 1))


@given(st.integers(0, 2**32 - 1), st.lists(BANDS, min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_photo_is_answered_by_the_first_stage_that_is_sure(seed: int, bands: list[tuple[float, float]]) -> None:
    random = np.random.default_rng(seed)
    values = list(random.random((len(bands) + 1, 30)))
    seconds = random.random(len(values)).tolist()
    answers, spent = play(values, bands, seconds)
    for photo in range(30):
        last = next((n for n, (low, high) in enumerate(bands) if not low < values[n][photo] < high), len(bands))
        assert answers[photo] == (values[last][photo] > 0.5)
        assert spent[photo] == pytest.approx(sum(seconds[: last + 1]))


@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.integers(5, 60))
@settings(max_examples=25, deadline=None)
def test_bands_earn_what_the_best_do_and_hold_the_middle(seed: int, count: int, photos: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(2 * photos) % 2 > 0
    values = [logistic(np.where(labels, s, -s) + random.normal(0, 1, 2 * photos)) for s in np.linspace(0.3, 2, count)]
    bands = fit_bands(labels, values, [1.0] * count)
    assert all(0 <= low <= 0.5 <= high <= 1 for low, high in bands)
    earned = reward_of(labels, play(values, bands, [1.0] * count)[0])
    whole = reward_of(labels, values[-1] > 0.5)
    assert earned >= whole - EQUAL_REWARD * (count - 1) - 1e-9
    for (low, high), (lower, higher) in zip(bands, fit_bands(labels, values, [1.0] * count, 2.0), strict=True):
        assert count > 2 or lower <= low <= high <= higher
    assert fit_bands(labels, values, [1.0] * count, np.inf) == [(0.0, 1.0)] * (count - 1)


FOLD = np.arange(600) // 2 % 3


@pytest.mark.parametrize("fold", range(3))
def test_what_is_said_of_a_fold_depends_on_none_of_its_labels(fold: int) -> None:
    random = np.random.default_rng(1)
    values = [said(0.6, 1.0, random), said(2.0, 1.0, random)]
    choices = [Choice(Combination("mean", ("a",), moved=False), one, np.stack([one] * 3)) for one in values]
    held = fold == FOLD
    answers = [
        cross_validated(Trial(labels, FOLD, []), choices, [1.0, 10.0])
        for labels in (LABELS, np.where(held, values[0] > 0.5, LABELS))
    ]
    for one, other in zip(*answers, strict=True):
        assert (one[held] == other[held]).all()
    assert (answers[0][1] != answers[1][1]).any()  # the other folds' bands have seen them


def test_bands_are_widened_by_no_more_than_saves_the_reward_on_other_photos() -> None:
    random = np.random.default_rng(1)
    dear = said(2.0, 1.0, random)
    agreeing = logistic(np.where(dear > 0.5, 1.0, -1.0) * random.uniform(0.1, 3, 600))
    assert fit_widening(LABELS, [agreeing, dear], [1.0, 10.0], FOLD) == WIDENINGS[0]
    # Each fold has mistakes of its own beyond those of the others: no band that they fit holds them.
    wrong = np.arange(600) // 6 % 4 == 0
    depth = np.where(wrong, 1.0 + FOLD, random.uniform(0.1, 9, 600))
    erring = logistic(np.where(LABELS ^ wrong, depth, -depth))
    assert fit_widening(LABELS, [erring, np.where(LABELS, 0.9, 0.1)], [1.0, 10.0], FOLD) > WIDENINGS[0]


@pytest.mark.slow
def test_a_cascade_takes_less_time_and_earns_as_much() -> None:
    cascade = fitted({"dear": said(2.0), "cheap": said(1.2)}, ["cheap", "dear"])
    first, last = cascade.stages
    assert (first.choice.way.branches, last.band) == (("cheap",), None)
    assert first.band is not None
    assert first.band[0] <= 0.5 <= first.band[1]
    assert (first.seconds, last.seconds) == (0.02, pytest.approx(0.22))
    assert first.seconds < cascade.seconds < 0.95 * last.seconds
    assert 0 < first.goes_on < 1
    assert cascade.figures.reward.value > first.figures.reward.value + 0.05
    assert cascade.over_last.value > -0.01  # a mistake more among 600


@pytest.mark.slow
def test_three_stages_grow() -> None:
    cascade = fitted({"dearer": said(2.0), "dear": said(1.5), "cheap": said(1.2)}, ["cheap", "dear", "dearer"])
    each = [set(stage.choice.way.branches) for stage in cascade.stages]
    assert each == [{"cheap"}, {"cheap", "dear"}, {"cheap", "dear", "dearer"}]
    assert [stage.seconds for stage in cascade.stages] == pytest.approx([0.02, 0.22, 0.62])
    assert cascade.over_last.value > -0.01  # a mistake more among 600


@pytest.mark.slow
def test_a_stage_no_better_than_no_answer_is_none() -> None:
    cascade = fitted({"dear": said(2.0), "cheap": RANDOM.random(600)}, ["cheap", "dear"])
    (fault,) = cascade.faults
    assert fault.startswith("cheap, own threshold: ")
    assert len(cascade.stages) == 1


@pytest.mark.slow
def test_a_cheap_stage_that_earns_as_much_as_all_is_kept_and_answers_most() -> None:
    random = np.random.default_rng(4)
    good = said(2.0, 1.0, random)
    cascade = fitted({"cheap": good, "dear": good}, ["cheap", "dear"])
    first, last = cascade.stages
    assert first.choice.way.branches == ("cheap",)
    assert first.goes_on < 0.1
    assert cascade.seconds < 0.5 * last.seconds
    assert cascade.over_last.value >= -0.01
    (fault,) = cascade.faults
    assert last.choice.way.words in fault


@pytest.mark.slow
def test_a_stage_that_earns_no_more_than_a_cheaper_one_is_left_out() -> None:
    random = np.random.default_rng(5)
    cheap, best = said(1.4, 1.0, random), said(2.0, 1.0, random)
    cascade = fitted(
        {"cheap": cheap, "dear": logistic(random.normal(0, 3, 600)), "dearer": best}, ["cheap", "dear", "dearer"]
    )
    assert [len(stage.choice.way.branches) for stage in cascade.stages] == [1, 3]
    assert [stage.seconds for stage in cascade.stages] == pytest.approx([0.02, 0.62])
    (fault,) = cascade.faults
    assert "cheap + dear," in fault
    assert cascade.stages[0].choice.way.words in fault
