"""From bursts to figures and a verdict."""

import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from detectors.machine import CpuSeconds, others
from miner.bench.client import Record
from miner.bench.daemon import DaemonFigures
from miner.bench.output import alone_table, burst_table, daemon_table, loaded_table
from miner.bench.run import (
    MOST_VALIDATORS,
    BenchFigures,
    Level,
    LoneLatency,
    choose,
    judge,
    largest_difference,
    level_of,
    medians_by_kind,
    most_at_once,
    percentiles,
    ratios,
    slow_rounds,
)
from miner.bench.worker import BenchJob, Burst, WorkerReady

DEADLINE = 8.5


def level(at_once: int, p99: float, rate: float = 10.0) -> Level:
    return Level(at_once, samples=at_once, p50=p99 / 2, p95=p99, p99=p99, images_per_second=rate)


def fifo(pace: float, *sizes: int) -> list[Level]:
    """One slot that takes exactly `pace` for a picture."""
    return [level(size, size * pace, 1 / pace) for size in sizes]


def figures(
    backend: str, precision: str = "fp32", levels: list[Level] | None = None, kind: str = "ours"
) -> BenchFigures:
    levels = levels or fifo(0.1, 1, 10)
    job = BenchJob(kind, "ViT", "x.yaml", "models", backend, precision, 1, 2, [])  # type: ignore[arg-type]
    loaded = WorkerReady(0.5, 0.6, 0.1, 1e8, 1e8, [0.5], [])
    return BenchFigures(
        job.name, job, loaded, 1e8, {"224×224": LoneLatency(0.1, 1.0)}, levels, 0.0, most_at_once(levels, DEADLINE)
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], (1.0, 1.0, 1.0)),
        ([1.0, 3.0], (2.0, 2.9, 2.98)),
        ([float(number) for number in range(101)], (50.0, 95.0, 99.0)),
    ],
)
def test_percentiles_are_interpolated(values: list[float], expected: tuple[float, ...]) -> None:
    assert percentiles(values) == pytest.approx(expected)
    assert percentiles(values[::-1]) == pytest.approx(expected)


def test_a_level_sums_up_all_bursts_of_its_size() -> None:
    bursts = [Burst([0.1, 0.2], [0, 1], 0.2), Burst([0.3, 0.6], [0, 1], 0.6)]
    found = level_of(2, bursts)
    assert (found.samples, found.p50) == (4, pytest.approx(0.25))
    assert found.images_per_second == pytest.approx(4 / 0.8)


def test_kinds_of_pictures_are_kept_apart() -> None:
    bursts = [Burst([0.1], [0], 0.1), Burst([0.9], [1], 0.9), Burst([0.3], [0], 0.3), Burst([0.2], [2], 0.2)]
    assert medians_by_kind(bursts, ["small", "large", "small"]) == {"small": pytest.approx(0.2), "large": 0.9}


def test_ratios_are_of_the_same_kind_of_picture() -> None:
    found = ratios({"small": 0.1, "large": 0.6}, {"small": 0.2, "large": 0.6})
    assert found == {"small": LoneLatency(0.1, 0.5), "large": LoneLatency(0.6, 1.0)}


@pytest.mark.parametrize(
    ("own", "base", "expected"),
    [([0.1, 0.7], [0.1, 0.4], 0.3), ([0.2], [0.2], 0.0), ([math.nan, 0.1], [0.1, 0.1], None)],
)
def test_the_largest_difference_counts_and_a_nan_is_not_lost(
    own: list[float], base: list[float], expected: float | None
) -> None:
    found = largest_difference(own, base)
    assert math.isnan(found) if expected is None else found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("levels", "deadline", "expected"),
    [
        (fifo(0.1, 1, 2, 4, 10), 8.5, 85),
        (fifo(0.85, 1, 2, 4, 10), 8.5, 10),
        (fifo(0.86, 1, 2, 4, 10), 8.5, 9),
        ([level(1, 0.1), level(4, 0.4), level(10, 9.0, 10.0)], 8.5, 9),  # a burst takes nine times what the pace says
        (fifo(9.0, 1, 10), 8.5, 0),
        ([level(1, 0.2), level(10, 1.1)], 8.5, 84),  # one alone has a slow tail
        ([level(1, 0.1), level(10, 2.0)], 8.5, 42),  # a burst takes twice what the pace says
        ([level(1, 0.1), level(4, 9.0), level(10, 1.0)], 8.5, 1),  # measured and missed, whatever the pace says
        ([level(1, 0.1)], 8.5, 85),
        (fifo(1e-5, 1, 10), 8.5, MOST_VALIDATORS),
        (fifo(0.1, 1, 10), -0.2, 0),
    ],
)
def test_as_many_as_are_answered_in_time(levels: list[Level], deadline: float, expected: int) -> None:
    assert most_at_once(levels, deadline) == expected
    assert most_at_once(levels[::-1], deadline) == expected


@pytest.mark.parametrize(("p99", "met"), [(8.499, True), (8.5, True), (8.501, False), (30.0, False)])
def test_the_deadline_is_held_against_the_asked_burst(p99: float, met: bool) -> None:
    one = figures("onnx", levels=[level(1, 0.1), level(10, p99)])
    verdict = judge(one, 10, DEADLINE, queue_depth=32)
    assert verdict.met is met
    assert verdict.p99 == p99
    assert ("too late" in verdict.words) is not met


def test_what_is_asked_need_not_be_the_largest() -> None:
    one = figures("onnx", levels=[level(1, 0.1), level(4, 1.0), level(10, 20.0)])
    assert judge(one, 4, DEADLINE, 32).met
    assert not judge(one, 10, DEADLINE, 32).met


def test_the_queue_lets_no_more_in_than_its_depth() -> None:
    one = figures("onnx")
    assert one.serves == 85
    assert re.search(r"up to 32 validators .*\(QUEUE_DEPTH; .* 85\)", judge(one, 10, DEADLINE, 32).words)
    assert "up to 85 validators" in judge(one, 10, DEADLINE, 128).words


def test_what_the_miner_would_serve_counts_else_our_fastest() -> None:
    slow, quick = figures("torch", levels=fifo(0.5, 1, 10)), figures("onnx", "int8", levels=fifo(0.05, 1, 10))
    reference = figures("YOLO.predict", levels=fifo(0.01, 1, 10), kind="reference")
    assert choose([reference, slow, quick], "torch fp32", 10) is slow
    assert choose([reference, slow, quick], "openvino fp32", 10) is quick
    assert choose([reference, replace(slow), quick], "onnx fp32", 10) is quick


@pytest.mark.parametrize(
    ("total", "idle", "own", "share"),
    [
        (20.0, 10.0, 10.0, 0.0),
        (20.0, 0.0, 10.0, 0.5),
        (20.0, 5.0, 10.0, 0.25),
        (20.0, 0.0, 21.0, 0.0),  # the clocks are not read at one moment
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_what_others_took_of_the_machine(total: float, idle: float, own: float, share: float) -> None:
    before = CpuSeconds(100.0, 50.0, 5.0)
    assert others(before, CpuSeconds(100.0 + total, 50.0 + idle, 5.0 + own)) == pytest.approx(share)


def lone_bursts(*rounds: tuple[float, int]) -> Record:
    """Two pictures a round, one at a time: the CPU seconds of each, and how often its core was taken."""
    return Record({1: [Burst([cpu / 2], [0], cpu / 2, cpu, taken) for cpu, taken in rounds for _ in range(2)]})


@pytest.mark.parametrize(
    ("records", "slow"),
    [
        ([lone_bursts((0.1, 0), (0.1, 0), (0.137, 0), (0.1, 0))], {3: 1.37}),
        ([lone_bursts((0.1, 0), (0.11, 0), (0.119, 0), (0.1, 0))], {}),
        ([lone_bursts((0.1, 0), (0.1, 0), (0.2, 9), (0.1, 0))], {}),  # another program's doing
        ([lone_bursts((0.1, 0))], {}),  # one round has nothing to be compared with
        (  # one competitor alone: its own doing
            [lone_bursts(*[(0.1, 0)] * 4), lone_bursts(*[(0.3, 0)] * 4), lone_bursts(*[(0.1, 0)] * 3, (0.2, 0))],
            {},
        ),
        ([lone_bursts(*[(base, 0)] * 3, (base * 1.4, 0)) for base in (0.1, 0.3)], {4: 1.4}),
    ],
)
def test_a_round_in_which_the_cpu_itself_was_slow_is_marked(records: list[Record], slow: dict[int, float]) -> None:
    rounds = len(records[0].bursts[1]) // 2
    assert slow_rounds(records, rounds) == pytest.approx(slow)


def test_tables_cut_nothing_at_80_columns() -> None:
    library = replace(figures("torch", levels=fifo(0.8, 1, 2, 4, 10)), name="transformers.pipeline")
    ours = figures("openvino", "int8-merged", fifo(0.1, 1, 2, 4, 10))
    alone = {"224×224": LoneLatency(0.1, 1.0), "1920×1080": LoneLatency(0.1, 1.0)}
    both = [replace(one, alone=alone) for one in (library, ours)]
    verdict = judge(ours, 10, DEADLINE, 100)
    daemon = DaemonFigures(ours.name, [1.6], 0.25, 0.003, 4.7e8, 5e8, 5.3e8, 6e5, 2000, 0, 10, 2.7)
    console = Console(width=80, soft_wrap=True)
    with console.capture() as shown:
        for table in (alone_table(both), loaded_table(both), burst_table(both, verdict), daemon_table([daemon] * 2)):
            console.print(table)
    assert "…" not in shown.get()
    assert max(map(len, shown.get().splitlines())) <= 80
