"""The validators' formula, held against an implementation of its own by scikit-learn."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, matthews_corrcoef

from detectors.evaluation.estimates import play
from detectors.evaluation.reward import (
    ALPHA,
    RewardHistory,
    expected_reward,
    expected_rewards,
    measured_reward,
    rewards,
)
from detectors.models.calibration import Calibration, CrossValidation, Evidence, Fusion
from detectors.models.manifest import ExportFigures, Gate, LabelledFigures, Manifest

STARTER = Path(__file__).parents[4] / "detectors" / "starter"

Rounds = list[tuple[float | None, bool]]
predictions = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, np.nextafter(0.5, 1), 1.0]), st.floats(0, 1))
histories = st.lists(st.tuples(predictions, st.booleans()), max_size=260)


def window(rounds: Rounds, length: int) -> tuple[list[int], list[int]]:
    """Return labels and rounded predictions of the last rounds, without those that were missed."""
    kept = [(float(np.round(p)), label) for p, label in rounds[-length:] if p is not None]
    return [int(label) for _, label in kept], [int(p) for p, _ in kept]


def paid_for_the_last(rounds: Rounds) -> float:
    """Compute what the last round of a history pays, as the subnet's repository does, with scikit-learn."""
    if rounds[-1][0] is None:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of windows with one class
        labels, said = window(rounds, 100)
        mcc = max(0.0, matthews_corrcoef(labels, said)) if len(set(labels)) > 1 else 0.0
        accuracy = accuracy_score(*window(rounds, 10))
    return float((0.5 * mcc + 0.5 * accuracy) ** 3)


@given(histories)
@settings(max_examples=150, deadline=None)
@pytest.mark.slow
def test_every_round_pays_what_scikit_learn_says(rounds: Rounds) -> None:
    paid = rewards(rounds)
    checked = range(len(rounds)) if len(rounds) < 20 else [0, 9, 10, len(rounds) // 2, len(rounds) - 1]
    for index in checked:
        assert paid[index] == pytest.approx(paid_for_the_last(rounds[: index + 1]), abs=1e-12)


def test_exactly_one_half_is_a_no() -> None:
    assert RewardHistory().take(0.5, label=False) == pytest.approx(0.125)  # the MCC of one class is 0
    assert RewardHistory().take(0.5, label=True) == 0


def test_a_missed_round_pays_nothing_and_pushes_an_old_one_out() -> None:
    history = RewardHistory()
    wrong = [history.take(1.0, label=False)] + [history.take(0.0, label=False) for _ in range(9)]
    assert wrong[-1] == pytest.approx(0.45**3)
    assert history.take(None, label=False) == 0
    assert history.take(0.0, label=False) == pytest.approx(0.125)  # the wrong one is not among the last ten any more


def test_a_nan_spoils_a_hundred_rounds() -> None:
    history = RewardHistory()
    rounds: Rounds = [(float(number % 2), number % 2 == 1) for number in range(210)]
    paid = [history.take(float("nan") if number == 100 else p, label) for number, (p, label) in enumerate(rounds)]
    assert paid[99] == pytest.approx(1.0)
    assert paid[109] == 0
    assert paid[110] == pytest.approx(0.125)
    assert paid[199] == pytest.approx(0.125)
    assert paid[200] == pytest.approx(1.0)


def test_the_score_follows_slowly() -> None:
    history = RewardHistory()
    first = history.take(0.0, label=False)
    assert history.score == pytest.approx(ALPHA * first)
    history.take(None, label=False)
    assert history.score == pytest.approx(ALPHA * first * (1 - ALPHA))


@pytest.mark.parametrize(
    ("accuracy", "reward"), [(0.99, 0.97), (0.97, 0.90), (0.95, 0.82), (0.90, 0.64), (0.80, 0.35), (0.70, 0.19)]
)
def test_the_expected_reward_is_the_documented_one(accuracy: float, reward: float) -> None:
    assert expected_reward(accuracy, accuracy) == pytest.approx(reward, abs=0.03)


@pytest.mark.parametrize(("found", "spared"), [(0.95, 0.95), (0.99, 0.7), (0.6, 0.9), (0.5, 0.5), (1.0, 0.0)])
def test_the_expected_reward_is_the_mean_of_a_long_play(found: float, spared: float) -> None:
    paid = play(found, spared, 200_000, np.random.default_rng(1))
    assert expected_reward(found, spared) == pytest.approx(paid.mean(), abs=0.006)


def test_a_play_pays_round_by_round_what_a_history_pays() -> None:
    seen, seed = play(0.9, 0.8, 50, np.random.default_rng(3)), np.random.default_rng(3)
    works = seed.random(150) < 0.5
    right = seed.random(150) < np.where(works, 0.9, 0.8)
    paid = rewards([(float(label == hit), bool(label)) for label, hit in zip(works, right, strict=True)])
    assert paid[100:] == pytest.approx(seen.tolist())


def test_missed_rounds_pay_nothing() -> None:
    assert expected_reward(0.9, 0.9, missed=0.1) == pytest.approx(0.9 * expected_reward(0.9, 0.9))


def test_perfection_pays_one_and_a_guess_next_to_nothing() -> None:
    assert expected_rewards([1.0, 0.5], [1.0, 0.5]) == pytest.approx([1.0, 0.03], abs=0.02)
    assert expected_reward(0.0, 1.0) == pytest.approx(0.02, abs=0.01)


def test_what_a_model_earns_is_what_was_measured_nearest_to_what_it_serves() -> None:
    bare = Manifest.read(STARTER)
    assert measured_reward(bare) is None, "nobody showed photos to it"
    old = bare.model_copy(update={"judged": ExportFigures(photos=90, auc=0.9, reversed=False)})
    assert measured_reward(old) is None
    judged = ExportFigures(photos=100, auc=0.9, reversed=False, sensitivity=0.9, specificity=0.8)
    exported = bare.model_copy(update={"judged": judged})
    evidence = Evidence(photos=200, folds=5, reward_before=0.5, reward=0.6, gain_low=0.05, gain_high=0.2)
    calibrated = exported.model_copy(update={"calibration": Calibration(evidence=evidence)})
    figures = LabelledFigures(pictures=300, accuracy_fp32=0.9, accuracy=0.9, reward_fp32=0.7, reward=0.7)
    gate = Gate(
        recipe="dynamic", kept_fp32=[], pictures=300, max_difference=0.1, mean_difference=0.01, flips=0.0, seconds=0.1,
        seconds_fp32=0.2, labelled=figures,
    )  # fmt: skip
    faster = calibrated.model_copy(update={"gate": gate})
    measured = CrossValidation(photos=400, accuracy=0.9, mcc=0.8, reward=0.8, reward_low=0.7, reward_high=0.9)
    fusion = Fusion(branches=["a", "b"], measured=measured)
    found = [measured_reward(exported), measured_reward(calibrated), measured_reward(faster)]
    found.append(measured_reward(faster, fusion))
    assert [(one.photos, round(one.value, 4)) for one in found if one is not None] == [
        (100, round(expected_reward(0.9, 0.8), 4)), (200, 0.6), (300, 0.7), (400, 0.8),
    ]  # fmt: skip
    assert measured_reward(bare, Fusion(branches=["a", "b"])) is None
