"""The tuning of the plan: variants first, then the split of the best one, each measured in turn.

Of an ensemble each branch's variants are measured alone, then the best of their combinations as a whole.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Protocol, TypeVar

from detectors.base import RunOptions, Way, Ways, is_plain
from detectors.machine import read_headroom
from detectors.registry import BACKENDS
from miner.bench.client import Worker
from miner.bench.worker import BenchJob
from miner.errors import CouldNotStart
from miner.inference.plan import Plan

BURST = 8  # requests at once: about as many validators as ask a miner in the same moment
LONE_REQUESTS = 2  # lone requests a round
ROUNDS, LEAST_ROUNDS = 12, 2
MAX_DIFFERENCE = 1e-3  # of probability, between two backends at fp32
EQUAL_SPEED = 1.05  # within a twentieth of the fastest, the one with less memory is taken
EQUAL = 0.95  # of the time; above that the memory decided
ARENA_WORDS = {True: ", arena", False: ", no arena", None: ""}
VARIANTS_SHARE = 0.6  # of the time; the rest is for the splits
BRANCHES_SHARE = 0.5  # the same of an ensemble, whose combinations take longer than a branch
COMBINATIONS = 3  # of an ensemble's branches that are measured as a whole

Progress = Callable[[str], None]
Clock = Callable[[], float]
Start = Callable[[BenchJob, Mapping[str, str], float], Worker]


class Scored(Protocol):
    """Something that takes seconds and bytes."""

    @property
    def score(self) -> float:
        """Seconds; the fewer the better."""
        ...

    @property
    def resident(self) -> float:
        """Bytes."""
        ...


S = TypeVar("S", bound=Scored)


@dataclass(slots=True)
class MeasuredVariant:
    """What was measured of one way to serve: medians in seconds, resident memory in bytes."""

    job: BenchJob
    resident: float
    probabilities: list[float]
    alone: list[float] = field(default_factory=list)
    bursts: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Seconds a lone request waits, plus a picture's share of a burst: both count, as both happen."""
        return statistics.median(self.alone) + statistics.median(self.bursts) / BURST

    @property
    def words(self) -> str:
        """The way to serve, in words."""
        return in_words(self.job)


def by_promise(variants: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return backends and precisions in the order to measure: a busy machine has no time left for the last of them.

    The first stays, as the others are held against it. What is likely to save most comes next.
    """

    def saves_less(variant: tuple[str, str]) -> tuple[bool, bool, bool]:
        _, precision = variant
        return precision == "fp32", "int8" not in precision, "merged" not in precision

    return [*variants[:1], *sorted(variants[1:], key=saves_less)]


def in_words(job: BenchJob) -> str:
    """Return a way to serve in words."""
    return f"{job.name}, {RunOptions(job.slots, job.threads)}{ARENA_WORDS[job.arena]}"


def measure(
    jobs: Sequence[BenchJob],
    environment: Mapping[str, str],
    deadline: float,
    progress: Progress,
    start: Start = Worker,
    clock: Clock = time.monotonic,
    burst: int = BURST,
) -> tuple[list[MeasuredVariant], list[str]]:
    """Measure ways to serve, interleaved round by round, until `deadline`; return rows and what failed.

    What does not fit into the time is left out and named: each that takes part leaves time for rounds of all.
    """

    def seconds_of_round(pace: float) -> float:
        return pace * (LONE_REQUESTS + burst)

    faults: list[str] = []
    with ExitStack() as stack:
        running: list[tuple[Worker, MeasuredVariant]] = []
        for job in jobs:
            until = deadline - LEAST_ROUNDS * sum(seconds_of_round(worker.pace) for worker, _ in running)
            if clock() > until:
                faults.append(f"{in_words(job)}: no time left")
                continue
            largest = max((row.resident for _, row in running), default=0.0)
            if read_headroom().left < largest:  # a miner may be serving beside
                faults.append(f"{in_words(job)}: no memory left beside the others")
                continue
            progress(f"loading {in_words(job)}")
            try:
                worker = stack.enter_context(start(job, environment, until))
            except CouldNotStart as error:
                faults.append(f"{in_words(job)}: {str(error).removeprefix(f'{job.name}: ')}")
                continue
            seconds = LEAST_ROUNDS * seconds_of_round(worker.pace)
            if clock() + seconds > until:
                faults.append(f"{in_words(job)}: no time left: measuring it takes {seconds:.1f} s")
                continue
            running.append((worker, MeasuredVariant(job, worker.loaded.warm_bytes, worker.loaded.probabilities)))
        for number in range(ROUNDS):
            seconds = sum(seconds_of_round(worker.pace) for worker, _ in running)
            if number and clock() + seconds > deadline:
                break
            running = [pair for pair in running if _take_turn(*pair, burst, deadline, progress, faults)]
    return [row for _, row in running], faults


def _take_turn(
    worker: Worker, row: MeasuredVariant, burst: int, deadline: float, progress: Progress, faults: list[str]
) -> bool:
    """Measure a way to serve once; return whether it stays in the race."""
    progress(f"measuring {row.words}")
    try:
        alone, bursts = worker.turn(1, LONE_REQUESTS, deadline), worker.turn(burst, 1, deadline)
    except CouldNotStart as error:
        if not row.bursts:
            faults.append(f"{row.words}: {str(error).removeprefix(f'{row.job.name}: ')}")
        return bool(row.bursts)
    row.alone += [one.seconds for one in alone]
    row.bursts += [one.seconds * BURST / burst for one in bursts]
    return True


def faithful(rows: Sequence[MeasuredVariant]) -> list[MeasuredVariant]:
    """Return the rows but those at fp32 whose answers differ from the first's; other precisions passed their gate."""
    first = rows[0].probabilities
    return [
        row
        for row in rows
        if row.job.precision != "fp32"
        or all(abs(a - b) <= MAX_DIFFERENCE for a, b in zip(row.probabilities, first, strict=True))
    ]


def best(rows: Sequence[S]) -> S:
    """Return the fastest, or one nearly as fast that holds less memory."""
    limit = min(row.score for row in rows) * EQUAL_SPEED
    return min((row for row in rows if row.score <= limit), key=lambda row: row.resident)


def splits(cores: int) -> list[RunOptions]:
    """Return the ways to share out cores: all for one picture, one for each, and halves."""
    counts = {1, cores} | ({2} if cores >= 4 else set())
    return [RunOptions(slots, max(1, cores // slots)) for slots in sorted(counts)]


def ways(baseline: BenchJob, leader: BenchJob, cores: int) -> list[BenchJob]:
    """Return the ways to serve the leader, after the baseline: only what is measured in the same rounds compares."""
    more = [
        replace(leader, slots=split.slots, threads=split.threads, arena=arena)
        for split in splits(cores)
        for arena in ((True, False) if BACKENDS[leader.backend].onnxruntime else (None,))
    ]
    return [baseline, *(job for job in more if job != baseline)]


@dataclass(frozen=True, slots=True)
class BranchCombination:
    """A way for each branch of an ensemble, and the sums of what these took alone."""

    ways: dict[str, Way]
    parts: tuple[MeasuredVariant, ...]

    @property
    def score(self) -> float:
        """Seconds, in turn."""
        return sum(row.score for row in self.parts)

    @property
    def resident(self) -> float:
        """Bytes: too many, as each was a process of its own; but so for all."""
        return sum(row.resident for row in self.parts)


def combinations(
    rows: Sequence[MeasuredVariant], may_serve: Callable[[Ways], bool], most_bytes: float
) -> list[BranchCombination]:
    """Return the combinations to measure as a whole, the most promising first; none where a branch has no row.

    Args:
        rows: of the branches alone.
        may_serve: whether what a combination's branches say together was judged.
        most_bytes: that there are.
    """
    each: dict[str, list[MeasuredVariant]] = {}
    for row in rows:
        each.setdefault(row.job.branch, []).append(row)
    each = {name: faithful(group) for name, group in each.items()}
    every = (
        BranchCombination({row.job.branch: Way(row.job.precision, row.job.backend) for row in parts}, parts)
        for parts in product(*each.values())
    )
    fast = sorted((one for one in every if one.resident <= most_bytes), key=lambda one: one.score)
    found = list(islice((one for one in fast if may_serve(one.ways)), COMBINATIONS))
    if found:
        lead = best(found)
        found = [lead, *(one for one in found if one is not lead)]
    return found


def shares(threads: int, seconds: Mapping[str, float]) -> dict[str, int]:
    """Share threads out among branches that run side by side, by the seconds each takes; none: too few of either."""
    if threads < len(seconds) or len(seconds) < 2:
        return {}
    found = dict.fromkeys(seconds, 1)
    for _ in range(threads - len(seconds)):
        found[max(seconds, key=lambda name: seconds[name] / found[name])] += 1
    return found


def ensemble_ways(template: BenchJob, baseline: BenchJob | None, chosen: Iterable[BranchCombination]) -> list[BenchJob]:
    """Return the ways to serve an ensemble's combinations, each in turn and side by side; the best one's come first.

    The baseline follows those. What comes last is measured where there is time.
    """
    found: list[BenchJob] = []
    splits_of_first: list[BenchJob] = []
    for one in chosen:
        in_turn = with_ways(template, one.ways)
        found.append(in_turn)
        parts = shares(in_turn.threads, {row.job.branch: row.score for row in one.parts})
        if parts:
            beside = {name: replace(way, threads=parts[name]) for name, way in one.ways.items()}
            found.append(with_ways(template, beside))
        if not splits_of_first:
            splits_of_first = [
                replace(in_turn, slots=split.slots, threads=split.threads) for split in splits(template.threads)
            ]
            found += [baseline] if baseline is not None else []
    found += splits_of_first
    return [job for number, job in enumerate(found) if job not in found[:number]]


def with_ways(job: BenchJob, ways: Ways) -> BenchJob:
    """Return an ensemble's job with these ways of its branches."""
    first = next(iter(ways.values()))
    return replace(job, backend=first.backend, precision=first.precision, branches={} if is_plain(ways) else dict(ways))


def decide(
    variants: Sequence[MeasuredVariant], found: Sequence[MeasuredVariant]
) -> tuple[MeasuredVariant, MeasuredVariant]:
    """Return the row to serve by, and the row of the default way that was measured in the same rounds.

    Args:
        variants: of the first measurement; at least one.
        found: of the second, of `ways`.
    """
    default = next((row for row in found if row.job == variants[0].job), None)
    if default is None:  # it was left out, or all were
        return best(faithful(variants)), variants[0]
    return best(found), default


def plan_of(row: MeasuredVariant, default: MeasuredVariant | None) -> Plan:
    """Return the plan for the chosen row, with the reason in words; without a default there was no time for it."""
    job = row.job
    if default is None:
        words = "tuned: the fastest that was measured"
        return Plan(job.backend, job.precision, job.slots, job.threads, job.arena, words, job.branches)
    ratio = row.score / default.score
    words = f"tuned: {ratio:.2f} of the time of {default.words}"
    if job == default.job:
        words = "tuned: nothing here is faster"
    elif ratio > EQUAL and row.resident < default.resident:
        words = f"tuned: as fast as {default.words}, in {(default.resident - row.resident) / 1e6:.0f} MB less"
    return Plan(job.backend, job.precision, job.slots, job.threads, job.arena, words, job.branches)
