"""What a faster graph costs, judged."""

import sys

import numpy as np
import pytest

from detectors.models.manifest import Gate
from detectors.quantize import gate
from detectors.quantize.quantize import CalibrationPhotos
from detectors.registry import recipes

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


def judged(seconds: float = 0.1, mean: float = 1e-3, **more: object) -> Gate:
    facts = {
        "recipe": "x",
        "kept_fp32": [],
        "pictures": 100,
        "max_difference": 0.1,
        "mean_difference": mean,
        "flips": 0,
    }
    return Gate(**facts | {"seconds": seconds, "seconds_fp32": 1.0} | more)  # type: ignore[arg-type]


def test_the_fastest_is_chosen_or_a_more_faithful_one_that_is_nearly_as_fast() -> None:
    assert gate.best({"a": judged(0.2, 1e-3), "b": judged(0.1, 2e-3)}) == "b"
    assert gate.best({"a": judged(0.109, 1e-3), "b": judged(0.1, 2e-3)}) == "a"
    # Each was measured beside fp32: a machine that was busy for one of them does not count.
    assert gate.best({"a": judged(0.2, seconds_fp32=2.0), "b": judged(0.15)}) == "a"


def test_no_choice_rests_on_times_that_other_programs_disturbed() -> None:
    """Three runs beside other programs gave .03, .09 and .72 of fp32's time for what is .5."""
    quiet, loud = {"others": 0.05}, {"others": 0.6}
    assert judged(0.5, **quiet).speed == 0.5
    assert judged(0.03, **loud).speed is None
    assert gate.best({"a": judged(0.03, 2e-3, **loud), "b": judged(0.72, 1e-3, **loud)}) == "b"
    assert gate.best({"a": judged(0.03, 2e-3, **loud), "b": judged(0.72, 1e-3, **quiet)}) == "b"
    assert gate.best({"a": judged(0.03, 2e-3, **quiet), "b": judged(0.72, 1e-3, **quiet)}) == "a"
    assert judged(0.5).speed == 0.5, "as older manifests have it"
    assert "0.03" not in gate.speed_in_words(judged(0.03, **loud))
    (doubt,) = gate.doubts(judged(0.03, answers=(0.02, 0.97), **loud))
    assert "60%" in doubt


def test_what_proves_little_says_so() -> None:
    assert gate.doubts(judged(answers=(0.02, 0.97))) == []
    (made,) = gate.doubts(judged(answers=(0.02, 0.97), made_pictures=True))
    assert "--pictures" in made
    (few,) = gate.doubts(judged(answers=(0.02, 0.97), pictures=6))
    assert "6 photos" in few
    (slow,) = gate.doubts(judged(1.1, answers=(0.02, 0.97)))
    assert "fp32" in slow
    (still,) = gate.doubts(judged(answers=(0.41, 0.43)))
    assert still.startswith("unproven: ")
    assert "(0.41 to 0.43)" in still


@pytest.mark.parametrize(
    ("count", "calibrated", "judged_on"), [(1, 1, 1), (2, 1, 1), (24, 8, 16), (96, 32, 64), (1000, 32, 968)]
)
def test_what_is_calibrated_on_is_not_judged_on(count: int, calibrated: int, judged_on: int) -> None:
    photos = CalibrationPhotos(
        [b"%d" % number for number in range(count)], [number < count / 2 for number in range(count)]
    )
    one, other = photos.split()
    assert (len(one.data), len(other.data)) == (calibrated, judged_on)
    assert count == 1 or not set(one.data) & set(other.data)
    for part in (one, other):
        assert part.labels == [int(data) < count / 2 for data in part.data]
    if calibrated > 1:
        assert 0.4 <= sum(one.labels or ()) / calibrated <= 0.6  # spread over both classes, though these are sorted


@pytest.mark.slow
def test_without_photos_there_are_enough_made_ones_for_both() -> None:
    calibration, rest = CalibrationPhotos.by_arithmetic().split()
    assert (len(calibration.data), len(rest.data)) == (32, 64)
    assert calibration.made
    assert rest.made


@pytest.mark.export
def test_a_faster_precision_of_one_backend_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)  # not installed: an extra
    monkeypatch.delitem(sys.modules, "detectors.quantize.recipes", raising=False)
    assert "dynamic" in recipes("int8", "onnx")
