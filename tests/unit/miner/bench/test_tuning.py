"""Which way to serve is chosen."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from detectors.base import RunOptions, Way
from miner.bench.tuning import (
    MeasuredVariant,
    best,
    by_promise,
    combinations,
    decide,
    ensemble_ways,
    faithful,
    measure,
    plan_of,
    shares,
    splits,
    ways,
)
from miner.bench.worker import BenchJob, Burst, WorkerReady, to_dict
from miner.errors import CouldNotStart


def row(
    backend: str, precision: str, alone: float, burst: float, resident: float = 1.0, p: float = 0.5
) -> MeasuredVariant:
    job = BenchJob(
        kind="ours", detector="ViT", config="x.yaml", revision="", models_dir="", backend=backend, precision=precision,
        slots=1, threads=2, pictures=[],
    )  # fmt: skip
    return MeasuredVariant(job, resident, [p], [alone] * 3, [burst] * 3)


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


def test_what_is_likely_to_be_fast_is_measured_before_the_time_is_over() -> None:
    backends = ("onnx", "openvino")
    found = by_promise(
        [(name, kind) for kind in ("fp32", "bf16", "int8", "merged", "int8-merged") for name in backends]
    )
    kinds = ["fp32", "int8-merged", "int8-merged", "int8", "int8", "merged", "merged", "bf16", "bf16", "fp32"]
    assert [precision for _, precision in found] == kinds
    assert found[0] == ("onnx", "fp32"), "what the others are held against"
    assert found[-1] == ("openvino", "fp32")
    assert by_promise([]) == []


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, [(1, 1)]), (2, [(1, 2), (2, 1)]), (4, [(1, 4), (2, 2), (4, 1)]), (6, [(1, 6), (2, 3), (6, 1)])],
)
def test_splits_fill_the_cores(cores: int, expected: list[tuple[int, int]]) -> None:
    assert splits(cores) == [RunOptions(*pair) for pair in expected]


def test_the_plan_says_why() -> None:
    default, chosen = row("onnx", "fp32", 4, 8), row("openvino", "int8", 1, 1.6)
    assert plan_of(chosen, default).why.startswith("tuned: 0.24 of")
    assert plan_of(chosen, default).why.endswith("onnx fp32, 1 slot × 2 threads")
    # By value: it was measured again, beside the ways to split the machine.
    assert plan_of(row("onnx", "fp32", 4.1, 8), default).why.startswith("tuned: nothing")
    lean, fat = row("onnx", "int8", 4.1, 8, 300e6), row("onnx", "fp32", 4, 8, 400e6)
    assert plan_of(lean, fat).why.endswith("onnx fp32, 1 slot × 2 threads, in 100 MB less")


def test_what_is_compared_was_measured_in_the_same_rounds() -> None:
    variants = [row("onnx", "fp32", 4, 8), row("onnx", "int8", 1, 2)]
    noisy = [row("onnx", "fp32", 8, 16), row("onnx", "int8", 2, 4)]  # a busy machine, by then
    chosen, default = decide(variants, noisy)
    assert plan_of(chosen, default).why == plan_of(*reversed(variants)).why
    assert (chosen, default) == (noisy[1], noisy[0])


@pytest.mark.parametrize("found", [[], [row("onnx", "int8", 1, 2)]])
def test_without_the_default_among_the_splits_the_variants_decide(found: list[MeasuredVariant]) -> None:
    variants = [row("onnx", "fp32", 4, 8), row("onnx", "int8", 1, 2)]
    assert decide(variants, found) == (variants[1], variants[0])


def test_the_default_is_measured_again_first_and_once() -> None:
    default = row("openvino", "fp32", 1, 1).job
    jobs = ways(default, default, 2)
    assert jobs == [default, replace(default, slots=2, threads=1)]
    leader = row("onnx", "int8", 1, 1).job
    assert ways(default, leader, 2)[0] == default
    assert len(ways(default, leader, 2)) == 5


def of_branch(name: str, backend: str, precision: str, alone: float, resident: float = 1.0) -> MeasuredVariant:
    one = row(backend, precision, alone, 8 * alone, resident)
    return replace(one, job=replace(one.job, branch=name))


BRANCHES = [
    of_branch("a", "onnx", "int8", 2.0, 300), of_branch("a", "openvino", "int8", 1.0, 700),
    of_branch("b", "onnx", "int8", 1.0, 300), of_branch("b", "openvino", "int8", 1.01, 200),
    of_branch("b", "onnx", "fp32", 3.0, 100),
]  # fmt: skip


def test_each_branch_has_the_way_that_is_best_for_it() -> None:
    lead, *others = combinations(BRANCHES, lambda _: True, 10_000)
    assert {name: way.variant for name, way in lead.ways.items()} == {
        "a": ("int8", "openvino"), "b": ("int8", "openvino"),
    }  # fmt: skip
    assert others[0].ways["b"].backend == "onnx", "as fast, but for more memory"
    assert len(others) == 2
    assert all(one.score >= lead.score * 0.95 for one in others)


def test_what_was_not_judged_together_or_finds_no_memory_is_not_measured() -> None:
    lead, *_ = combinations(BRANCHES, lambda each: len({way.backend for way in each.values()}) == 2, 10_000)
    assert [way.backend for way in lead.ways.values()] == ["openvino", "onnx"]
    (lean, *_) = combinations(BRANCHES, lambda _: True, 600)
    assert lean.ways["a"].backend == "onnx"
    assert combinations(BRANCHES, lambda _: False, 10_000) == []


@pytest.mark.parametrize(
    ("threads", "found"), [(1, {}), (2, {"a": 1, "b": 1}), (3, {"a": 2, "b": 1}), (4, {"a": 3, "b": 1})]
)
def test_threads_are_shared_out_by_what_each_branch_takes(threads: int, found: dict[str, int]) -> None:
    assert shares(threads, {"a": 5.0, "b": 2.0}) == found


def test_combinations_are_measured_in_turn_and_side_by_side_beside_the_default() -> None:
    template = row("onnx", "fp32", 1, 1).job
    chosen = combinations(BRANCHES, lambda _: True, 10_000)
    first, beside, default, *others = ensemble_ways(template, template, chosen)
    assert (first.branches, first.backend, first.precision) == ({}, "openvino", "int8"), "alike, in turn"
    assert beside.branches == {"a": Way("int8", "openvino", 1), "b": Way("int8", "openvino", 1)}
    assert default == template
    assert any(job.slots == 2 for job in others)
    assert len({repr(job) for job in others}) == len(others)
    plan = plan_of(MeasuredVariant(beside, 1.0, [0.5], [1.0], [8.0]), None)
    assert plan.branches == beside.branches
    assert BenchJob(**json.loads(json.dumps(to_dict(beside)))) == beside


class Clockwork:
    """Workers whose pictures take a time by the clock that only they move."""

    def __init__(self, loading: float, pace: float) -> None:
        self.now, self.loading, self.pace = 0.0, loading, pace
        self.latest = 0.0

    def __call__(self, job: BenchJob, environment: Mapping[str, str], until: float) -> Any:
        self._spend(self.loading, until)
        return FakeWorker(self)

    def _spend(self, seconds: float, until: float) -> None:
        self.now = min(self.now + seconds, until)
        if self.now == until:
            raise CouldNotStart("not done in the time there was")

    def measure(self, count: int, deadline: float) -> tuple[list[MeasuredVariant], list[str]]:
        jobs = [replace(row("onnx", "fp32", 1, 1).job, slots=slots) for slots in range(1, count + 1)]
        return measure(jobs, {}, deadline, lambda _: None, self, lambda: self.now)


class FakeWorker(nullcontext[None]):
    def __init__(self, clockwork: Clockwork) -> None:
        super().__init__(self)  # type: ignore[arg-type]
        self.clockwork, self.pace = clockwork, clockwork.pace
        self.loaded = WorkerReady(0, 0, self.pace, 0, 100.0, [0.5], [])

    def turn(self, at_once: int, bursts: int, until: float) -> list[Burst]:
        self.clockwork._spend(self.pace * at_once * bursts, until)
        return [Burst([], [], self.pace * at_once)] * bursts


def test_all_rounds_are_measured_where_there_is_time() -> None:
    rows, left_out = Clockwork(loading=1, pace=0.01).measure(2, deadline=60)
    assert [len(found.bursts) for found in rows] == [12, 12]
    assert left_out == []
    assert rows[0].score == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("loading", "pace", "rows", "words"),
    [
        (1, 0.5, 3, "measuring it takes 10.0 s"),  # the fourth has no place
        (1, 5.0, 0, "measuring it takes 100.0 s"),
        (70, 0.01, 0, "not done in"),  # hangs, or loads for ever
        (25, 0.01, 1, "not done in"),
    ],
)
def test_the_time_is_kept_and_what_does_not_fit_is_named(loading: float, pace: float, rows: int, words: str) -> None:
    clockwork = Clockwork(loading, pace)
    found, left_out = clockwork.measure(4, deadline=36)
    assert clockwork.now <= 36
    assert len(found) == rows
    assert len(left_out) == 4 - rows
    assert words in "; ".join(left_out)
    assert "onnx fp32, 4 slots × 2 threads" in left_out[-1]


def test_a_worker_that_breaks_is_left_out_and_the_others_are_measured() -> None:
    class Breaking(Clockwork):
        def __call__(self, job: BenchJob, environment: Mapping[str, str], until: float) -> Any:
            worker = super().__call__(job, environment, until)
            if job.slots == 2:
                worker.turn = lambda *_: (_ for _ in ()).throw(CouldNotStart("onnx fp32: it ended"))
            return worker

    rows, left_out = Breaking(1, 0.01).measure(3, deadline=36)
    assert [found.job.slots for found in rows] == [1, 3]
    assert left_out == ["onnx fp32, 2 slots × 2 threads: it ended"]
