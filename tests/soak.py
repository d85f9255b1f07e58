"""`make soak`: thousands of mixed requests to a real daemon, and what they leave behind: memory, descriptors, tasks.

    python -m tests.soak [--count 20000]

Pictures of many sizes and colour modes, on both wires; requests that are wrong in every way; callers that hang up; a
reload now and then.
"""

import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from tests.mixture import Load
from tests.process.daemon import Daemon, eventually

CALLERS = 6
BYTES_A_REQUEST = 1000  # that resident memory may grow by, at the end


@dataclass(frozen=True)
class Sample:
    """The daemon after so many requests."""

    requests: int
    resident: float  # bytes
    descriptors: int
    tasks: int
    threads: int


@dataclass(frozen=True)
class Figures:
    """What came of it; before and after: idle, with nobody connected."""

    samples: list[Sample]
    before: Sample
    after: Sample
    ends: Counter[str]
    unexpected: list[str]
    reloads: int
    seconds: float

    @property
    def slope(self) -> float:
        """Bytes of resident memory a request over the last half: the median slope between any two samples of it.

        A reload holds two models for a moment, and what it frees may go back to the machine or not: by least squares
        such a step of 15 MB counts as kilobytes a request.
        """
        half = [sample for sample in self.samples if sample.requests >= self.samples[-1].requests / 2]
        pairs = combinations(half, 2)
        return float(np.median([(b.resident - a.resident) / (b.requests - a.requests) for a, b in pairs]))

    @property
    def leftovers(self) -> str:
        """What is there that was not there before, in words; "" for nothing."""
        more = {name: getattr(self.after, name) - getattr(self.before, name) for name in ("descriptors", "tasks")}
        return ", ".join(f"{count} {name}" for name, count in more.items() if count > 0)


def sample(daemon: Daemon, requests: int) -> Sample:
    process = psutil.Process(daemon.pid)
    return Sample(
        requests, process.memory_info().rss, process.num_fds(), int(daemon.metric("tasks")), process.num_threads()
    )


def idle(daemon: Daemon, requests: int, like: Sample | None = None) -> Sample:
    """Return a sample with nobody connected and nothing left to do; `like`: as small as that one, if it gets so."""

    def small() -> Sample | None:
        now = sample(daemon, requests)
        return now if like is None or (now.descriptors <= like.descriptors and now.tasks <= like.tasks) else None

    eventually(lambda: daemon.load() == (0, 0))
    until = time.monotonic() + 30
    while (found := small()) is None and time.monotonic() < until:
        time.sleep(0.2)
    return found or sample(daemon, requests)


def soak(daemon: Daemon, count: int, reload_every: int, told: Callable[[Sample], None] = lambda _: None) -> Figures:
    """Send the mixture to a daemon that is ready."""
    first = Load(daemon)
    for number in range(50):  # whatever is made on first use
        first.one(-1 - number)
    first.client.close()
    before, started, samples = idle(daemon, 0), time.monotonic(), list[Sample]()
    load, step, reloads = Load(daemon), max(1, count // 80), 0
    with ThreadPoolExecutor(CALLERS) as pool:
        for begin in range(0, count, step):
            if begin // reload_every > reloads:
                daemon.signal(signal.SIGHUP)
                reloads += 1
            list(pool.map(load.one, range(begin, min(count, begin + step))))
            samples.append(sample(daemon, min(count, begin + step)))
            told(samples[-1])
    seconds = time.monotonic() - started
    load.client.close()
    eventually(lambda: daemon.page("/status").json()["reload"]["done"] == reloads)
    if daemon.metric("model_reloads_total", result="failed"):
        load.unexpected.append("a reload failed")
    after = idle(daemon, count, before)
    return Figures(samples, before, after, load.ends, load.unexpected, reloads, seconds)


@contextmanager
def fresh_daemon(**settings: object) -> Iterator[Daemon]:
    """Run a daemon with the starter."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), settings)
        try:
            yield daemon.start().ready()
            assert daemon.stop() == 0, daemon.log
        finally:
            daemon.close()


def table(figures: Figures) -> Table:
    rows = Table("requests", "resident, MB", "descriptors", "tasks", "threads")
    shown = [figures.before, *figures.samples[9::10], figures.after]
    for one in shown:
        rows.add_row(
            f"{one.requests:,}", f"{one.resident / 1e6:.1f}", str(one.descriptors), str(one.tasks), str(one.threads)
        )
    return rows


def main(
    count: Annotated[int, typer.Option(min=80, help="Requests.")] = 20_000,
    reload_every: Annotated[int, typer.Option(min=1, help="Requests between two reloads.")] = 2_000,
) -> None:
    """Soak a daemon; exit code 1: memory grows, something is left over, or a request did not end as it should."""
    console = Console()
    with (
        fresh_daemon() as daemon,
        Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as bar,
    ):
        task = bar.add_task("requests", total=count)
        figures = soak(daemon, count, reload_every, lambda now: bar.update(task, completed=now.requests))
    console.print(table(figures))
    for end, times in sorted(figures.ends.items()):
        console.print(f"{times:7,}  {end}")
    console.print(f"{count:,} requests and {figures.reloads} reloads in {figures.seconds:.0f} s")
    console.print(f"resident memory grows by {figures.slope:.0f} bytes a request in the last half")
    console.print(f"left over: {figures.leftovers or 'nothing'}")
    for line in figures.unexpected[:20]:
        console.print(line)
    sys.exit(bool(figures.slope >= BYTES_A_REQUEST or figures.leftovers or figures.unexpected))


if __name__ == "__main__":
    typer.run(main)
