"""The bench run: workers are started and measured, and bursts become figures and a verdict."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detectors.machine import others, spent
from miner.bench.client import Progress, Record, RoundLimit, Worker, measure
from miner.bench.machine import least_seconds, measure_rates
from miner.bench.worker import BenchJob, Burst, WorkerReady
from miner.errors import CouldNotStart

MOST_VALIDATORS = 4096  # a subnet has 256 places; more is no answer anybody needs

LEVELS = (1, 2, 4, 10)
LOADING = 0.25  # of the progress bar

SLOW = 1.2  # times the CPU time of the quickest rounds: int8 was seen at 57 and at 78 ms, fp32 less far apart
MOST_PREEMPTIONS = 1.0  # in a picture's time; with more, other programs took the core


@dataclass(frozen=True, slots=True)
class Level:
    """Latencies in seconds with `at_once` requests submitted together."""

    at_once: int
    samples: int
    p50: float
    p95: float
    p99: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class LoneLatency:
    """One kind of picture, one request at a time: the median in seconds, and its share of the first competitor's."""

    p50: float
    ratio: float


@dataclass(frozen=True, slots=True)
class BenchFigures:
    """What was measured of one competitor; bytes, seconds."""

    name: str
    job: BenchJob
    loaded: WorkerReady
    peak_bytes: float
    alone: dict[str, LoneLatency]  # by kind of picture
    levels: list[Level]
    difference: float  # the largest of a probability from the first competitor's
    serves: int  # validators at once, by the measured pace
    least: float | None = None  # seconds of a picture at this CPU's own pace of products, at this precision

    @property
    def of_peak(self) -> float | None:
        """The share of the CPU's own pace that is reached with the fastest kind of picture, one at a time."""
        return None if self.least is None else self.least / min(alone.p50 for alone in self.alone.values())

    def level(self, at_once: int) -> Level:
        """Return the figures of a level that was measured."""
        return next(level for level in self.levels if level.at_once == at_once)


@dataclass(frozen=True, slots=True)
class BurstVerdict:
    """Whether the asked burst is answered in time by the competitor that counts, and in words."""

    name: str
    at_once: int
    p99: float
    deadline: float
    met: bool
    words: str


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 50th, 95th and 99th, interpolated."""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def level_of(at_once: int, bursts: Sequence[Burst]) -> Level:
    """Sum up all bursts of one size."""
    latencies = [latency for burst in bursts for latency in burst.latencies]
    rate = len(latencies) / sum(burst.seconds for burst in bursts)
    return Level(at_once, len(latencies), *percentiles(latencies), rate)


def medians_by_kind(bursts: Sequence[Burst], kinds: Sequence[str]) -> dict[str, float]:
    """Return the median latency for each kind of picture; `kinds` names the pictures' in their order."""
    found: dict[str, list[float]] = {}
    for burst in bursts:
        for latency, picture in zip(burst.latencies, burst.pictures, strict=True):
            found.setdefault(kinds[picture], []).append(latency)
    return {kind: statistics.median(found[kind]) for kind in dict.fromkeys(kinds) if kind in found}


def ratios(own: Mapping[str, float], base: Mapping[str, float]) -> dict[str, LoneLatency]:
    """Put medians beside those of the competitor that all are compared with."""
    return {kind: LoneLatency(median, median / base[kind]) for kind, median in own.items() if kind in base}


def largest_difference(own: Sequence[float], base: Sequence[float]) -> float:
    """Return the largest difference between probabilities of the same pictures; NaN if one is NaN."""
    return float(np.max(np.abs(np.subtract(own, base))))


def most_at_once(levels: Sequence[Level], deadline: float) -> int:
    """Return the largest burst all of whose answers are on their way before the deadline.

    The last of n waits for n − 1 others at the pace of the largest measured burst, and then takes as long as one
    alone does at its 99th percentile. Where that is less than the 99th percentile that was measured in the largest
    burst, it is raised by the same factor for all; and no size counts that was measured and missed the deadline.
    """
    ordered = sorted(levels, key=lambda level: level.at_once)
    single, largest = ordered[0], ordered[-1]
    pace = 1 / largest.images_per_second
    first = single.p99
    tail = max(1.0, largest.p99 / (first + (largest.at_once - 1) * pace))
    if first * tail > deadline:
        return 0
    most = min(MOST_VALIDATORS, 1 + math.floor((deadline / tail - first) / pace + 1e-9))
    missed = [level.at_once for level in ordered if level.p99 > deadline]
    if missed and min(missed) <= most:
        return max((level.at_once for level in ordered if level.at_once < min(missed)), default=0)
    return most


def slow_rounds(records: Sequence[Record], rounds: int) -> dict[int, float]:
    """Return the rounds, from 1, in which the CPU itself was slow, and how many times the CPU time a picture took.

    The work of a picture is always the same. Where its CPU time rises with its latency and the kernel has given the
    core to nobody else, the core does less in a second: on rented machines most likely for the host's other
    hyperthread, or for a lower clock. All competitors of a round are hit alike; the median of them counts, each beside
    the lower quartile of its own rounds.
    """
    costs, preemptions = [], []
    for record in records:
        turns = np.array_split(np.array([[one.cpu_seconds, one.preemptions] for one in record.bursts[1]]), rounds)
        means = np.array([turn.mean(axis=0) for turn in turns])
        costs.append(means[:, 0] / max(float(np.percentile(means[:, 0], 25)), 1e-9))
        preemptions.append(means[:, 1])
    cost, preempted = np.median(costs, axis=0), np.median(preemptions, axis=0)
    is_slow = (cost > SLOW) & (preempted <= MOST_PREEMPTIONS)
    return {number + 1: float(cost[number]) for number in np.flatnonzero(is_slow).tolist()}


def judge(figures: BenchFigures, at_once: int, deadline: float, queue_depth: int) -> BurstVerdict:
    """Hold the competitor that counts against the deadline, in seconds from the arrival."""
    p99 = figures.level(at_once).p99
    met = p99 <= deadline
    limit = figures.serves
    words = f"{figures.name} serves up to {min(limit, queue_depth)} validators at once"
    if limit > queue_depth:
        words += f" (QUEUE_DEPTH; its pace would allow {limit}{' or more' * (limit >= MOST_VALIDATORS)})"
    words += f": p99 at {at_once} at once is {p99:.3g} s, and answers must be on their way after {deadline:g} s"
    if not met:
        words += "; that is too late"
    return BurstVerdict(figures.name, at_once, p99, deadline, met, words)


def choose(all_figures: Sequence[BenchFigures], served: str, at_once: int) -> BenchFigures:
    """Return the competitor that counts: the backend and precision that the daemon would serve, else our fastest."""
    ours = [figures for figures in all_figures if figures.job.kind == "ours"]
    for figures in ours:
        if figures.job.name == served:
            return figures
    return min(ours or all_figures, key=lambda figures: figures.level(at_once).p99)


@dataclass(frozen=True, slots=True)
class Result:
    """The figures in the order of the jobs, and how they came about."""

    figures: list[BenchFigures]
    rounds: int
    left_out: dict[str, str]  # who could not take part, and why
    others: float  # share of the machine's CPU time in other hands meanwhile
    least: dict[str, float]  # seconds that a picture takes at least on this CPU, by precision
    slow: dict[int, float]  # rounds in which the CPU itself was slow, and how many times the CPU time a picture took


def bench(
    jobs: Sequence[BenchJob],
    kinds: Sequence[str],
    work: int,
    at_once: int,
    deadline: float,
    seconds: float | None,
    rounds: int | None,
    environment: Mapping[str, str],
    progress: Progress,
    is_demanded: bool,
) -> Result:
    """Load all competitors, one after another, and measure them in turn; the first is what others are compared with.

    Args:
        jobs: the competitors.
        kinds: of the jobs' pictures, in their order.
        work: multiply-adds that a picture needs.
        at_once: a number of requests that is measured besides the usual ones.
        deadline: seconds from the arrival of a request to its answer.
        seconds: when to stop, counted from now, loading included; None: only by `rounds`.
        rounds: when to stop.
        environment: of the workers.
        progress: told each step.
        is_demanded: whether a competitor that can't be loaded is an error; else it is left out.

    Raises:
        CouldNotStart: a demanded competitor, or every one of them, can't be loaded.
    """
    until = time.monotonic() + seconds if seconds is not None else None
    progress("what this CPU can do at most", 0.0)
    least = least_seconds(work, measure_rates(environment), jobs[0].slots * jobs[0].threads)
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        workers: list[Worker] = []
        for number, job in enumerate(jobs):
            progress(f"loading {job.name}", LOADING * number / len(jobs))
            try:
                workers.append(stack.enter_context(Worker(job, environment)))
            except CouldNotStart as error:
                if is_demanded or job.kind == "reference":
                    raise
                left_out[job.name] = str(error).removeprefix(f"{job.name}: ")
        if not workers:
            raise CouldNotStart("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
        levels = sorted({*LEVELS, at_once})
        pids = [worker.pid for worker in workers]
        before = spent(pids)
        records, done = measure(
            workers,
            levels,
            RoundLimit(rounds, until),
            lambda text, share: progress(text, LOADING + (1 - LOADING) * share),
        )
        loud = others(before, spent(pids))
        figures = sum_up(workers, records, kinds, deadline, least)
    return Result(figures, done, left_out, loud, least, slow_rounds(records, done))


def sum_up(
    workers: Sequence[Worker],
    records: Sequence[Record],
    kinds: Sequence[str],
    deadline: float,
    least: Mapping[str, float],
) -> list[BenchFigures]:
    """Put everything that was measured beside the first competitor's."""
    alone = [medians_by_kind(record.bursts[1], kinds) for record in records]
    found = []
    for worker, record, own in zip(workers, records, alone, strict=True):
        levels = [level_of(at_once, bursts) for at_once, bursts in sorted(record.bursts.items())]
        found.append(
            BenchFigures(
                name=worker.name,
                job=worker.job,
                loaded=worker.loaded,
                peak_bytes=worker.peak_bytes,
                alone=ratios(own, alone[0]),
                levels=levels,
                difference=largest_difference(worker.loaded.probabilities, workers[0].loaded.probabilities),
                serves=most_at_once(levels, deadline),
                least=least.get(worker.job.precision) if _is_uniform(worker.job) else None,
            )
        )
    return found


def _is_uniform(job: BenchJob) -> bool:
    """Return whether a competitor is ours and runs in one precision, so that the CPU's own pace can be told of it."""
    return job.kind == "ours" and not job.branches


def as_json(figures: BenchFigures) -> dict[str, Any]:
    """Return one competitor's figures as what JSON knows."""
    job = asdict(figures.job)
    return {
        "name": figures.name,
        **{key: job[key] for key in ("kind", "backend", "precision", "slots", "threads", "branches")},
        **asdict(figures.loaded),
        "peak_bytes": figures.peak_bytes,
        "alone": {kind: asdict(alone) for kind, alone in figures.alone.items()},
        "levels": [asdict(level) for level in figures.levels],
        "difference": figures.difference if math.isfinite(figures.difference) else None,
        "serves": figures.serves,
        "of_peak": figures.of_peak,
    }
