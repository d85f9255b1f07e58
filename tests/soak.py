"""`make soak`: thousands of mixed requests to a real daemon, and what they leave behind: memory, descriptors, tasks.

    python -m tests.soak [--count 20000]

Pictures of many sizes and colour modes, on both wires; requests that are wrong in every way; callers that hang up; a
reload now and then.

Memory is looked at with no request under way, after a reload: that is when the daemon gives back what is free. Under
load the allocator keeps up to 40 MB of it for a while, which looks like growth over 15,000 requests. What the start and
first uses take is left out, and the verdict is that of the slope's interval, not of the slope: as long as it tells
nothing, requests go on.
"""

import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import typer
from scipy.stats import theilslopes

from tests.mixture import Load
from tests.process.daemon import Daemon, eventually

CALLERS = 6
BYTES_A_REQUEST = 1000  # that resident memory may grow by
STEP = 1000  # requests between two samples; a reload takes some for a while too, so they are not closer
LEAST = 10 * STEP  # fewer requests give too few samples
LONGEST = 3  # times as many requests, if they don't tell
CONFIDENCE = 0.95

Verdict = Literal["steady", "grows", "undecided"]


@dataclass(frozen=True)
class Sample:
    """The daemon after so many requests."""

    requests: int
    resident: float  # bytes
    descriptors: int
    tasks: int
    threads: int


@dataclass(frozen=True)
class Growth:
    """Bytes of resident memory a request, once memory has settled: the slope, and the interval that it lies in."""

    since: int  # requests
    slope: float
    low: float
    high: float


def growth_of(samples: Sequence[Sample]) -> Growth:
    """Return the median slope between any two samples after the warm-up (Theil and Sen), and its interval.

    A step of 15 MB, which least squares would count as kilobytes a request, moves it little.
    """
    rest = samples[settled([one.resident for one in samples]) :]
    found = theilslopes([one.resident for one in rest], [one.requests for one in rest], CONFIDENCE)
    return Growth(rest[0].requests, float(found.slope), float(found.low_slope), float(found.high_slope))


def settled(values: Sequence[float]) -> int:
    """Return how many of the first values are the warm-up, half of them at most.

    Without these the mean of the others has the smallest standard error (MSER, K. P. White 1997).
    """
    rests = [np.asarray(values[skipped:]) for skipped in range(len(values) // 2 + 1)]
    return int(np.argmin([rest.var() / len(rest) for rest in rests]))


def judge(samples: Sequence[Sample], count: int) -> Verdict | None:
    """Return the verdict after `count` requests or more; None: more of them are needed.

    That it grows is said only after the most requests: memory may rise for a while and be given back.
    """
    if (sent := samples[-1].requests) < count:
        return None
    growth = growth_of(samples)
    if growth.high < BYTES_A_REQUEST:
        return "steady"
    if sent < LONGEST * count:
        return None
    return "grows" if growth.low >= BYTES_A_REQUEST else "undecided"


@dataclass(frozen=True)
class Figures:
    """What came of it; before and after: idle, with nobody connected."""

    samples: list[Sample]
    before: Sample
    after: Sample
    verdict: Verdict
    ends: Counter[str]
    unexpected: list[str]
    seconds: float

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


def soak(daemon: Daemon, count: int, step: int = STEP, told: Callable[[Sample], None] = lambda _: None) -> Figures:
    """Send the mixture to a daemon that is ready, until its memory is judged."""
    first = Load(daemon)
    for number in range(50):  # whatever is made on first use
        first.one(-1 - number)
    first.client.close()
    before, started, samples = idle(daemon, 0), time.monotonic(), list[Sample]()
    load, verdict = Load(daemon), None

    with ThreadPoolExecutor(CALLERS) as pool:
        while verdict is None:
            sent = samples[-1].requests if samples else 0
            list(pool.map(load.one, range(sent, sent + step)))
            eventually(lambda: daemon.load() == (0, 0))
            daemon.signal(signal.SIGHUP)
            eventually(lambda: daemon.page("/status").json()["reload"]["done"] == len(samples) + 1)
            samples.append(sample(daemon, sent + step))
            told(samples[-1])
            verdict = judge(samples, count)
    seconds = time.monotonic() - started
    load.client.close()
    if daemon.metric("model_reloads_total", result="failed"):
        load.unexpected.append("a reload failed")
    after = idle(daemon, samples[-1].requests, before)
    return Figures(samples, before, after, verdict, load.ends, load.unexpected, seconds)


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


def show(one: Sample) -> None:
    """Print a sample at once, also into a file."""
    facts = f"{one.resident / 1e6:.1f} MB, {one.descriptors} descriptors, {one.tasks} tasks, {one.threads} threads"
    print(f"{one.requests:7,}  {facts}", flush=True)


def main(count: Annotated[int, typer.Option(min=LEAST, help="Requests, thrice as many if needed.")] = 20_000) -> None:
    """Soak a daemon; exit code 1: memory is not steady, something is left over, or a request ended as it should not."""
    with fresh_daemon() as daemon:
        figures = soak(daemon, count, told=show)
    show(figures.after)
    for end, times in sorted(figures.ends.items()):
        print(f"{times:7,}  {end}")
    growth = growth_of(figures.samples)
    print(f"{figures.after.requests:,} requests and {len(figures.samples)} reloads in {figures.seconds:.0f} s")
    print(
        f"resident memory: {figures.verdict}; from request {growth.since:,} on {growth.slope:.0f} bytes a request "
        f"({growth.low:.0f} to {growth.high:.0f}; less than {BYTES_A_REQUEST:,} is steady)"
    )
    print(f"left over: {figures.leftovers or 'nothing'}")
    for line in figures.unexpected[:20]:
        print(line)
    sys.exit(bool(figures.verdict != "steady" or figures.leftovers or figures.unexpected))


if __name__ == "__main__":
    typer.run(main)
