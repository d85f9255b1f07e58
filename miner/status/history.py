"""The history of requests: the last twenty, an hour, a day and a week of counts, and the distribution of predictions.

Bounded whatever comes: a ring has so many periods, a period so many counts and callers, and no caller's hotkey is kept.
"""

import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from detectors.models.calibration import TENTHS, stability_index, tenth_of
from miner.recorder.records import RequestRecord

MISSED_OUTCOMES = ("refused", "expired", "failed")  # what a validator counts as no answer
RECENT_REQUESTS = 20
RECENT_UNPROVEN = 5  # of them at most: who proves nothing pushes no validator off the page
# Durations are counted in bins that grow by 2 %: 0.1 ms to 40 s, so a quantile is right within that; coarser ones gave
# p99 and the maximum the same figure.
FIRST_BIN, GROWTH, BINS = 1e-4, 1.02, 652
ACCOUNT_STEP = 5  # bins in one: there are many accounts, and within 10 % is enough
MOST_ACCOUNTS = 64  # of each kind in a period: a subnet has so many permits
MOST_STAGES = 16  # of cascades in a period: a reload may have brought another one
OTHERS, UNPERMITTED = -1, -2  # in place of a uid: beyond those, and without a permit
# Seconds of a period, and periods: of all requests, and of those of each caller.
SPANS = {"hour": (60, 60), "day": (900, 96), "week": (7200, 84)}
ACCOUNT_SPANS = {"hour": (60, 60), "day": (3600, 24), "week": (21600, 28)}

DRIFT_WINDOW = 500  # predictions
MIN_DRIFT_PREDICTIONS = 200  # before anything is said: fewer are spread by chance alone


class Durations:
    """How long answers took, counted in bins of `step` fine ones; nothing is allocated before the first."""

    __slots__ = ("counts", "longest", "step")

    def __init__(self, step: int = 1) -> None:
        self.step = step
        self.counts: NDArray[np.uint32] | None = None
        self.longest = 0.0

    def take(self, seconds: float) -> None:
        """Count an answer."""
        if self.counts is None:
            self.counts = self.empty()
        self.counts[math.ceil(_bin(seconds) / self.step)] += 1
        self.longest = max(self.longest, seconds)

    def empty(self) -> NDArray[np.uint32]:
        """Return counts of nothing."""
        return np.zeros(math.ceil(BINS / self.step) + 1, np.uint32)

    @classmethod
    def total(cls, parts: Iterable["Durations"]) -> "Durations":
        """Return the sum of some, which have one step."""
        whole: Durations | None = None
        for part in parts:
            whole = whole or cls(part.step)
            if part.counts is not None:
                whole.counts = part.counts if whole.counts is None else whole.counts + part.counts
                whole.longest = max(whole.longest, part.longest)
        return whole or cls()

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which this share of the answers came, or None if there were none."""
        if self.counts is None:
            return None
        reached = np.cumsum(self.counts)
        rank = reached.dtype.type(math.ceil(share * int(reached[-1])))  # of its type: a float has all of them converted
        found = int(reached.searchsorted(rank))
        return min(self.longest, FIRST_BIN * GROWTH ** (found * self.step))


@dataclass(slots=True)
class StageCount:
    """What one stage of a cascade did: its answers in time by why it was the last, and the seconds it took and left."""

    answers: Counter[str] = field(default_factory=Counter)
    spent: Durations = field(default_factory=lambda: Durations(ACCOUNT_STEP))
    left: Durations = field(default_factory=Durations)  # finer: nearly all of them are near the nine seconds

    @classmethod
    def total(cls, parts: Iterable["StageCount"]) -> "StageCount":
        """Return the sum of some."""
        listed = list(parts)
        answers = sum((part.answers for part in listed), Counter[str]())
        return cls(answers, Durations.total(one.spent for one in listed), Durations.total(one.left for one in listed))


@dataclass(slots=True)
class Period:
    """The requests that ended in one period of a ring, and how long the answered ones took."""

    number: int  # periods since 1970
    outcomes: Counter[str] = field(default_factory=Counter)
    durations: Durations = field(default_factory=Durations)
    stages: dict[str, StageCount] = field(default_factory=dict)  # of cascades, by their branches

    def take(self, record: RequestRecord) -> None:
        """Count a request that ended."""
        self.outcomes[record.outcome] += 1
        if record.prediction is not None:
            self.durations.take(record.seconds)
        if record.stage is not None:
            self._take_stages(record, record.left or 0.0)

    def _take_stages(self, record: RequestRecord, left: float) -> None:
        for branches in (*record.spent, record.branches):
            if branches not in self.stages and len(self.stages) < MOST_STAGES:
                self.stages[branches] = StageCount()
        for branches, seconds in record.spent.items():
            if branches in self.stages:
                self.stages[branches].spent.take(seconds)
        if record.outcome == "ok" and record.branches in self.stages:
            self.stages[record.branches].answers[record.stop] += 1
            self.stages[record.branches].left.take(left)

    @property
    def longest(self) -> float:
        """Seconds of the slowest answer."""
        return self.durations.longest

    @property
    def answered_share(self) -> float | None:
        """Of the requests that a validator may send, the share answered in time."""
        return answered_share(self.outcomes)


@dataclass(slots=True)
class Account:
    """What one uid asked, or one hotkey of ours was asked."""

    outcomes: Counter[str] = field(default_factory=Counter)
    durations: Durations = field(default_factory=lambda: Durations(ACCOUNT_STEP))
    last: float = 0.0  # seconds since 1970

    def take(self, record: RequestRecord) -> None:
        """Count a request that ended."""
        self.outcomes[record.outcome] += 1
        if record.prediction is not None:
            self.durations.take(record.seconds)
        self.last = max(self.last, record.at)

    @classmethod
    def total(cls, parts: Iterable["Account"]) -> "Account":
        """Return the sum of some."""
        listed = list(parts)
        outcomes: Counter[str] = Counter()
        for part in listed:
            outcomes.update(part.outcomes)
        return cls(
            outcomes, Durations.total(one.durations for one in listed), max((one.last for one in listed), default=0.0)
        )


@dataclass(slots=True)
class AccountPeriod:
    """The accounts of one period: of callers by uid, and of our own hotkeys."""

    number: int
    callers: dict[int, Account] = field(default_factory=dict)
    hotkeys: dict[str, Account] = field(default_factory=dict)

    def take(self, record: RequestRecord) -> None:
        """Count a request that ended; its caller only if proved, and no `query`, which signs as ourselves."""
        if record.hotkey in self.hotkeys or len(self.hotkeys) < MOST_ACCOUNTS:
            self.hotkeys.setdefault(record.hotkey, Account()).take(record)
        if not record.caller or record.caller == record.hotkey:
            return
        uid = record.uid if record.is_permitted and record.uid is not None else UNPERMITTED
        if uid not in self.callers and uid >= 0 and len(self.callers) >= MOST_ACCOUNTS:
            uid = OTHERS
        self.callers.setdefault(uid, Account()).take(record)


class Numbered(Protocol):
    """A period of a ring."""

    number: int


P = TypeVar("P", bound=Numbered)
T = TypeVar("T")


def _number(period: Numbered) -> int:
    return period.number


class Ring(Generic[P]):
    """The periods of one length, in order of time; a request is counted in the period of its own moment.

    A clock may be wrong: a board without a battery starts years behind until NTP sets it, others start ahead. So no
    period goes for its age. Those that lie ahead are not shown, stay, and come into view once the clock is there. Of
    those up to the present and of those ahead, the `length` nearest to it are kept: a clock that is ahead pushes out
    the oldest only, one for each that it begins. Where a clock is set back, what came in the time that it goes through
    again is shown when it gets there. That hides seconds: with a clock that is wrong by more, no validator is let in.
    """

    def __init__(self, seconds: int, length: int, make: Callable[[int], P]) -> None:
        self.seconds = seconds
        self.length = length
        self.make = make
        self.periods: list[P] = []  # twice `length` at most
        self._current: P | None = None  # the only one that changes
        self._changes = 0  # of which periods there are, and which is the current one
        self._kept: dict[str, tuple[tuple[int, int], Any]] = {}

    def at(self, now: float) -> P:
        """Return the period of a time, and make it the current one."""
        number = int(now // self.seconds)
        if self._current is None or self._current.number != number:
            place = bisect_left(self.periods, number, key=_number)
            if place == len(self.periods) or self.periods[place].number != number:
                self.periods.insert(place, self.make(number))
            self._current = self.periods[place]
            self._changes += 1
            self._trim(number)
        return self._current

    def last(self, now: float) -> list[P]:
        """Return the last periods, empty ones too, the current one last."""
        number = int(now // self.seconds)
        found = {period.number: period for period in self.periods}
        return [found.get(one) or self.make(one) for one in range(number - self.length + 1, number + 1)]

    def split(self, name: str, now: float, sum_up: Callable[[list[P]], T]) -> tuple[T, list[P]]:
        """Return what the last periods without the current one come to, and the current one, if it is one of them.

        The sum is kept under its name until another period begins: page and `top` ask for it every 5 s, on the event
        loop, and only the current period has changed by then.
        """
        number, current = int(now // self.seconds), self._current
        stamp = (number, self._changes)
        if name not in self._kept or self._kept[name][0] != stamp:
            self._kept[name] = stamp, sum_up([period for period in self.last(now) if period is not current])
        found: T = self._kept[name][1]
        is_shown = current is not None and number - self.length < current.number <= number
        return found, [current] if current is not None and is_shown else []

    def restore(self, periods: Iterable[P], now: float) -> None:
        """Begin with what was kept, wherever the clock stands."""
        every = {period.number: period for period in (*periods, *self.periods)}
        self.periods = sorted(every.values(), key=_number)
        self._changes += 1
        self._trim(int(now // self.seconds))

    def _trim(self, number: int) -> None:
        present = bisect_right(self.periods, number, key=_number)
        self.periods = self.periods[max(0, present - self.length) : present + self.length]


class History:
    """The last requests and the rings; lives on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        # Numbered, to be put in order again.
        self._proven: deque[tuple[int, RequestRecord]] = deque(maxlen=RECENT_REQUESTS)
        self._unproven: deque[tuple[int, RequestRecord]] = deque(maxlen=RECENT_UNPROVEN)
        self.count = 0
        self.rings = {name: Ring(*span, Period) for name, span in SPANS.items()}
        self.accounts = {name: Ring(*span, AccountPeriod) for name, span in ACCOUNT_SPANS.items()}

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Take an ended request in; paths that there are not are no requests."""
        if record.wire == "none":
            return
        self.count += 1
        (self._proven if record.caller else self._unproven).append((self.count, record))
        now = self.clock()
        for ring in self.rings.values():
            ring.at(now).take(record)
        for accounts in self.accounts.values():
            accounts.at(now).take(record)

    def recent(self) -> list[RequestRecord]:
        """Return the last requests, the newest first."""
        numbered = sorted((*self._proven, *self._unproven), key=lambda pair: -pair[0])
        return [record for _, record in numbered[:RECENT_REQUESTS]]

    def periods(self, span: str) -> list[Period]:
        """Return the periods of an hour, a day or a week, empty ones too, the current one last."""
        return self.rings[span].last(self.clock())

    def total(self, span: str) -> Period:
        """Return all requests of an hour, a day or a week as one period."""
        before, newest = self.rings[span].split("total", self.clock(), _total)
        return _total([before, *newest])

    def callers(self, span: str) -> dict[int, Account]:
        """Return what each caller asked in an hour, a day or a week, by uid."""
        before, newest = self.accounts[span].split("callers", self.clock(), _callers)
        return _summed([before, *(period.callers for period in newest)])

    def hotkeys(self, span: str) -> dict[str, Account]:
        """Return what each hotkey of ours was asked."""
        before, newest = self.accounts[span].split("hotkeys", self.clock(), _hotkeys)
        return _summed([before, *(period.hotkeys for period in newest)])


K = TypeVar("K")


def _summed(parts: Sequence[dict[K, Account]]) -> dict[K, Account]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: Account.total(part[name] for part in parts if name in part) for name in names}


def _callers(periods: Sequence[AccountPeriod]) -> dict[int, Account]:
    return _summed([period.callers for period in periods])


def _hotkeys(periods: Sequence[AccountPeriod]) -> dict[str, Account]:
    return _summed([period.hotkeys for period in periods])


def _total(periods: Sequence[Period]) -> Period:
    outcomes: Counter[str] = Counter()
    for period in periods:
        outcomes.update(period.outcomes)
    names = dict.fromkeys(name for period in periods for name in period.stages)
    stages = {name: StageCount.total(one.stages[name] for one in periods if name in one.stages) for name in names}
    return Period(0, outcomes, Durations.total(period.durations for period in periods), stages)


def answered_share(outcomes: Mapping[str, int]) -> float | None:
    """Return, of the requests that a validator may send, the share answered in time; None: there were none."""
    return share_in_time(outcomes.get("ok", 0), sum(outcomes.get(outcome, 0) for outcome in MISSED_OUTCOMES))


def share_in_time(answered: int, missed: int) -> float | None:
    """Return the share of those answered in time; None: there were none of either."""
    return answered / (answered + missed) if answered + missed else None


def quantile(periods: Iterable[Period], share: float) -> float | None:
    """Return the seconds within which this share of the answers came, or None if there were none."""
    return Durations.total(period.durations for period in periods).quantile(share)


def _bin(seconds: float) -> int:
    """Return the first bin whose upper edge is not below the duration."""
    if seconds <= FIRST_BIN:
        return 0
    return min(BINS, math.ceil(math.log(seconds / FIRST_BIN, GROWTH)))


class Drift:
    """A window over the predictions of one model; another model begins another window."""

    def __init__(
        self,
        expected: Callable[[], Sequence[float] | None],
        window: int = DRIFT_WINDOW,
        least: int = MIN_DRIFT_PREDICTIONS,
    ) -> None:
        """Read what is expected from the model that serves at the moment: shares by tenths, or None."""
        self._read = expected
        self._least = least
        self._expected: Sequence[float] | None = None
        self._last: deque[int] = deque(maxlen=window)

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Add the prediction of a request, if the model made it for this one."""
        if record.prediction is not None and not record.is_shared:
            self._take(record.prediction)

    def _take(self, prediction: float) -> None:
        expected = self._read()
        if expected is not self._expected:
            self._expected = expected
            self._last.clear()
        self._last.append(tenth_of(prediction))

    @property
    def index(self) -> float:
        """The population stability index; NaN: nothing to compare with, or too few predictions of this model."""
        expected = self._read()
        if expected is None or expected is not self._expected or len(self._last) < self._least:
            return math.nan
        return stability_index([self._last.count(tenth) for tenth in range(TENTHS)], expected)
