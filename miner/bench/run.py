"""A whole bench: start the workers, measure, sum up."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from detectors.machine import others, spent
from miner.bench.client import Bound, Progress, Record, Worker, measure
from miner.bench.machine import least_seconds, measure_rates
from miner.bench.report import Figures, largest_difference, level_of, medians_by_kind, most_at_once, ratios
from miner.bench.worker import BenchJob
from miner.errors import CouldNotStart

LEVELS = (1, 2, 4, 10)
LOADING = 0.25  # of the progress bar


@dataclass(frozen=True, slots=True)
class Result:
    """The figures in the order of the jobs, and how they came about."""

    figures: list[Figures]
    rounds: int
    left_out: dict[str, str]  # who could not take part, and why
    others: float  # share of the machine's CPU time in other hands meanwhile
    least: dict[str, float]  # seconds that a picture takes at least on this CPU, by precision


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
            workers, levels, Bound(rounds, until), lambda text, share: progress(text, LOADING + (1 - LOADING) * share)
        )
        loud = others(before, spent(pids))
        figures = sum_up(workers, records, kinds, deadline, least)
    return Result(figures, done, left_out, loud, least)


def sum_up(
    workers: Sequence[Worker],
    records: Sequence[Record],
    kinds: Sequence[str],
    deadline: float,
    least: Mapping[str, float],
) -> list[Figures]:
    """Put everything that was measured beside the first competitor's."""
    alone = [medians_by_kind(record.bursts[1], kinds) for record in records]
    found = []
    for worker, record, own in zip(workers, records, alone, strict=True):
        levels = [level_of(at_once, bursts) for at_once, bursts in sorted(record.bursts.items())]
        found.append(
            Figures(
                name=worker.name,
                job=worker.job,
                loaded=worker.loaded,
                peak_bytes=worker.peak_bytes,
                alone=ratios(own, alone[0]),
                levels=levels,
                difference=largest_difference(worker.loaded.probabilities, workers[0].loaded.probabilities),
                serves=most_at_once(levels, deadline),
                least=least.get(worker.job.precision) if worker.job.kind == "ours" else None,
            )
        )
    return found


def as_json(figures: Figures) -> dict[str, Any]:
    """Return one competitor's figures as what JSON knows."""
    job = asdict(figures.job)
    return {
        "name": figures.name,
        **{key: job[key] for key in ("kind", "backend", "precision", "slots", "threads")},
        **asdict(figures.loaded),
        "peak_bytes": figures.peak_bytes,
        "alone": {kind: asdict(alone) for kind, alone in figures.alone.items()},
        "levels": [asdict(level) for level in figures.levels],
        "difference": figures.difference if math.isfinite(figures.difference) else None,
        "serves": figures.serves,
        "of_peak": figures.of_peak,
    }
