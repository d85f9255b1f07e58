"""The queue's decisions, without a clock or a loop: who gets a place, who a slot, and who is refused.

Requests wait in the order of their rank, then of their deadline. The rank is first the turn and then the stake: a
caller's second request in a row waits behind the first ones of all others, or one validator that asks without pause
would starve everybody below it. Validators ask one thing at a time, so between them the stake alone decides.
"""

import heapq
from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from miner.errors import RefusalReason, Refused

PACE_WEIGHT = 0.1  # of the newest measurement in the moving average of seconds a picture takes
SLOWER = 3  # pictures in a row that all took longer than the average are no accident

MESSAGES: dict[RefusalReason, str] = {
    "queue_full": "the queue is full",
    "share": "your requests hold their share of the queue",
    "deadline": "no answer in time is possible",
    "evicted": "the place went to a caller with a higher stake",
    "late": "the deadline can no longer be met",
    "not_ready": "the miner is not ready",
    "draining": "the miner is shutting down",
    "memory": "memory is short at the moment",
    "no_endpoint": "no machine that could score the picture is within reach",
}


def refused(reason: RefusalReason) -> Refused:
    """Make the refusal for a reason."""
    return Refused(reason, MESSAGES[reason])


@dataclass(eq=False, slots=True)
class Place:
    """A request in the queue, and later in a slot."""

    caller: str
    priority: float  # its stake
    deadline: float
    turn: int  # how many requests of its caller were waiting or running when it came
    number: int  # of arrival
    ready: bool = False  # whether its body is there
    started: float = 0.0  # when it got its slot

    @property
    def rank(self) -> tuple[int, float]:
        """The smaller goes first; only a smaller one takes a place or time away."""
        return self.turn, -self.priority

    @property
    def order(self) -> tuple[int, float, float, int]:
        """The order of the queue; no two are equal."""
        return self.turn, -self.priority, self.deadline, self.number


class Queue:
    """`slots` run at once, at most `depth` wait, at most `share` of them of one caller; every time is an argument."""

    def __init__(self, slots: int, depth: int, share: int, pace: float) -> None:
        self.slots = slots
        self.depth = depth
        self.share = share
        self.pace = pace  # seconds a picture takes in its slot, measured
        self._last: deque[float] = deque(maxlen=SLOWER)
        self.waiting: list[Place] = []  # in order
        self.running: list[Place] = []
        self._number = 0

    def admit(self, now: float, caller: str, priority: float, deadline: float) -> tuple[Place, list[Place]]:
        """Return a place, and those that lose theirs to it.

        Raises:
            Refused: as `check`.
        """
        place, displaced = self._placed(now, caller, priority, deadline)
        for other in displaced:
            self.waiting.remove(other)
        insort(self.waiting, place, key=lambda one: one.order)
        self._number += 1
        return place, displaced

    def check(self, now: float, caller: str, priority: float, deadline: float) -> None:
        """Say whether `admit` would give a place.

        Raises:
            Refused: the caller has its share, the queue is full of better ranks, or it can't be answered in time
                without making another late whose rank is no worse.
        """
        self._placed(now, caller, priority, deadline)

    def step(self, now: float) -> tuple[list[Place], list[Place]]:
        """Fill the slots; return those that start, and those that can no longer be in time and leave the queue."""
        late = [place for place in self.waiting if place.ready and now + self.pace > place.deadline]
        self.waiting = [place for place in self.waiting if place not in late]
        # The first that is ready need not be the first in the queue: a body may still be on its way.
        started = [place for place in self.waiting if place.ready][: self.slots - len(self.running)]
        for place in started:
            self.waiting.remove(place)
            self.running.append(place)
            place.started = now
        return started, late

    def wakes(self) -> float | None:
        """Return when somebody who waits becomes late, or None: then `step` is due even if nothing else happens."""
        deadlines = [place.deadline for place in self.waiting if place.ready]
        return min(deadlines) - self.pace if deadlines else None

    def leave(self, place: Place) -> None:
        """Give a place up; without effect for one that is already gone."""
        if place in self.waiting:
            self.waiting.remove(place)

    def release(self, place: Place) -> None:
        """Give a slot back."""
        self.running.remove(place)

    def measured(self, seconds: float) -> None:
        """Take the duration of a finished picture into the pace.

        The average alone would admit a dozen pictures in vain after a model has become too slow.
        """
        self._last.append(seconds)
        self.pace += PACE_WEIGHT * (seconds - self.pace)
        if len(self._last) == SLOWER:
            self.pace = max(self.pace, min(self._last))

    def begin_anew(self, pace: float) -> None:
        """Take this pace, whatever was measured before."""
        self._last.clear()
        self.pace = pace

    def estimate(self, now: float) -> float:
        """Return the seconds until a request behind all that wait would be answered."""
        slots = self._slots(now)
        for _ in self.waiting:
            heapq.heapreplace(slots, slots[0] + self.pace)
        return slots[0] + self.pace - now

    def _placed(self, now: float, caller: str, priority: float, deadline: float) -> tuple[Place, list[Place]]:
        turn = sum(other.caller == caller for other in (*self.waiting, *self.running))
        place = Place(caller, priority, deadline, turn, self._number)
        displaced = []
        if len(self.waiting) >= self.depth:
            if self.waiting[-1].rank <= place.rank:
                raise refused("queue_full")
            displaced.append(self.waiting[-1])
        if sum(other.caller == caller for other in self.waiting) >= self.share:
            raise refused("share")
        others = [other for other in self.waiting if other not in displaced]
        late_anyhow = self._late(now, others)
        late = self._late(now, sorted([*others, place], key=lambda one: one.order)) - late_anyhow
        if place in late or any(other.rank <= place.rank for other in late):
            raise refused("deadline")
        displaced += late
        return place, displaced

    def _late(self, now: float, queue: Iterable[Place]) -> set[Place]:
        """Return those of a queue that will not be in time at this pace; they will be dropped, so they take no time."""
        slots, late = self._slots(now), set()
        for place in queue:
            done = slots[0] + self.pace
            if done > place.deadline:
                late.add(place)
            else:
                heapq.heapreplace(slots, done)
        return late

    def _slots(self, now: float) -> list[float]:
        """Return when each slot is expected to be free, as a heap.

        A picture that has taken longer than usual is expected to take as long again as it is late already: so behind
        one that hangs nobody is admitted who would wait in vain.
        """
        busy = [now + abs(self.pace - (now - place.started)) for place in self.running]
        slots = [now] * (self.slots - len(busy)) + busy
        heapq.heapify(slots)
        return slots
