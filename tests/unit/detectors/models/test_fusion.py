"""Combinations of probabilities, and the map that moves a threshold to one half."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detectors.models.calibration import Calibration, Fusion

SHARES = st.floats(0, 1)
INSIDE = st.floats(0.001, 0.999)


@given(st.lists(SHARES, min_size=2, max_size=20), INSIDE, st.floats(0.1, 10))
def test_the_map_keeps_the_order_and_the_ends_and_moves_the_threshold(
    values: list[float], threshold: float, temperature: float
) -> None:
    calibration = Calibration(threshold=threshold, temperature=temperature)
    ordered = np.array(sorted(values))
    mapped = calibration(ordered)
    assert (np.diff(mapped) >= 0).all()
    assert ((mapped > 0.5) == (ordered > threshold)).all()
    assert calibration(threshold) == 0.5
    assert (calibration(0.0), calibration(1.0)) == (0.0, 1.0)
    assert [calibration(float(value)) for value in ordered] == mapped.tolist()


def test_the_neutral_map_changes_nothing() -> None:
    values = np.linspace(0.01, 0.99, 50)
    assert Calibration()(values) == pytest.approx(values)


@pytest.mark.parametrize("values", [{"threshold": 0}, {"threshold": 1}, {"temperature": 0}, {"bias": 1}])
def test_a_map_that_is_none_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Calibration(**values)  # type: ignore[arg-type]


VALUES = {"a": 0.9, "b": 0.4}


def test_each_kind_combines_as_it_says() -> None:
    def odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    def sigmoid(value: float) -> float:
        return float(1 / (1 + np.exp(-value)))

    names = ["a", "b"]
    assert float(Fusion(branches=names)(VALUES)) == pytest.approx(0.65)
    assert float(Fusion(branches=names, threshold=0.65)(VALUES)) == pytest.approx(0.5)
    assert float(Fusion(kind="weighted", branches=names, weights=[0.25, 0.75])(VALUES)) == pytest.approx(0.525)
    line = Fusion(kind="logistic", branches=names, weights=[1.0, 2.0], bias=-0.5)
    assert float(line(VALUES)) == pytest.approx(sigmoid(odds(0.9) + 2 * odds(0.4) - 0.5))
    mlp = Fusion(kind="mlp", branches=names, weights=[2.0], bias=0.1, hidden=[[0.5, -1.0, 0.2]])
    inner = np.tanh(0.5 * odds(0.9) - odds(0.4) + 0.2)
    assert float(mlp(VALUES)) == pytest.approx(sigmoid(2 * inner + 0.1))


def test_arrays_are_combined_row_by_row() -> None:
    fusion = Fusion(kind="logistic", branches=["a", "b"], weights=[1.0, 2.0])
    many = fusion({"a": np.array([0.9, 0.2]), "b": np.array([0.4, 0.6])})
    assert many.shape == (2,)
    assert many[0] == pytest.approx(float(fusion(VALUES)))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"kind": "weighted", "weights": [0.5, 0.6]}, "add up to 1"),
        ({"kind": "weighted", "weights": [-0.5, 1.5]}, "0 or more"),
        ({"kind": "logistic", "weights": [1.0]}, "needs 2 weights"),
        ({"kind": "mean", "weights": [1.0, 1.0]}, "needs 0 weights"),
        ({"kind": "mlp"}, "mlp needs some"),
        ({"kind": "mlp", "weights": [1.0], "hidden": [[1.0, 1.0]]}, "2 weights"),
        ({"kind": "logistic", "weights": [1.0, float("nan")]}, "not finite"),
        ({"branches": ["a", "a"]}, "named twice"),
        ({"kind": "median"}, "kind"),
    ],
)
def test_a_combination_that_does_not_fit_is_refused(values: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Fusion(**({"branches": ["a", "b"]} | values))  # type: ignore[arg-type]


def test_what_is_worth_answering() -> None:
    measured = {"photos": 10, "mcc": 0.5, "reward": 0.4, "reward_low": 0.3, "reward_high": 0.5}
    assert not Fusion(branches=["a"]).is_worth_answering
    assert not Fusion(branches=["a"], measured=measured | {"accuracy": 0.75}).is_worth_answering  # type: ignore[arg-type]
    assert Fusion(branches=["a"], measured=measured | {"accuracy": 0.76}).is_worth_answering  # type: ignore[arg-type]
