"""Figures on photos of one class: what has a meaning there, and nothing else."""

import json

import numpy as np
import pytest

from detectors.evaluation.estimates import share_estimate
from detectors.evaluation.evaluate import warnings
from detectors.evaluation.one_class import in_words, judge_class, most_right, one_label

CLEAR = np.zeros(40, dtype=bool)
SECONDS = np.full(40, 0.03)
SAID = np.array([0.9] * 4 + [0.5] + [0.1] * 35)  # exactly a half is no roadwork


@pytest.mark.parametrize(
    ("labels", "expected"), [([True, True], 1), ([False], 0), ([True, False], None), ([False, True], None)]
)
def test_the_only_label_is_told(labels: list[bool], expected: int | None) -> None:
    assert one_label(np.array(labels)) == expected


def test_false_alarms_are_counted_with_an_interval() -> None:
    figures = judge_class(CLEAR, SAID, SECONDS)
    assert (figures.photos, figures.label, figures.wrong) == (40, 0, 4)
    assert figures.accuracy == share_estimate(SAID <= 0.5)
    assert figures.brier == pytest.approx((SAID**2).mean())
    assert figures.doubt == ""
    assert json.loads(json.dumps(figures.plain(), allow_nan=False))["label"] == "no_roadwork"


def test_photos_that_are_nearly_the_same_count_once_in_the_interval() -> None:
    alike = judge_class(CLEAR, SAID, SECONDS, np.arange(40) // 4)
    assert alike.accuracy.value == judge_class(CLEAR, SAID, SECONDS).accuracy.value
    assert alike.accuracy.low < judge_class(CLEAR, SAID, SECONDS).accuracy.low


@pytest.mark.parametrize(("wrong", "is_doubted"), [(40, True), (30, True), (23, False), (0, False)])
def test_a_model_that_is_wrong_of_most_is_doubted(wrong: int, is_doubted: bool) -> None:
    works = ~CLEAR
    figures = judge_class(works, np.where(np.arange(40) < wrong, 0.2, 0.8), SECONDS)
    assert figures.wrong == wrong
    told = warnings({"own": "class 0 'a' of a, b"}, {"own": figures})
    assert bool(told) is is_doubted
    if is_doubted:
        assert f"{wrong} of the 40" in told[0]
        assert "class 0 'a'" in told[0]


@pytest.mark.parametrize("label", [True, False])
def test_of_several_the_one_that_is_right_most_often_leads_in_pairs(label: bool) -> None:
    labels = np.full(200, label)
    right, wrong = (0.9, 0.1) if label else (0.1, 0.9)
    answers = {
        name: np.where(np.arange(200) < count, wrong, right) for name, count in (("a", 60), ("b", 10), ("c", 11))
    }
    best, gains = most_right(labels, answers)
    assert best == "b"
    assert gains["a"].value == pytest.approx(0.25)
    assert not gains["a"].is_noise
    assert gains["c"].is_noise
    better, chance = in_words(best, gains)
    assert "0.250" in better
    assert "chance" not in better
    assert "chance" in chance
