"""The probe of a machine: threads, loader processes, micro-batches and precisions compared by photos a second.

What is measured where, and which is the best, in values; `throughput` measures.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from detectors.console import Screen, counted
from detectors.training.budget import GB, SPARE_CORES
from detectors.training.config import TrainConfig

PROBE_SECONDS = 60.0
LONGEST = 1.5  # times as long, and what is left is not measured
ENOUGH = 0.95  # of the most photos a second: figures vary by as much, and the simplest of these is taken
HOPELESS = 0.5  # of the most photos a second: more loader processes don't make up for it
LOUD = 0.1  # of the machine's CPU time in other hands, and that is said


@dataclass(frozen=True, slots=True)
class ProbeSetting:
    """What is compared."""

    threads: int
    workers: int  # loader processes
    micro_batch: int
    precision: str

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{counted(self.threads, 'thread')}, {counted(self.workers, 'loader process', 'es')}, "
            f"micro-batch {self.micro_batch}, {self.precision}"
        )


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """What a setting came to.

    Attributes:
        setting: that was measured.
        rate: photos a second, loaded and through the network; 0: they don't fit into memory.
        memory: bytes, at most, of this process and what loaders have for themselves.
        cores: in use by both, on average.
        idle: cores of the machine that had nothing to do, on average.
        others: share of the machine's CPU time that other programs had.
    """

    setting: ProbeSetting
    rate: float
    memory: float = 0.0
    cores: float = 0.0
    idle: float = 0.0
    others: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


Measure = Callable[[ProbeSetting, float], ProbeRow]


def splits(cores: int, threads: int | None = None, workers: int | None = None) -> list[tuple[int, int]]:
    """Return numbers of threads and loader processes to compare: together at most one more than there are cores.

    One more, since the network waits while it gets photos. What is given is not compared; if it is more by itself, it
    gets the fewest of the other.
    """
    some_threads = [threads] if threads is not None else sorted({cores, max(1, cores // 2), 1}, reverse=True)
    some_workers = [0] + [2**power for power in range(cores.bit_length()) if 2**power <= cores]
    some_workers = [workers] if workers is not None else some_workers
    pairs = list(itertools.product(some_threads, some_workers))
    return [pair for pair in pairs if sum(pair) <= cores + 1] or [min(pairs)]


def search(
    measure: Measure, config: TrainConfig, start: ProbeSetting, most: int, precisions: Sequence[str], screen: Screen,
    clock: Callable[[], float] = time.monotonic,
) -> list[ProbeRow]:  # fmt: skip
    """Compare for a minute: threads and processes together, then precisions of the best, then micro-batches.

    More loader processes are not given to numbers of threads that are far slower than others.

    Args:
        measure: measures a setting for so many seconds.
        config: what is set there stays as it is.
        start: where it begins, with all cores as threads.
        most: photos of a micro-batch.
        precisions: to compare.
        screen: shows how far it is.
        clock: seconds.
    """
    pairs = splits(start.threads, config.threads, config.workers)
    sizes = [] if config.micro_batch else [size for size in (start.micro_batch // 2, start.micro_batch * 2) if size]
    sizes = [size for size in sizes if size <= most]
    planned = len(pairs) + len(sizes) + len(precisions) - 1
    rows: list[ProbeRow] = []
    began = clock()

    def settings() -> Iterator[ProbeSetting]:
        fewest = min(workers for _, workers in pairs)
        for threads, workers in sorted(pairs, key=lambda pair: pair[1] > fewest):
            slowly = [row.rate for row in rows if row.setting.threads == threads and row.setting.workers == fewest]
            if not slowly or slowly[0] > HOPELESS * best(rows).rate:
                yield replace(start, threads=threads, workers=workers, precision=precisions[0])
        chosen = best(rows).setting
        for precision in precisions[1:]:
            yield replace(chosen, precision=precision)
        chosen = best(rows).setting
        for size in sizes:
            yield replace(chosen, micro_batch=size)

    with screen.bar("comparing", planned) as bar:
        for number, setting in enumerate(settings()):
            if number and clock() - began > LONGEST * PROBE_SECONDS:
                screen.say(f"the time is over: {planned - number} of {planned} settings are not compared")
                break
            bar(number, str(setting))
            rows.append(measure(setting, PROBE_SECONDS / planned))
    return rows


def best(rows: Sequence[ProbeRow]) -> ProbeRow:
    """Return the fastest row; of those about as fast, the one with the fewest processes and threads."""
    enough = ENOUGH * max(row.rate for row in rows)
    fast = [row for row in rows if row.rate >= enough]
    return min(fast, key=lambda row: (row.setting.workers + row.setting.threads, row.setting.micro_batch, -row.rate))


def taken(config: TrainConfig, rows: Sequence[ProbeRow]) -> TrainConfig:
    """Return a configuration with the best of what was compared; what was set before stays."""
    setting = best(rows).setting
    values: dict[str, Any] = {"threads": setting.threads, "workers": setting.workers}
    values["micro_batch"] = setting.micro_batch
    values = {name: value for name, value in values.items() if getattr(config, name) is None}
    if len({row.setting.precision for row in rows}) > 1:
        values["precision"] = setting.precision
    return config.model_copy(update=values)


def flags(config: TrainConfig, rows: Sequence[ProbeRow]) -> str:
    """Return the flags that make the configuration take the best."""
    chosen = taken(config, rows)
    names = [name for name in asdict(rows[0].setting) if getattr(chosen, name) != getattr(config, name)]
    return " ".join(f"--set {name}={getattr(chosen, name)}" for name in names)


def table(rows: Sequence[ProbeRow], cores: int) -> list[str]:
    """Return the lines of a table."""
    chosen = best(rows)
    lines = ["threads  workers  micro-batch  precision  photos/s   memory       CPU"]
    for row in rows:
        one = row.setting
        figures = f"{row.rate:8.1f}  {row.memory / GB:4.1f} GB  {row.cores:3.1f} of {cores}"
        lines.append(
            f"{one.threads:7}  {one.workers:7}  {one.micro_batch:11}  {one.precision:>9}  "
            + (figures if row.rate else "does not fit")
            + "  best" * (row is chosen)
        )
    return lines


def advice_on(rows: Sequence[ProbeRow], cores: int, config: TrainConfig) -> list[str]:
    """Say in words what the best is, and what it lacks on a machine of so many cores."""
    row = best(rows)
    words = [f"best: {row.setting}: {row.rate:.1f} photos a second"]
    others = sum(one.others for one in rows) / len(rows)
    if others > LOUD:
        words.append(f"other programs had {others:.0%} of the CPU meanwhile: without them, compare again")
    if row.idle < SPARE_CORES or row.cores > cores - SPARE_CORES:
        head = "" if config.is_yolo or config.method == "head" else ", or --method head"
        words.append(f"no core is idle: what makes it faster is a smaller --model or smaller photos{head}")
    else:
        words.append(f"{row.idle:.1f} cores are idle: other programs, or a second training, lose nothing here")
    return words
