"""What a faster graph costs, judged."""

import numpy as np
import pytest

from detectors.precision import gate
from detectors.reward import expected_reward

FP32 = np.array([0.1, 0.4, 0.6, 0.9])


def test_flips_are_pictures_on_the_other_side() -> None:
    assert gate.flips(FP32, FP32, 0.5) == 0
    assert gate.flips(FP32, np.array([0.2, 0.51, 0.6, 0.9]), 0.5) == 0.25
    assert gate.flips(FP32, np.array([0.2, 0.4, 0.5, 0.9]), 0.5) == 0.25  # exactly the threshold counts as no
    assert gate.flips(FP32, np.array([0.2, np.nan, 0.6, 0.9]), 0.5) == 0.25


def test_differences_are_largest_and_mean() -> None:
    assert gate.differences(FP32, FP32 + np.array([0, 0.1, -0.3, 0])) == pytest.approx((0.3, 0.1))


def test_labels_give_accuracy_and_reward_of_both() -> None:
    found = gate.labelled(FP32, np.array([0.1, 0.6, 0.6, 0.9]), [False, False, True, True], 0.5)
    assert found is not None
    assert (found.accuracy_fp32, found.accuracy) == (1.0, 0.75)
    assert found.reward_fp32 == pytest.approx(1.0)
    assert found.reward < 0.6
    assert gate.labelled(FP32, FP32, None, 0.5) is None


@pytest.mark.parametrize(
    ("accuracy", "reward"), [(0.99, 0.97), (0.97, 0.90), (0.95, 0.82), (0.90, 0.64), (0.80, 0.35), (0.70, 0.19)]
)
def test_the_reward_is_the_validators(accuracy: float, reward: float) -> None:
    assert expected_reward(accuracy, accuracy) == pytest.approx(reward, abs=0.03)


def test_always_the_same_answer_earns_next_to_nothing() -> None:
    assert expected_reward(0.0, 1.0) == pytest.approx(0.02, abs=0.01)
