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
from miner.bench.pictures import made_jpeg
from miner.bench.process import HOST, MinerProcess
from miner.bench.report import percentiles
from miner.errors import CouldNotStart

STARTS = 3  # measured, after one that fills caches
ALONE = 100  # requests for the overhead
WARM_UP = 100  # requests before the growth is looked at
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
    """What a daemon is asked: `requests` of `at_once` callers who wait `timeout` seconds."""

    requests: int
    at_once: int
    timeout: float


def measure_daemon(
    name: str,
    assignments: Sequence[str],
    environment: Mapping[str, str],
    load: Load,
    progress: Progress = lambda _text, _share: None,
) -> DaemonFigures:
    """Start a variant's daemon a few times, and put a load on the last one.

    Raises:
        CouldNotStart: it does not start, or does not answer.
    """
    picture = made_jpeg(320, 240)
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(STARTS + 1):
            progress(f"{name}: start {number + 1} of {STARTS + 1}", 0.0)
            with MinerProcess(Path(folder), assignments, environment) as miner:
                seconds = asyncio.run(_first_answer(miner, picture, load))
                if number:
                    starts.append(seconds)
                if number == STARTS:
                    return asyncio.run(_put_under_load(name, miner, starts, picture, load, progress))
    raise AssertionError("the last start returns")


def client_of(miner: MinerProcess, load: Load) -> Client:
    """Return a validator that asks this daemon."""
    return Client(miner.validator, miner.hotkey, miner.address, timeout=load.timeout)


async def _first_answer(miner: MinerProcess, picture: bytes, load: Load) -> float:
    """Ask until there is a prediction; return the seconds since the process was started."""
    async with client_of(miner, load) as client:
        await asyncio.to_thread(miner.wait_until_it_listens)
        while (reply := await client.ask(picture)).prediction is None:
            if reply.status not in (0, 503):
                raise CouldNotStart(f"the daemon answers {reply.status}: {reply.message}")
            miner.check()
            await asyncio.sleep(PAUSE)
        return time.perf_counter() - miner.started


async def _put_under_load(
    name: str, miner: MinerProcess, starts: list[float], picture: bytes, load: Load, progress: Progress
) -> DaemonFigures:
    resident_first = miner.resident()
    async with client_of(miner, load) as client:
        progress(f"{name}: one at a time", 0.0)
        latencies, overheads = await asyncio.to_thread(_ask_alone, miner, client, picture)
        await _ask(client, picture, WARM_UP, load.at_once)
        before = miner.resident()
        replies = await _ask(
            client,
            picture,
            load.requests,
            load.at_once,
            lambda done: progress(f"{name}: {load.at_once} at once", done / load.requests),
        )
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


def _ask_alone(miner: MinerProcess, client: Client, picture: bytes) -> tuple[list[float], list[float]]:
    """Return what a lone caller waits, and how much of that is not the model's, for each request.

    A plain connection, and signed before the clock starts: what a caller's own library takes is not the daemon's.
    """
    connection = HTTPConnection(HOST, miner.port, timeout=client.timeout)
    latencies, overheads = [], []
    before = miner.stages()
    for number in range(ALONE + 10):
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
        if number >= 10:  # connections and caches are warm
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
