"""The history of requests: the last twenty, the last hour by the minute, and the distribution of predictions.

Bounded whatever comes: an hour is 60 minutes of counts, and no hotkey is kept.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from detectors.models.calibration import TENTHS, stability_index, tenth_of
from miner.recorder.records import RequestRecord

RECENT_REQUESTS = 20
RECENT_UNPROVEN = 5  # of them at most: who proves nothing pushes no validator off the page
MINUTES = 60
# Durations are counted in bins that grow by 2 %: 0.1 ms to 40 s, so a quantile is right within that; coarser ones gave
# p99 and the maximum the same figure.
FIRST_BIN, GROWTH, BINS = 1e-4, 1.02, 652

DRIFT_WINDOW = 500  # predictions
MIN_DRIFT_PREDICTIONS = 200  # before anything is said: fewer are spread by chance alone


@dataclass(slots=True)
class Minute:
    """The requests that ended in one minute, and how long the answered ones took."""

    number: int  # minutes since 1970
    outcomes: Counter[str] = field(default_factory=Counter)
    bins: Counter[int] = field(default_factory=Counter)  # at most BINS keys
    longest: float = 0.0

    def take(self, record: RequestRecord) -> None:
        """Count a request that ended."""
        self.outcomes[record.outcome] += 1
        if record.prediction is not None:
            self.bins[_bin(record.seconds)] += 1
            self.longest = max(self.longest, record.seconds)


class History:
    """The ring and the hour; lives on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        # Numbered, to be put in order again.
        self._proven: deque[tuple[int, RequestRecord]] = deque(maxlen=RECENT_REQUESTS)
        self._unproven: deque[tuple[int, RequestRecord]] = deque(maxlen=RECENT_UNPROVEN)
        self._count = 0
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Take an ended request in; paths that there are not are no requests."""
        if record.wire == "none":
            return
        self._count += 1
        (self._proven if record.caller else self._unproven).append((self._count, record))
        number = int(self.clock() // 60)
        if not self._minutes or self._minutes[-1].number < number:
            self._minutes.append(Minute(number))
        self._minutes[-1].take(record)  # a clock set back adds to the newest minute

    def recent(self) -> list[RequestRecord]:
        """Return the last requests, the newest first."""
        numbered = sorted((*self._proven, *self._unproven), key=lambda pair: -pair[0])
        return [record for _, record in numbered[:RECENT_REQUESTS]]

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
