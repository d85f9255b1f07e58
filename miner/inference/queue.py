"""The queue's decisions, without a clock or a loop: who gets a place, who a slot, and who is refused.

Requests wait in the order of their rank, then of their deadline. The rank is first the turn and then the stake: a
caller's second request in a row waits behind the first ones of all others, or one validator that asks without pause
would starve everybody below it. Validators ask one thing at a time, so between them the stake alone decides, and among
equals who was refused last: else the same ones would be refused in every round.

How many may wait follows from the pace and their patience. Memory is asked for elsewhere (`miner.inference.memory`),
by the same rank.
"""

import heapq
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, sqrt
from operator import attrgetter
from typing import NamedTuple

from miner.errors import Refused, refused

PACE_WEIGHT = 0.1  # of the newest measurement in the moving average of seconds a picture takes
SLOW_PICTURES = 3  # pictures in a row that all took longer than the average are no accident
REMEMBERED_CALLERS = 4096  # callers whose last refusal is known
ROUND_SECONDS = 9.0  # seconds after which a validator asks for another picture, at the earliest
SWAP_SECONDS = 1.0  # seconds in which equals who ask at the same time may still change places
LOOK_SECONDS = 0.1  # seconds between two looks at those who wait behind a picture that takes longer than usual


class Rank(NamedTuple):
    """Who goes first: the smaller one. Only a smaller one takes a place, time or memory away (`Place.yields_to`)."""

    turn: int  # how many requests of its caller were waiting or running when it came
    stake: float  # negative
    refusal: int  # negative: when its caller was refused last, by the number of the request; 0: never


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request at a place."""

    caller: str
    rank: Rank
    deadline: float


@dataclass(eq=False, slots=True)
class Place:
    """A picture in the queue, and later in a slot, with the requests that want it scored: one, or twins."""

    members: list[QueuedRequest]
    number: int  # of arrival
    came: float = 0.0
    ready: bool = False  # whether its body is there
    started: float = 0.0  # when it got its slot
    deadline: float = field(init=False)  # of the most urgent member
    last_deadline: float = field(init=False)  # of the most patient one

    def __post_init__(self) -> None:
        self.settle()

    def settle(self) -> None:
        """Take the deadlines from the members."""
        deadlines = [member.deadline for member in self.members]
        self.deadline, self.last_deadline = min(deadlines), max(deadlines)

    @property
    def caller(self) -> str:
        """Whose request holds the place; its twins take none."""
        return self.members[0].caller

    @property
    def rank(self) -> Rank:
        """The best of its members'."""
        return min(member.rank for member in self.members)

    def yields_to(self, rank: Rank, now: float) -> bool:
        """Say whether it gives its place, or its time, to a better rank; to an equal's only while it is fresh."""
        is_equal = self.rank[:2] == rank[:2]
        return self.rank > rank and (not is_equal or now - self.came <= SWAP_SECONDS)

    @property
    def order(self) -> tuple[Rank, float, int]:
        """The order of the queue; no two are equal."""
        return self.rank, self.deadline, self.number


class Queue:
    """Pictures that wait for one of `slots`, as many as can be in time; every time is an argument.

    Args:
        slots: how many run at once.
        pace: seconds a picture takes in its slot; measured from then on.
        depth: the most that may wait, whatever the pace.
        share: the part of the places that one caller may hold while others wait.
        leeway: seconds behind its deadline for which who was admitted is still kept. The pace is an average: without
            it, every other one at the end of a full queue would be refused at last for some milliseconds.
    """

    def __init__(
        self, slots: int, pace: float, depth: int | None = None, share: float = 1.0, leeway: float = 0.0
    ) -> None:
        self.slots = slots
        self.depth: float = inf if depth is None else depth
        self.share = share
        self.leeway = leeway
        self.pace = pace
        self.spread = 0.0  # mean absolute deviation from the pace, s
        self._last: deque[float] = deque(maxlen=SLOW_PICTURES)
        self.waiting: list[Place] = []  # in order
        self.running: list[Place] = []
        self._number = 0
        self._refusals: OrderedDict[str, tuple[int, float]] = OrderedDict()  # by caller: number, and its deadline

    def admit(self, now: float, caller: str, stake: float, deadline: float) -> tuple[Place, list[Place]]:
        """Return a place, and those that lose theirs to it.

        Raises:
            Refused: as `check`; that is remembered.
        """
        try:
            place, displaced = self._placed(now, caller, stake, deadline)
        except Refused as refusal:
            if refusal.reason != "share":  # which is of its own making
                self.remember_refusal(caller, deadline, now)
            raise
        for other in displaced:
            self.waiting.remove(other)
            self._remember_refusals(other.members, now)
        self._insert(place)
        self._number += 1
        return place, displaced

    def check(self, now: float, caller: str, stake: float, deadline: float) -> Rank:
        """Say whether `admit` would give a place; return the rank it would have.

        Raises:
            Refused: the caller has its share, the queue is full of better ranks, or it can't be answered in time
                without making another late whose rank is no worse.
        """
        place, _ = self._placed(now, caller, stake, deadline)
        return place.rank

    def join(self, twin: Place, place: Place) -> None:
        """Have the requests of one place share another's picture; theirs is free."""
        self.waiting.remove(twin)
        place.members += twin.members
        if place in self.waiting:
            self._resettle(place)

    def step(self, now: float) -> tuple[list[Place], list[QueuedRequest]]:
        """Fill the slots; return those that start, and whoever can't be in time any more, as soon as that is clear.

        Of twins those leave who are too late for it, and the others keep the place. A place without a body takes no
        time from others here: it may never come.
        """
        late: list[QueuedRequest] = []
        while drops := self._late(now, [place for place in self.waiting if place.ready], self.leeway):
            for place in drops:
                late += self._drop_the_most_urgent(place, now)
        # The first that is ready need not be the first in the queue: a body may still be on its way.
        started = [place for place in self.waiting if place.ready][: self.slots - len(self.running)]
        for place in started:
            self.waiting.remove(place)
            self.running.append(place)
            place.started = now
        return started, late

    def wakes(self, now: float) -> float | None:
        """Return when `step` is due though nothing else happens, or None: somebody may become late by then."""
        deadlines = [place.deadline for place in self.waiting if place.ready]
        if not deadlines:
            return None
        due = min(deadlines) + self.leeway - self.pace
        if any(now - place.started > self.pace for place in self.running):
            due = min(due, now + max(LOOK_SECONDS, self.pace))
        return due

    def leave(self, place: Place, member: QueuedRequest | None = None) -> None:
        """Have a member, or all of them, give their place up; without effect for one that is already gone."""
        if member is not None and member in place.members and len(place.members) > 1:
            place.members.remove(member)
            if place in self.waiting:
                self._resettle(place)
        elif place in self.waiting and (member is None or member in place.members):
            self.waiting.remove(place)

    def release(self, place: Place) -> None:
        """Give a slot back."""
        self.running.remove(place)

    def put_back(self, place: Place, members: Sequence[QueuedRequest]) -> Place:
        """Give members of a place that ran in vain one of its own again: they were admitted, and wait for a slot."""
        again = Place(list(members), place.number, place.came, ready=True)
        self._insert(again)
        return again

    def remember_refusal(self, caller: str, deadline: float, now: float) -> None:
        """Note that a caller was refused: among equals it goes first in the next round.

        To ask again at once, or for what nobody could have answered, would else take a place from an equal.
        """
        if now + self.pace > deadline:
            return
        self._number += 1
        self._refusals[caller] = self._number, max(deadline, now + ROUND_SECONDS)
        self._refusals.move_to_end(caller)
        while len(self._refusals) > REMEMBERED_CALLERS:
            self._refusals.popitem(last=False)

    def measured(self, seconds: float) -> None:
        """Take the duration of a finished picture into the pace.

        The average alone would admit a dozen pictures in vain after a model has become too slow.
        """
        self._last.append(seconds)
        self.spread += PACE_WEIGHT * (abs(seconds - self.pace) - self.spread)
        self.pace += PACE_WEIGHT * (seconds - self.pace)
        if len(self._last) == SLOW_PICTURES:
            self.pace = max(self.pace, min(self._last))

    def begin_anew(self, pace: float) -> None:
        """Take this pace, whatever was measured before."""
        self._last.clear()
        self.pace, self.spread = pace, 0.0

    def estimate(self, now: float) -> float:
        """Return the seconds until a request behind all that wait would be answered."""
        slots = self._slots(now)
        for _ in self.waiting:
            heapq.heapreplace(slots, slots[0] + self.pace)
        return slots[0] + self.pace - now

    def places(self, seconds: float) -> int:
        """Return how many can wait and be answered within so many seconds, at this pace; at least one."""
        return max(1, int(min(self.depth, self.slots * seconds / max(self.pace, 1e-6))))

    def _placed(self, now: float, caller: str, stake: float, deadline: float) -> tuple[Place, list[Place]]:
        own = sum(other.caller == caller for other in self.waiting)
        turn = own + sum(other.caller == caller for other in self.running)
        refusal, counts_from = self._refusals.get(caller, (0, 0.0))
        rank = Rank(turn, -stake, -refusal if now >= counts_from else 0)
        place = Place([QueuedRequest(caller, rank, deadline)], self._number, now)
        displaced = []
        if len(self.waiting) >= self.depth:
            if not self.waiting[-1].yields_to(rank, now):
                raise refused("queue_full")
            displaced.append(self.waiting[-1])
        # While nobody else waits, what one caller does not take nobody has; and whoever comes then goes before it.
        if own < len(self.waiting) and own >= max(1, int(self.share * self.places(deadline - now))):
            raise refused("share")
        others = [other for other in self.waiting if other not in displaced]
        # Whoever is admitted shall be kept: the more there are before him, the further their times may be off.
        doubt = -self.spread * sqrt(len(others) / self.slots)
        if self._all_fit(now, [*others, place], doubt):
            return place, displaced
        late: set[Place] = set()
        everybody = sorted([*others, place], key=lambda one: one.order)
        # Without the leeway, and for those who live on it by now.
        for leeway in (doubt, self.leeway):
            late |= self._late(now, everybody, leeway) - self._late(now, others, leeway)
        if place in late or not all(other.yields_to(rank, now) for other in late):
            raise refused("deadline")
        # Of twins, those who are late for it hear of it at the next step, and the others keep the place.
        if any(len(other.members) > 1 for other in late):
            late &= self._late(now, everybody, 0.0, attrgetter("last_deadline"))
        displaced += sorted(late, key=lambda one: one.order)
        return place, displaced

    def _insert(self, place: Place) -> None:
        insort(self.waiting, place, key=lambda one: one.order)

    def _resettle(self, place: Place) -> None:
        """Find a place's position again after its members have changed."""
        self.waiting.remove(place)
        place.settle()
        self._insert(place)

    def _drop_the_most_urgent(self, place: Place, now: float) -> list[QueuedRequest]:
        dropped = [member for member in place.members if member.deadline == place.deadline]
        if len(dropped) == len(place.members):
            self.waiting.remove(place)
        else:
            place.members = [member for member in place.members if member not in dropped]
            self._resettle(place)
        self._remember_refusals(dropped, now)
        return dropped

    def _remember_refusals(self, members: Iterable[QueuedRequest], now: float) -> None:
        for member in members:
            self.remember_refusal(member.caller, member.deadline, now)

    def _all_fit(self, now: float, queue: Sequence[Place], leeway: float) -> bool:
        """Say in one look that nobody of a queue will be late; False: `_late` has to look at each of them."""
        last = max(self._slots(now)) + ceil(len(queue) / self.slots) * self.pace
        return last <= min(place.deadline for place in queue) + leeway

    def _late(
        self, now: float, queue: Sequence[Place], leeway: float,
        deadline_of: Callable[[Place], float] = attrgetter("deadline"),
    ) -> set[Place]:  # fmt: skip
        """Return those of a queue that will not be in time at this pace; they will be dropped, so they take no time."""
        if not queue or self._all_fit(now, queue, leeway):
            return set()
        slots, late = self._slots(now), set()
        for place in queue:
            done = slots[0] + self.pace
            if done > deadline_of(place) + leeway:
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
