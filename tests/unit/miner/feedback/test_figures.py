"""Figures on real traffic: where there are some, what they are, and how many labels settle a question."""

import math

import numpy as np
import pytest

from detectors.evaluation.estimates import share_estimate
from miner.feedback.figures import (
    LEAST,
    LEAST_DISAGREEMENTS,
    STEPS,
    TrafficFigures,
    compare_on_traffic,
    figures_of,
    labels_to_tell_apart,
    narrower,
    threshold_error,
)


def answers(found: int, works: int, spared: int, clear: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and answers of which so many are right."""
    labels = np.array([True] * works + [False] * clear, dtype=bool)
    said = [0.9] * found + [0.1] * (works - found) + [0.2] * spared + [0.8] * (clear - spared)
    return labels, np.array(said)


def figures(found: int, works: int, spared: int, clear: int, scenes: int | None = None) -> TrafficFigures:
    labels, said = answers(found, works, spared, clear)
    return figures_of(labels, said, np.arange(len(labels)) % (scenes or len(labels)))


def test_figures_of_both_classes() -> None:
    one = figures(40, 43, 38, 41)
    assert (one.photos, one.right, one.scenes) == (84, 78, 84)
    assert one.accuracy == share_estimate(np.array([True] * 78 + [False] * 6))
    assert one.accuracy is not None
    assert one.accuracy.low < 78 / 84 < one.accuracy.high
    assert one.recall == 40 / 43
    assert one.precision == 40 / 43
    # (tp · tn − fp · fn) / √((tp + fp)(tp + fn)(tn + fp)(tn + fn))
    assert one.mcc == pytest.approx((40 * 38 - 3 * 3) / math.sqrt(43 * 43 * 41 * 41))
    assert one.auc is not None
    assert one.reward is not None
    assert one.reward.low < one.reward.value < one.reward.high
    assert one.lack == ""


def test_the_figures_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, said = answers(17, 20, 11, 19)
    said += np.random.default_rng(0).normal(0, 0.05, len(said))
    one = figures_of(labels, said, np.arange(len(labels)))
    assert one.mcc == pytest.approx(metrics.matthews_corrcoef(labels, said > 0.5))
    assert one.auc == pytest.approx(metrics.roc_auc_score(labels, said))
    assert one.precision == pytest.approx(metrics.precision_score(labels, said > 0.5))


@pytest.mark.parametrize("count", range(LEAST))
def test_a_handful_of_labels_gives_counts_and_no_figure(count: int) -> None:
    one = figures(count, count, 0, 0)
    assert (one.photos, one.right) == (count, count)
    assert {one.accuracy, one.mcc, one.auc, one.precision, one.recall, one.reward} == {None}
    assert str(LEAST - count) in one.lack
    assert narrower(one) is None


@pytest.mark.parametrize(("works", "clear"), [(12, 0), (0, 12)])
def test_of_one_class_there_is_an_accuracy_and_nothing_that_needs_both(works: int, clear: int) -> None:
    one = figures(works, works, clear, clear)
    assert one.accuracy is not None
    assert (one.mcc, one.auc, one.reward) == (None, None, None)
    assert ("no_roadwork" if works else "roadwork") in one.lack
    assert (one.recall is None) == (works == 0)


def test_near_identical_photos_count_once_in_the_interval() -> None:
    many, few = figures(40, 43, 38, 41).accuracy, figures(40, 43, 38, 41, scenes=21).accuracy
    assert many is not None
    assert few is not None
    assert few.value == many.value
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_a_scene_of_many_frames_weighs_as_many_and_the_interval_knows() -> None:
    sizes, random = np.array([1] * 30 + [2] * 6 + [5] * 3 + [12]), np.random.default_rng(0)
    groups, held, times = np.repeat(np.arange(len(sizes)), sizes), 0, 1500
    labels = np.zeros(len(groups), dtype=bool)
    for _ in range(times):
        right = np.repeat(random.random(len(sizes)) < 0.9, sizes)
        accuracy = figures_of(labels, np.where(right, 0.1, 0.9), groups).accuracy
        assert accuracy is not None
        held += accuracy.low <= 0.9 <= accuracy.high
    assert held > 0.92 * times  # .86 by the number of scenes


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98, 1.0])
@pytest.mark.parametrize("count", [12, 40, 150])
def test_so_many_more_labels_make_the_interval_so_narrow_and_one_less_does_not(share: float, count: int) -> None:
    right = round(share * count)
    one = figures(right, count, 0, 0)
    assert one.accuracy is not None
    needed = narrower(one)
    assert needed is not None
    assert needed.half in STEPS

    def half(labels: int) -> float:
        found = share_estimate(np.array([True] * right + [False] * (count - right)), labels)
        z = 1.96
        # Wilson's own half width; the interval ends at 0 and 1.
        p = found.value
        return z * math.sqrt(p * (1 - p) / labels + z**2 / (4 * labels**2)) / (1 + z**2 / labels)

    assert half(count + needed.more) <= needed.half < half(count + needed.more - 1)


def test_labels_that_show_the_same_scenes_count_as_these_did() -> None:
    alone, twice = narrower(figures(36, 40, 0, 0)), narrower(figures(72, 80, 0, 0, scenes=40))
    assert alone is not None
    assert twice is not None
    assert twice.half == alone.half
    assert twice.more == 2 * alone.more


def test_nothing_narrower_is_asked_for_than_a_point() -> None:
    assert narrower(figures(9000, 10_000, 9000, 10_000)) is None


def test_how_many_labels_tell_two_models_apart() -> None:
    # ψ = .2, δ = .1: (1.96 · √.2 + .8416 · √(.2 − .01))² / .01 = 154.6
    assert labels_to_tell_apart(100, 15, 5) == 55
    assert labels_to_tell_apart(100, 5, 15) == 55
    assert labels_to_tell_apart(100, 10, 10) is None
    assert labels_to_tell_apart(100, 0, 0) is None


def test_five_disagreements_never_suffice() -> None:
    assert (
        labels_to_tell_apart(100, 1, 0)
        == max(LEAST_DISAGREEMENTS * 100, math.ceil((1.96 * 10 + 8.416 * 0.995) ** 2)) - 100
    )


def test_so_many_labels_do_show_the_difference_four_times_of_five() -> None:
    """The formula against a simulation with McNemar's test, which it is of."""
    random = np.random.default_rng(0)
    more = labels_to_tell_apart(100, 15, 5)
    assert more is not None
    draws = random.multinomial(100 + more, (0.15, 0.05, 0.8), 4000)
    z = (draws[:, 0] - draws[:, 1]) / np.sqrt(np.maximum(1, draws[:, 0] + draws[:, 1]))
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.03)


def test_a_clear_difference_is_settled_and_asks_for_no_labels() -> None:
    labels, good = answers(50, 50, 50, 50)
    bad = answers(30, 50, 30, 50)[1]
    groups = np.arange(len(labels))
    one = compare_on_traffic(labels, bad, good, groups)
    assert (one.better, one.worse, one.more) == (40, 0, None)
    assert one.is_settled
    assert one.gain is not None
    assert one.gain.low > 0
    worse = compare_on_traffic(labels, good, bad, groups)
    assert (worse.better, worse.worse, worse.is_settled) == (0, 40, True)


def test_models_that_say_the_same_are_not_told_apart() -> None:
    labels, said = answers(40, 43, 38, 41)
    one = compare_on_traffic(labels, said, said * 0.99, np.arange(len(labels)))
    assert (one.disagreements, one.is_settled, one.more) == (0, False, None)


def test_one_class_alone_has_disagreements_and_no_reward() -> None:
    labels, said = answers(12, 12, 0, 0)
    one = compare_on_traffic(labels, said, np.full(12, 0.1), np.arange(12))
    assert (one.better, one.worse, one.gain, one.is_settled) == (0, 12, None, False)


def test_a_threshold_that_stands_wrong_is_found_and_one_that_does_not_is_chance() -> None:
    pytest.importorskip("sklearn")
    labels = np.arange(200) % 2 == 1
    said = np.where(labels, 0.45, 0.05) + np.random.default_rng(0).normal(0, 0.03, 200)
    groups = np.arange(200)
    wrong = threshold_error(labels, said, groups)
    assert not isinstance(wrong, str)
    assert wrong.is_worth_it
    assert 0.1 < wrong.threshold < 0.4
    right = threshold_error(labels, np.clip(said + 0.25, 0, 1), groups)
    assert not isinstance(right, str)
    assert not right.is_worth_it


@pytest.mark.parametrize(("works", "clear"), [(12, 0), (0, 12), (3, 12)])
def test_too_few_labels_for_a_threshold_are_a_reason_and_no_error(works: int, clear: int) -> None:
    pytest.importorskip("sklearn")
    labels, said = answers(works, works, clear, clear)
    assert isinstance(threshold_error(labels, said, np.arange(len(labels))), str)
