"""Two models beside each other."""

from collections.abc import Callable
from typing import cast

import pytest

from detectors.base import Detector, Prediction
from detectors.errors import InferenceError, ModelError
from detectors.evaluation.evaluate import COMPARED_PICTURES, AnsweredPicture, ModelComparison, compare, sum_up


class FakeDetector:
    """Answers by a rule."""

    def __init__(self, rule: Callable[[bytes], float]) -> None:
        self.rule = rule
        self.asked = 0

    def predict(self, data: bytes) -> Prediction:
        self.asked += 1
        return Prediction(self.rule(data), 0.0, 0.0, 0.0)

    class manifest:  # noqa: N801
        name = "new"


def run(
    old: FakeDetector, new: FakeDetector, seen: list[AnsweredPicture], seconds: float = 60.0
) -> ModelComparison | None:
    return compare(cast("Detector", old), cast("Detector", new), seen, seconds)


def always(probability: float) -> FakeDetector:
    return FakeDetector(lambda _: probability)


def refuses(_: bytes) -> float:
    raise InferenceError("not finite")


def test_mean_largest_and_flips() -> None:
    comparison = sum_up([(0.4, 0.6), (0.9, 0.8), (0.5, 0.5), (0.5, 0.51)])
    assert comparison.flips == 2
    assert comparison.largest == pytest.approx(0.2)
    assert comparison.mean == pytest.approx(0.31 / 4)
    words = str(comparison)
    assert [figure in words for figure in ("4 pictures", "0.0775", "0.2000", "2 change sides")] == [True] * 4


def test_recent_pictures_first_and_their_answers_are_not_asked_for_again() -> None:
    old, new = always(0.2), always(0.3)
    comparison = run(old, new, [AnsweredPicture(b"a", 0.9)] * 3)
    assert comparison is not None
    assert (comparison.pictures, comparison.flips) == (COMPARED_PICTURES, 3)
    assert (old.asked, new.asked) == (COMPARED_PICTURES - 3, COMPARED_PICTURES)


def test_it_does_not_go_on_for_long() -> None:
    comparison = run(always(0.2), always(0.3), [], seconds=-1)
    assert comparison is not None
    assert comparison.pictures == 1


def test_a_new_model_without_an_answer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the model new .*: not finite$"):
        run(always(0.2), FakeDetector(refuses), [])


def test_an_old_model_without_an_answer_is_no_reason_to_keep_it() -> None:
    assert run(FakeDetector(refuses), always(0.2), []) is None
