"""The daemon as a whole: start, memory, its own overhead, and whether it grows."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from miner.axon.client import Client, Reply, another
from miner.bench.process import HOST, MinerProcess
from miner.bench.report import percentiles
from miner.bench.subject import made_jpeg
from miner.errors import CouldNotStart

STARTS = 3  # measured at most, after one that fills caches
START_SECONDS = 15.0  # after which no other start is measured
ALONE, ALONE_SECONDS = 100, 10.0  # requests for the overhead, or as many as are answered in that time
FIRST = 10  # of them are not measured: connections and caches get warm
MOST, LOAD_SECONDS = 2000, 30.0  # requests for the growth, or as many as a lone caller would have answered in that time
WARM_UP = 100  # requests at most before the growth is looked at
MODEL = ("decode", "preprocess", "infer")  # the stages that are the model's, not the daemon's
PAUSE = 0.01  # seconds between two tries for the first answer

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class DaemonFigures:
    """One variant's daemon; seconds and bytes."""

    name: str
    first_answers: list[float]  # from the start of the process, of several starts
    latency: float  # of a lone caller, the median
    overhead: float  # of that, what is not the model's, the median
    resident_first: float  # after the first answer
    resident: float  # at the end
    peak: float
    growth: float  # over `requests`, after the warm-up
    requests: int
    unanswered: int
    at_once: int
    p99: float  # with `at_once` callers who ask again and again

    @property
    def first_answer(self) -> float:
        """The median start."""
        return statistics.median(self.first_answers)


@dataclass(frozen=True, slots=True)
class Load:
    """What a daemon is asked: `requests` of `at_once` callers who wait `timeout` seconds; None: as its pace allows."""

    requests: int | None
    at_once: int
    timeout: float


def fitting(latency: float, at_once: int) -> int:
    """Return the requests that fit a model whose lone caller waits so many seconds: each caller has one at least."""
    return max(at_once, min(MOST, int(LOAD_SECONDS / latency)))


def measure_daemon(
    name: str,
    assignments: Sequence[str],
    environment: Mapping[str, str],
    load: Load,
    progress: Progress = lambda _text, _share: None,
) -> DaemonFigures:
    """Start a variant's daemon a few times, and put a load on the last one.

    What is waited for outside the event loop is waited for in this thread, so that a signal ends it at once.

    Raises:
        CouldNotStart: it does not start, or does not answer.
    """
    picture = made_jpeg(320, 240)
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        while True:
            progress(f"{name}: start {len(starts) + 2} of {STARTS + 1}" if starts else f"{name}: first start", 0.0)
            with MinerProcess(Path(folder), assignments, environment) as miner:
                client = client_of(miner, load)
                miner.wait_until_it_listens()
                starts.append(asyncio.run(_first_answer(miner, client, picture)))
                is_late = time.perf_counter() - begun > START_SECONDS
                if len(starts) > STARTS or (is_late and len(starts) > 1):
                    return _measure_running(name, miner, starts[1:], picture, load, progress)


def client_of(miner: MinerProcess, load: Load) -> Client:
    """Return a validator that asks this daemon."""
    return Client(miner.validator, miner.hotkey, miner.address, timeout=load.timeout)


async def _first_answer(miner: MinerProcess, client: Client, picture: bytes) -> float:
    """Ask until there is a prediction; return the seconds since the process was started."""
    async with client:
        while (reply := await client.ask(picture)).prediction is None:
            if reply.status not in (0, 503):
                raise CouldNotStart(f"the daemon answers {reply.status}: {reply.message}")
            miner.check()
            await asyncio.sleep(PAUSE)
        return time.perf_counter() - miner.started


def _measure_running(
    name: str, miner: MinerProcess, starts: list[float], picture: bytes, load: Load, progress: Progress
) -> DaemonFigures:
    resident_first = miner.resident()
    progress(f"{name}: one at a time", 0.0)
    latencies, overheads = _ask_alone(miner, client_of(miner, load), picture)
    count = load.requests or fitting(statistics.median(latencies), load.at_once)

    def step(done: int) -> None:
        progress(f"{name}: {load.at_once} at once", done / count)

    before, replies = asyncio.run(_put_under_load(miner, client_of(miner, load), picture, count, load.at_once, step))
    after = miner.resident()
    answered = [reply.seconds for reply in replies if reply.prediction is not None]
    if not answered:
        raise CouldNotStart(f"no request was answered: {replies[0].message}")
    return DaemonFigures(
        name=name,
        first_answers=starts,
        latency=statistics.median(latencies),
        overhead=statistics.median(overheads),
        resident_first=resident_first,
        resident=after,
        peak=miner.peak(),
        growth=after - before,
        requests=len(replies),
        unanswered=len(replies) - len(answered),
        at_once=load.at_once,
        p99=percentiles(answered)[2],
    )


async def _put_under_load(
    miner: MinerProcess, client: Client, picture: bytes, count: int, at_once: int, done: Callable[[int], None]
) -> tuple[float, list[Reply]]:
    """Return the resident memory after a warm-up, and what is answered after it."""
    async with client:
        await _ask(client, picture, min(WARM_UP, count), at_once)
        return miner.resident(), await _ask(client, picture, count, at_once, done)


def _ask_alone(miner: MinerProcess, client: Client, picture: bytes) -> tuple[list[float], list[float]]:
    """Return what a lone caller waits, and how much of that is not the model's, for each request.

    A plain connection, and signed before the clock starts: what a caller's own library takes is not the daemon's.
    """
    connection = HTTPConnection(HOST, miner.port, timeout=client.timeout)
    latencies, overheads = list[float](), list[float]()
    before, until = miner.stages(), time.perf_counter() + ALONE_SECONDS
    for number in range(FIRST + ALONE):
        if latencies and time.perf_counter() > until:
            break
        body = client.body(picture)
        headers = client.dendrite_headers() | {"content-type": "application/json", "timeout": str(client.timeout)}
        started = time.perf_counter()
        connection.request("POST", "/ImageSynapse", body, headers)
        response = connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - started
        after = miner.stages()
        if response.status != 200:
            raise CouldNotStart(f"the daemon answers {response.status}: {answer.decode(errors='replace')[:200]}")
        if number >= FIRST:
            latencies.append(seconds)
            overheads.append(seconds - sum(after[stage] - before[stage] for stage in MODEL))
        before = after
    connection.close()
    return latencies, overheads


async def _ask(
    client: Client, picture: bytes, count: int, at_once: int, done: Callable[[int], None] = lambda _: None
) -> list[Reply]:
    """Ask `count` times, with `at_once` on their way at any moment."""
    replies: list[Reply] = []
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            replies.append(await client.ask(another(picture, number)))
            done(len(replies))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, count)):
            group.create_task(caller())
    return replies
