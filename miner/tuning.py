"""Finding the plan for this machine: variants first, then the split of the best one, each measured in turn."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from miner.bench.competitor import Worker
from miner.bench.job import Job
from miner.errors import CouldNotStart
from miner.plan import Plan
from miner.threads import ThreadPlan

BURST = 8  # requests at once: about as many validators as ask a miner in the same moment
ROUNDS = 12
MAX_DIFFERENCE = 1e-3  # of probability, between two backends at fp32
NEAR = 1.05  # within a twentieth of the fastest, the one with less memory is taken
ARENA = {True: ", arena", False: ", no arena", None: ""}
VARIANTS_SHARE = 0.6  # of the time; the rest is for the splits

Progress = Callable[[str], None]


@dataclass(slots=True)
class Row:
    """What was measured of one way to serve: medians in seconds, resident memory in bytes."""

    job: Job
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
        split = ThreadPlan(self.job.slots, self.job.threads)
        return f"{self.job.name}, {split}{ARENA[self.job.arena]}"


def measure(
    jobs: Sequence[Job], environment: dict[str, str], deadline: float, progress: Progress
) -> tuple[list[Row], list[str]]:
    """Measure ways to serve, interleaved round by round, until `deadline` (monotonic); return rows and what failed.

    The first is measured in any case, so that there is always an answer.
    """
    faults: list[str] = []
    with ExitStack() as stack:
        running: list[tuple[Worker, Row]] = []
        for job in jobs:
            if running and time.monotonic() > deadline:
                faults.append(f"{job.name}: no time left")
                continue
            progress(f"loading {job.name}, {ThreadPlan(job.slots, job.threads)}")
            try:
                worker = stack.enter_context(Worker(job, environment))
            except CouldNotStart as error:
                faults.append(str(error))
                continue
            running.append((worker, Row(job, worker.loaded.warm_bytes, worker.loaded.probabilities)))
        for number in range(ROUNDS):
            if number > 1 and time.monotonic() > deadline:
                break
            for worker, row in running:
                progress(f"measuring {row.words}")
                row.alone += [one.seconds for one in worker.turn(1, 2)]
                row.bursts += [one.seconds for one in worker.turn(BURST, 1)]
    return [row for _, row in running], faults


def faithful(rows: Sequence[Row]) -> list[Row]:
    """Return the rows but those at fp32 whose answers differ from the first's; other precisions passed their gate."""
    first = rows[0].probabilities
    return [
        row
        for row in rows
        if row.job.precision != "fp32"
        or all(abs(a - b) <= MAX_DIFFERENCE for a, b in zip(row.probabilities, first, strict=True))
    ]


def best(rows: Sequence[Row]) -> Row:
    """Return the fastest, or one nearly as fast that holds less memory."""
    limit = min(row.score for row in rows) * NEAR
    return min((row for row in rows if row.score <= limit), key=lambda row: row.resident)


def splits(cores: int) -> list[ThreadPlan]:
    """Return the ways to share out cores: all for one picture, one for each, and halves."""
    counts = {1, cores} | ({2} if cores >= 4 else set())
    return [ThreadPlan(slots, max(1, cores // slots)) for slots in sorted(counts)]


def plan_of(row: Row, first: Row) -> Plan:
    """Return the plan for the chosen row, with the reason in words."""
    ratio = row.score / first.score
    words = f"tuned: {ratio:.2f} of the time of {first.words}" if row is not first else "tuned: nothing here is faster"
    job = row.job
    return Plan(job.backend, job.precision, job.slots, job.threads, job.arena, words)
