"""The parent's end of the workers, which are asked in turn, so that the machine's noise hits all alike."""

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from miner.bench.worker import BenchJob, Burst, BurstRequest, WorkerReady, to_dict
from miner.errors import CouldNotStart

END_SECONDS = 10.0  # seconds for a worker to end

TURN_SECONDS = (
    0.25  # seconds a turn should take: caches, pages and the library's threads are the competitor's own by then
)
LONE_REQUESTS = 6  # requests one after another, at least
MAX_BURSTS = 60  # bursts in a turn
SPIN_SECONDS = 0.02  # seconds until the last competitor's threads have stopped spinning
Progress = Callable[[str, float], None]  # what is done, and the share of the whole


class Competitor(Protocol):
    """Something that can be asked for bursts."""

    @property
    def name(self) -> str:
        """The competitor in the tables."""
        ...

    @property
    def pace(self) -> float:
        """Seconds a warm picture takes."""
        ...

    def turn(self, at_once: int, bursts: int) -> Sequence[Burst]:
        """Submit `at_once` requests together, `bursts` times."""
        ...


class Worker:
    """A `python -m miner.bench.worker` that has loaded its model."""

    def __init__(self, job: BenchJob, environment: Mapping[str, str], until: float | None = None) -> None:
        """Start it and wait until it is warm.

        Args:
            job: what it is to load.
            environment: of its process.
            until: when to give up, on time.monotonic; None: never.

        Raises:
            CouldNotStart: it can't load the model, or not by then.
        """
        self.job = job
        self.peak_bytes = 0.0
        self._chatter = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-m", "miner.bench.worker", repr(time.monotonic())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._chatter, text=True, env=dict(environment),
        )  # fmt: skip
        try:
            self.loaded = WorkerReady(**self._ask(to_dict(job), until))
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The competitor in the tables."""
        return self.job.name

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def pace(self) -> float:
        """Seconds a warm picture takes."""
        return self.loaded.pace

    def turn(self, at_once: int, bursts: int, until: float | None = None) -> list[Burst]:
        """Submit `at_once` requests together, `bursts` times.

        Raises:
            CouldNotStart: the worker is gone, its model failed, or it was not done by then.
        """
        answer = self._ask(to_dict(BurstRequest(at_once, bursts)), until)
        self.peak_bytes = answer["peak_bytes"]
        return [Burst(**one) for one in answer["bursts"]]

    def close(self) -> None:
        """Let it end, or end it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.communicate(timeout=END_SECONDS)
        except (subprocess.TimeoutExpired, ValueError, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._chatter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()

    def _ask(self, line: dict[str, object], until: float | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
            if (
                until is not None
                and not select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))[0]
            ):
                self._process.kill()
                raise CouldNotStart(f"{self.name}: not done in the time there was")
            told = self._process.stdout.readline()
        except BrokenPipeError:
            told = ""
        if not told:
            raise CouldNotStart(f"{self.name}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(told)
        if "fault" in answer:
            raise CouldNotStart(f"{self.name}: {answer['fault']}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait(END_SECONDS)
        self._chatter.seek(0)
        lines = self._chatter.read().strip().splitlines()
        return lines[-1] if lines else f"its process ended with {code}"


@dataclass(slots=True)
class Record:
    """All bursts of a competitor, by how many requests were submitted together."""

    bursts: dict[int, list[Burst]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoundLimit:
    """When to stop: after `rounds`, or when another round would end later than `until` (on the clock)."""

    rounds: int | None
    until: float | None


def bursts_in_turn(at_once: int, pace: float) -> int:
    """Return how many bursts make up a turn."""
    least = LONE_REQUESTS if at_once == 1 else 1
    return max(least, min(MAX_BURSTS, round(TURN_SECONDS / (at_once * max(pace, 1e-6)))))


def measure(
    competitors: Sequence[Competitor],
    levels: Sequence[int],
    bound: RoundLimit,
    progress: Progress = lambda _text, _share: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[list[Record], int]:
    """Run rounds until the bound, at least one; return a record for each competitor, and the number of rounds."""
    records = [Record() for _ in competitors]
    began = clock()
    rounds = 0
    while True:
        for at_once in levels:
            for number in _rotated(len(competitors), rounds):
                competitor = competitors[number]
                progress(f"{competitor.name}, {at_once} at once", _share(bound, rounds, began, clock()))
                bursts = competitor.turn(at_once, bursts_in_turn(at_once, competitor.pace))
                records[number].bursts.setdefault(at_once, []).extend(bursts)
                pause(SPIN_SECONDS)
        rounds += 1
        now = clock()
        if bound.rounds is not None and rounds >= bound.rounds:
            break
        if bound.until is not None and now + (now - began) / rounds > bound.until:
            break
    return records, rounds


def _rotated(count: int, rounds: int) -> list[int]:
    """Let another one begin each round: the first after a pause has it easier."""
    return [(number + rounds) % count for number in range(count)]


def _share(bound: RoundLimit, rounds: int, began: float, now: float) -> float:
    if bound.rounds is not None:
        return rounds / bound.rounds
    assert bound.until is not None
    return min(1.0, (now - began) / max(bound.until - began, 1e-3))
