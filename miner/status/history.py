"""What the page and `top` show of the past: the last twenty requests, and the last hour by the minute.

Bounded whatever comes: an hour is 60 minutes of counts, and no hotkey is kept.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

RECENT = 20
OF_STRANGERS = 5  # of them at most: who proves nothing pushes no validator off the page
MINUTES = 60
# Durations are counted in bins that grow by a tenth: 0.1 ms to 40 s, so a quantile is right within a tenth.
FIRST_BIN, GROWTH, BINS = 1e-4, 1.1, 136


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that ended."""

    at: float  # seconds since 1970
    uid: int | None  # of the caller, if proven and registered
    wire: str
    outcome: str  # of metrics.OUTCOMES
    reason: str
    seconds: float
    prediction: float | None


@dataclass(slots=True)
class Minute:
    """The requests that ended in one minute, and how long the answered ones took."""

    number: int  # minutes since 1970
    outcomes: Counter[str] = field(default_factory=Counter)
    bins: Counter[int] = field(default_factory=Counter)  # at most BINS keys
    longest: float = 0.0

    def take(self, entry: Entry) -> None:
        """Count a request that ended."""
        self.outcomes[entry.outcome] += 1
        if entry.prediction is not None:
            self.bins[_bin(entry.seconds)] += 1
            self.longest = max(self.longest, entry.seconds)


class History:
    """The ring and the hour; lives on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        # Numbered, to be put in order again.
        self._proven: deque[tuple[int, Entry]] = deque(maxlen=RECENT)
        self._strangers: deque[tuple[int, Entry]] = deque(maxlen=OF_STRANGERS)
        self._count = 0
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def add(self, entry: Entry, *, proven: bool = True) -> None:
        """Take an ended request in; `proven`: of a caller who has proven who it is."""
        self._count += 1
        (self._proven if proven else self._strangers).append((self._count, entry))
        number = int(self.clock() // 60)
        if not self._minutes or self._minutes[-1].number < number:
            self._minutes.append(Minute(number))
        self._minutes[-1].take(entry)  # a clock set back adds to the newest minute

    def recent(self) -> list[Entry]:
        """Return the last requests, the newest first."""
        numbered = sorted((*self._proven, *self._strangers), key=lambda pair: -pair[0])
        return [entry for _, entry in numbered[:RECENT]]

    def hour(self) -> list[Minute]:
        """Return the last 60 minutes, empty ones too, the current one last."""
        now = int(self.clock() // 60)
        found = {minute.number: minute for minute in self._minutes}
        return [found.get(number) or Minute(number) for number in range(now - MINUTES + 1, now + 1)]


def quantile(minutes: Iterable[Minute], share: float) -> float | None:
    """Return the seconds within which this share of the answers came, or None if there were none."""
    bins: Counter[int] = Counter()
    longest = 0.0
    for minute in minutes:
        bins.update(minute.bins)
        longest = max(longest, minute.longest)
    rank, seen = share * bins.total(), 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= rank:
            return min(longest, FIRST_BIN * GROWTH**number)
    return None


def _bin(seconds: float) -> int:
    """Return the first bin whose upper edge is not below the duration."""
    if seconds <= FIRST_BIN:
        return 0
    return min(BINS, math.ceil(math.log(seconds / FIRST_BIN, GROWTH)))
