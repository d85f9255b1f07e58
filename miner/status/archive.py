"""What the page shows over restarts, from files in STATE_DIR: the history of requests, and doctor's last findings.

Each subnet has its own, and so has a trial without a chain, whose requests say nothing of a real one's.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.files import as_owner, write_safely
from detectors.models.documents import faults
from miner.cascade import STOP_WORDS
from miner.chain.sync import SnapshotStore
from miner.recorder.records import OUTCOMES
from miner.settings.settings import Settings
from miner.status.history import (
    MOST_ACCOUNTS,
    MOST_STAGES,
    UNPERMITTED,
    Account,
    AccountPeriod,
    Durations,
    History,
    Period,
    StageCount,
)

log = logging.getLogger(__name__)

FORMAT = 1
SAVE_SECONDS = 60.0
LARGEST_BYTES = 32 * 2**20  # a history of nothing but full periods has 12 MB

DAMAGED = ".damaged"  # behind the name of a file that can't be read

LARGEST_CHECKUP = 256 * 2**10  # bytes

Count = Annotated[int, Field(ge=0, lt=2**32)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def history_file(settings: Settings) -> Path:
    """Return where a subnet's history of requests is kept."""
    return SnapshotStore.of(settings).file("history", "jsonl")


def checkup_file(settings: Settings) -> Path:
    """Return where doctor leaves its findings for the page."""
    return SnapshotStore.of(settings).file("doctor")


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CountLine(_Line):
    """Counts of requests by outcome, and of answers by bin."""

    outcomes: dict[str, Count]
    bins: list[tuple[Count, Count]]
    longest: Seconds
    last: Seconds = 0.0

    @classmethod
    def of(cls, outcomes: Mapping[str, int], durations: Durations, last: float = 0.0) -> Self:
        """Write counts down; bins without any are left out."""
        counts = durations.counts
        filled = [] if counts is None else np.flatnonzero(counts).tolist()
        bins = [] if counts is None else list(zip(filled, counts[filled].tolist(), strict=True))
        return cls.model_construct(outcomes=dict(outcomes), bins=bins, longest=durations.longest, last=last)

    def read(self, durations: Durations) -> tuple[Counter[str], Durations]:
        """Return the counts; the bins go into `durations`.

        Raises:
            ValueError: an outcome or a bin that there is not.
        """
        if strange := self.outcomes.keys() - set(OUTCOMES):
            raise ValueError(f"{sorted(strange)}: no outcomes of ours")
        if self.bins:
            durations.counts = durations.empty()
            for number, count in self.bins:
                if number >= len(durations.counts):
                    raise ValueError(f"bin {number} of {len(durations.counts)}")
                durations.counts[number] = count
        durations.longest = self.longest
        return Counter(self.outcomes), durations


class StageLine(_Line):
    """What a stage of a cascade did."""

    answers: dict[str, Count]
    spent: CountLine
    left: CountLine

    @classmethod
    def of(cls, count: StageCount) -> Self:
        """Write it down."""
        spent, left = CountLine.of({}, count.spent), CountLine.of({}, count.left)
        return cls.model_construct(answers=dict(count.answers), spent=spent, left=left)

    def read(self) -> StageCount:
        """Return it.

        Raises:
            ValueError: a reason or a bin that there is not.
        """
        if strange := self.answers.keys() - STOP_WORDS.keys():
            raise ValueError(f"{sorted(strange)}: no reasons of ours")
        count = StageCount(Counter(self.answers))
        self.spent.read(count.spent)
        self.left.read(count.left)
        return count


class PeriodLine(CountLine):
    """A period of all requests."""

    ring: Literal["hour", "day", "week"]
    number: Count
    stages: Annotated[dict[str, StageLine], Field(max_length=MOST_STAGES)] = {}


class AccountLine(_Line):
    """A period of who asked, by uid, and of which of our hotkeys was asked."""

    accounts: Literal["hour", "day", "week"]
    number: Count
    callers: Annotated[
        list[tuple[Annotated[int, Field(ge=UNPERMITTED, lt=2**16)], CountLine]], Field(max_length=MOST_ACCOUNTS + 2)
    ]
    hotkeys: Annotated[list[tuple[Annotated[str, Field(max_length=64)], CountLine]], Field(max_length=MOST_ACCOUNTS)]


class ArchiveHead(_Line):
    """What the file is, and how many lines follow."""

    format: int
    lines: int


def lines_of(history: History) -> Iterator[str]:
    """Yield a history's periods as lines of JSON."""
    for ring_name, ring in history.rings.items():
        for period in list(ring.periods):
            counts = CountLine.of(period.outcomes, period.durations)
            line = {"ring": ring_name, "number": period.number, **counts.model_dump()}
            if period.stages:
                line["stages"] = {name: StageLine.of(one).model_dump() for name, one in period.stages.items()}
            yield json.dumps(line, separators=(",", ":"))
    for name, accounts in history.accounts.items():
        for one in list(accounts.periods):
            callers, hotkeys = (
                [
                    (key, CountLine.of(found.outcomes, found.durations, found.last).model_dump())
                    for key, found in part.items()
                ]
                for part in (one.callers, one.hotkeys)
            )
            whose = {"accounts": name, "number": one.number, "callers": callers, "hotkeys": hotkeys}
            yield json.dumps(whose, separators=(",", ":"))


def restore(history: History, text: bytes, now: float) -> None:
    """Have a new history begin with what a file holds.

    Raises:
        ValueError: it is damaged, or of another format; the history is as it was.
    """
    first, *others = text.splitlines() or [b""]
    head = ArchiveHead.model_validate_json(first)
    if head.format != FORMAT:
        raise ValueError(f"format={head.format}: this version reads {FORMAT}")
    if head.lines != len(others):
        raise ValueError(f"{len(others)} of {head.lines} lines are there")
    periods: dict[str, list[Period]] = {name: [] for name in history.rings}
    accounts: dict[str, list[AccountPeriod]] = {name: [] for name in history.accounts}
    for line in others:
        if line.startswith(b'{"ring"'):
            found = PeriodLine.model_validate_json(line)
            stages = {name: one.read() for name, one in found.stages.items()}
            periods[found.ring].append(Period(found.number, *found.read(Durations()), stages))
        else:
            whose = AccountLine.model_validate_json(line)
            callers = {uid: _account(one) for uid, one in whose.callers}
            hotkeys = {hotkey: _account(one) for hotkey, one in whose.hotkeys}
            accounts[whose.accounts].append(AccountPeriod(whose.number, callers, hotkeys))
    for name, ring in history.rings.items():
        ring.restore(periods[name], now)
    for name, of_accounts in history.accounts.items():
        of_accounts.restore(accounts[name], now)


def _account(line: CountLine) -> Account:
    return Account(*line.read(Account().durations), line.last)


class Archive:
    """Keeps a history in a file: read at the start, written every minute in which something came, and at the end."""

    def __init__(self, history: History, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.history = history
        self.path = path
        self.clock = clock
        self._saved = 0
        self._fault = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self, seconds: float = SAVE_SECONDS) -> None:
        """Read what was kept, if anything, and write it from now on."""
        await asyncio.to_thread(self.load)
        self._task = asyncio.create_task(self._keep(seconds), name="history")

    def load(self) -> None:
        """Read the file; a damaged one is told and kept under another name, and the history begins anew."""
        try:
            with self.path.open("rb") as file:
                text = file.read(LARGEST_BYTES + 1)
            if len(text) > LARGEST_BYTES:
                raise ValueError(f"larger than {LARGEST_BYTES >> 20} MiB")
            restore(self.history, text, self.clock())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            reason = faults(error) if isinstance(error, ValidationError) else said
            log.warning("%s: the history of requests begins anew: %s; %s", self.path, reason, self._put_aside())

    def _put_aside(self) -> str:
        """Give a file that can't be read another name, in place of the last such; return what became of it.

        It may be of a later version, or somebody can mend it: the next save would be its end.
        """
        kept = self.path.with_name(f"{self.path.name}{DAMAGED}")
        try:
            self.path.replace(kept)
        except OSError as error:
            return f"{kept.name} can't be made of it: {error.strerror or error}"
        return f"the file is now {kept.name}"

    async def stop(self) -> None:
        """Write for the last time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            await self.save()

    async def save(self) -> None:
        """Write the file, if something came since; a disk that is full or broken is told once."""
        count = self.history.count
        if count == self._saved:
            return
        lines = []
        for line in lines_of(self.history):
            lines.append(line)
            await asyncio.sleep(0)  # a full period takes 2 ms: others have their turn on the loop after each
        head = json.dumps({"format": FORMAT, "lines": len(lines)})
        try:
            await asyncio.to_thread(write_safely, self.path, "\n".join([head, *lines, ""]).encode())
        except OSError as error:
            if not self._fault:
                log.warning("%s: the history of requests can't be kept: %s", self.path, error.strerror or error)
            self._fault = str(error)
            return
        self._saved = count
        if self._fault:
            log.info("%s: the history of requests is kept again", self.path)
            self._fault = ""

    async def _keep(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self.save()


class FindingView(BaseModel):
    """A line of doctor's."""

    model_config = ConfigDict(frozen=True)

    name: str
    level: Literal["ok", "warning", "problem"]
    words: str
    todo: str = ""


class CheckupView(BaseModel):
    """Doctor's last findings; `key`: the hotkey that it looked at, by its name."""

    model_config = ConfigDict(frozen=True)

    at: Seconds
    key: str
    verdict: str
    findings: list[FindingView]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what doctor left; None: nothing, or nothing that can be read."""
        try:
            with path.open("rb") as file:
                return cls.model_validate_json(file.read(LARGEST_CHECKUP))
        except (OSError, ValidationError):
            return None

    def write(self, path: Path) -> None:
        """Leave it where the daemon's page looks, as the daemon's user where root leaves it.

        Raises:
            OSError: the folder is not there, or can't be written.
        """
        with as_owner(path.parent):
            write_safely(path, self.model_dump_json(indent=2).encode() + b"\n")
