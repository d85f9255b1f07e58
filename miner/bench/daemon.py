"""The costs of a daemon: start, memory, its own overhead, growth; on free ports, without a chain."""

import asyncio
import logging
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from miner.axon.client import Client, Reply, another
from miner.bench.run import percentiles
from miner.bench.subject import made_jpeg
from miner.chain.standalone import own_wallet, standalone_file
from miner.errors import CouldNotStart
from miner.metrics import PREFIX

ANSWER_SECONDS = 600.0  # seconds until the daemon answers: a first start may have to prepare the model
STOP_SECONDS = 30.0  # seconds
LOOK_SECONDS = 0.005  # seconds between two looks whether it listens
HOST = "127.0.0.1"

MAX_STARTS = 3  # measured at most, after one that fills caches
START_SECONDS = 15.0  # after which no other start is measured
ALONE, ALONE_SECONDS = 100, 10.0  # requests for the overhead, or as many as are answered in that time
UNMEASURED_REQUESTS = 10  # of them are not measured: connections and caches get warm
MOST, LOAD_SECONDS = 2000, 30.0  # requests for the growth, or as many as a lone caller would have answered in that time
WARM_UP = 100  # requests at most before the growth is looked at
MODEL = ("decode", "preprocess", "infer")  # the stages that are the model's, not the daemon's
RETRY_SECONDS = 0.01  # seconds between two tries for the first answer
Progress = Callable[[str, float], None]


class MinerProcess:
    """One `python -m miner run` with its own ports, and a state folder that holds its keys already."""

    def __init__(
        self, state: Path, assignments: Sequence[str], environment: Mapping[str, str], hotkeys: int = 0
    ) -> None:
        """Start it; with `hotkeys`, it serves so many of them instead of the one on `port`."""
        logging.getLogger("miner.chain.standalone").setLevel(logging.WARNING)  # throwaway keys are no news here
        self.port, self.status_port, *others = _free_ports(2 + hotkeys)
        self.ports = {f"key{number}": port for number, port in enumerate(others)}  # of several hotkeys, by name
        self.address = f"http://{HOST}:{self.port}"
        self.validator = own_wallet(state, "validator")
        self.hotkey = own_wallet(state, "miner").hotkey.ss58_address
        mine = [
            "SUBTENSOR_NETWORK=standalone", f"STATE_DIR={state}", f"STANDALONE_FILE={standalone_file(state)}",
            f"MINER_AXON_HOST={HOST}", f"MINER_AXON_PORT={self.port}", f"STATUS_HOST={HOST}",
            f"STATUS_PORT={self.status_port}", "BLACKLIST_MIN_STAKE=0", "BLACKLIST_DENY_HOTKEYS=",
            "LOG_LEVEL=WARNING", "LOG_FORMAT=text",
        ]  # fmt: skip
        if self.ports:
            mine.append("WALLET_HOTKEYS=" + ",".join(f"{name}:{port}" for name, port in self.ports.items()))
        options = [word for assignment in [*mine, *assignments] for word in ("--set", assignment)]
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with the process
        self._operator = httpx.Client(
            base_url=f"http://{HOST}:{self.status_port}", timeout=STOP_SECONDS, trust_env=False
        )
        with ExitStack() as stack:
            with signals_held():
                self.started = time.perf_counter()
                self._process = subprocess.Popen(  # noqa: S603 - this program
                    [sys.executable, "-m", "miner", "run", "--no-env-file", *options],
                    stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=dict(environment),
                )  # fmt: skip
                stack.push(self)
            self._memory = psutil.Process(self._process.pid)
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if kind is None else signal.SIGKILL)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._operator.close()
        self._log.close()

    def wait_until_it_listens(self, port: int | None = None) -> None:
        """Return as soon as the validators' port, or this one of several hotkeys, takes connections.

        Raises:
            CouldNotStart: the process ended, or takes too long.
        """
        deadline = self.started + ANSWER_SECONDS
        while time.perf_counter() < deadline:
            try:
                socket.create_connection((HOST, port or self.port), timeout=1).close()
            except OSError:
                self.check()
                time.sleep(LOOK_SECONDS)
            else:
                return
        raise CouldNotStart(f"the daemon did not listen within {ANSWER_SECONDS:.0f} s")

    def check(self) -> None:
        """Raise CouldNotStart if the process has ended, with its last words."""
        if (code := self._process.poll()) is not None:
            self._log.seek(0)
            lines = self._log.read().strip().splitlines()
            raise CouldNotStart(f"the daemon ended with {code}: {lines[-1] if lines else 'it said nothing'}")

    def resident(self) -> float:
        """Return the resident memory in bytes."""
        return float(self._memory.memory_info().rss)

    def sizes(self) -> tuple[float, float]:
        """Return RSS, and PSS: what is shared with other processes counts there by its part; in bytes."""
        memory = self._memory.memory_full_info()
        return float(memory.rss), float(memory.pss)

    def peak(self) -> float:
        """Return the most that was ever resident, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii", errors="replace")
        (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024.0

    def total(self, name: str) -> float:
        """Return the sum of a metric's samples; 0 where there is none, or nobody listens yet."""
        try:
            text = self._operator.get("/metrics").text
        except httpx.TransportError:
            return 0.0
        families = text_string_to_metric_families(text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def stages(self) -> dict[str, float]:
        """Return the seconds spent in each stage so far, over all requests."""
        name = PREFIX + "stage_duration_seconds"
        return {
            sample.labels["stage"]: sample.value
            for family in text_string_to_metric_families(self._operator.get("/metrics").text)
            if family.name == name
            for sample in family.samples
            if sample.name == name + "_sum"
        }


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back for a moment: a process whose start they break off would be known to nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: held.append(got)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for got in held:
            signal.raise_signal(got)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


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
            progress(f"{name}: start {len(starts) + 2} of {MAX_STARTS + 1}" if starts else f"{name}: first start", 0.0)
            with MinerProcess(Path(folder), assignments, environment) as miner:
                client = client_of(miner, load)
                miner.wait_until_it_listens()
                starts.append(asyncio.run(_first_answer(miner, client, picture)))
                is_late = time.perf_counter() - begun > START_SECONDS
                if len(starts) > MAX_STARTS or (is_late and len(starts) > 1):
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
            await asyncio.sleep(RETRY_SECONDS)
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
    for number in range(UNMEASURED_REQUESTS + ALONE):
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
        if number >= UNMEASURED_REQUESTS:
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
