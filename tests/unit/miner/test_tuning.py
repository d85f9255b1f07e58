"""Which way to serve is chosen."""

import pytest

from miner.bench.job import Job
from miner.threads import ThreadPlan
from miner.tuning import Row, best, faithful, plan_of, splits


def row(backend: str, precision: str, alone: float, burst: float, resident: float = 1.0, p: float = 0.5) -> Row:
    job = Job(
        kind="ours", detector="ViT", config="x.yaml", revision="", models_dir="", backend=backend, precision=precision,
        slots=1, threads=2, pictures=[],
    )  # fmt: skip
    return Row(job, resident, [p], [alone] * 3, [burst] * 3)


def test_both_a_lone_request_and_a_burst_count() -> None:
    quick_alone, quick_together = row("onnx", "fp32", 1.0, 16.0), row("openvino", "fp32", 1.5, 8.0)
    assert quick_alone.score == 3.0
    assert best([quick_alone, quick_together]) is quick_together


def test_among_nearly_equals_less_memory_wins() -> None:
    fast, lean, slow = row("onnx", "fp32", 1, 8, 900), row("onnx", "fp32", 1.02, 8, 400), row("onnx", "fp32", 2, 8, 1)
    assert best([fast, lean, slow]) is lean


def test_a_backend_that_answers_differently_at_fp32_is_left_out() -> None:
    rows = [row("onnx", "fp32", 3, 3), row("openvino", "fp32", 1, 1, p=0.502), row("openvino", "int8", 2, 2, p=0.51)]
    assert faithful(rows) == [rows[0], rows[2]]


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, [(1, 1)]), (2, [(1, 2), (2, 1)]), (4, [(1, 4), (2, 2), (4, 1)]), (6, [(1, 6), (2, 3), (6, 1)])],
)
def test_splits_fill_the_cores(cores: int, expected: list[tuple[int, int]]) -> None:
    assert splits(cores) == [ThreadPlan(*pair) for pair in expected]


def test_the_plan_says_why() -> None:
    first, chosen = row("onnx", "fp32", 4, 8), row("openvino", "int8", 1, 1.6)
    assert plan_of(chosen, first).why == "tuned: 0.24 of the time of onnx fp32, 1 slot × 2 threads"
    assert "nothing here is faster" in plan_of(first, first).why
