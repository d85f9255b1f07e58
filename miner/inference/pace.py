"""The pace of a detector's stages: the seconds that each takes, by moving averages of what was measured.

A detector without stages has one. Of one with stages the first holds the decoding and is an answer; each further one
makes it better, and is begun only where time is left (`Queue.grants`).
"""

from collections import deque
from collections.abc import Sequence
from math import exp

PACE_WEIGHT = 0.1  # of the newest measurement in the moving average of seconds a picture takes
SLOW_PICTURES = 3  # pictures in a row that all took longer than the average are no accident
DOUBT_SPREADS = 4  # mean absolute deviations: of normal errors, over three standard deviations
DEMAND_SECONDS = 30.0  # after which a request counts for a third of a new one: a few of a validator's rounds
DOUBT_SHARE = 0.25  # of the pace, at least: the known picture is one, and alone on the machine


class StagePace:
    """Seconds that a stage takes: their moving average, and their mean absolute deviation from it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spread = 0.0
        self._last: deque[float] = deque(maxlen=SLOW_PICTURES)

    @property
    def longest(self) -> float:
        """Seconds that it will hardly exceed."""
        return self.seconds + max(DOUBT_SPREADS * self.spread, DOUBT_SHARE * self.seconds)

    def take(self, seconds: float) -> None:
        """Take a measurement in.

        The average alone would admit a dozen pictures in vain after a model has become too slow.
        """
        self._take(seconds, seconds)

    def take_doubted(self, seconds: float) -> None:
        """Take the measurement of a stage that is only run while it is quick enough.

        One slow picture, counted in full, would shut it out, and nothing could show that it was an accident.
        """
        self._take(seconds, min(seconds, self.longest))

    def _take(self, seconds: float, counted: float) -> None:
        self._last.append(seconds)
        self.spread += PACE_WEIGHT * (abs(counted - self.seconds) - self.spread)
        self.seconds += PACE_WEIGHT * (counted - self.seconds)
        if len(self._last) == SLOW_PICTURES:
            self.seconds = max(self.seconds, min(self._last))


class Demand:
    """Requests a second of late, with exponential weights.

    Of those who wait, the time that others will take is none to spare: in a model of time with bursts, half loaded or
    more, a further stage begun all the same costs one answer in twenty.
    """

    def __init__(self) -> None:
        self._count = 0.0
        self._at = 0.0

    def take(self, now: float) -> None:
        """Count a request."""
        self._count, self._at = 1 + self._left(now), now

    def rate(self, now: float) -> float:
        """Return the requests a second."""
        return self._left(now) / DEMAND_SECONDS

    def _left(self, now: float) -> float:
        return self._count * exp((self._at - now) / DEMAND_SECONDS)


def stages_in_time(stages: Sequence[StagePace], allowed: float) -> int:
    """Return how many stages a picture would get that is alone; the first one counts in any case."""
    spent = 0.0
    for number, stage in enumerate(stages):
        if number and spent + stage.longest > allowed:
            return number
        spent += stage.seconds
    return len(stages)
