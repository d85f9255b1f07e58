"""The queue's decisions, without a clock or a loop: who gets a place, who a slot, and who is refused.

Requests wait in the order of their rank, then of their deadline. The rank is first the turn and then the stake: a
caller's second request in a row waits behind the first ones of all others, or one validator that asks without pause
would starve everybody below it. Validators ask one thing at a time, so between them the stake alone decides, and among
equals who was refused last: else the same ones would be refused in every round.

How many may wait follows from the pace and their patience. Memory is asked for elsewhere (`miner.inference.memory`),
by the same rank.

Of a detector with stages the pace is the first one's: that is what is promised to whoever is let in. A further stage is
granted to a picture in its slot while that costs nobody an answer (`grants`).
"""

import heapq
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, sqrt
from operator import attrgetter
from typing import NamedTuple

from miner.errors import Refused, refused
from miner.inference.pace import Demand, StagePace

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
    gone: bool = False  # whether nobody waits for its answer any more


@dataclass(eq=False, slots=True)
class Place:
    """A picture in the queue, and later in a slot, with the requests that want it scored: one, or twins."""

    members: list[QueuedRequest]
    number: int  # of arrival
    came: float = 0.0
    ready: bool = False  # whether its body is there
    started: float = 0.0  # when it got its slot
    stage: int = 0  # that runs
    since: float = 0.0  # when that began
    pace: StagePace | None = None  # of that; None: the first one's
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
        pace: seconds a picture takes in its slot, of several stages in the first; measured from then on.
        depth: the most that may wait, whatever the pace.
        share: the part of the places that one caller may hold while others wait.
        leeway: seconds behind its deadline for which who was admitted is still kept. The pace is an average: without
            it, every other one at the end of a full queue would be refused at last for some milliseconds.
        further: seconds of each further stage alone, cheap to dear.
    """

    def __init__(
        self, slots: int, pace: float, depth: int | None = None, share: float = 1.0, leeway: float = 0.0,
        further: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self.slots = slots
        self.depth: float = inf if depth is None else depth
        self.share = share
        self.leeway = leeway
        self.stages = [StagePace(seconds) for seconds in (pace, *further)]
        self.demand = Demand()
        self.waiting: list[Place] = []  # in order
        self.running: list[Place] = []
        self._number = 0
        self._refusals: OrderedDict[str, tuple[int, float]] = OrderedDict()  # by caller: number, and its deadline

    @property
    def pace(self) -> float:
        """Seconds that a picture takes at least."""
        return self.stages[0].seconds

    @property
    def paces(self) -> list[float]:
        """Seconds of each stage alone; the first holds the decoding."""
        return [stage.seconds for stage in self.stages]

    def admit(self, now: float, caller: str, stake: float, deadline: float) -> tuple[Place, list[Place]]:
        """Return a place, and those that lose theirs to it.

        Raises:
            Refused: as `check`; that is remembered.
        """
        self.demand.take(now)
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
        while (ready := [place for place in self.waiting if place.ready]) and (
            drops := self._late(self._slots(now), ready, self.leeway)
        ):
            for place in drops:
                late += self._drop_the_most_urgent(place, now)
        # The first that is ready need not be the first in the queue: a body may still be on its way.
        started = ready[: self.slots - len(self.running)]
        for place in started:
            self.waiting.remove(place)
            self.running.append(place)
            place.started = place.since = now
        return started, late

    def grants(self, now: float, place: Place, stage: int) -> bool:
        """Say whether a picture in its slot may begin a further stage; from then on its slot counts as taken for that.

        It has to be done before the first of those who still wait for it runs out of time, however slow a picture it
        is. Whoever waits for a slot, body or not, must still be in time with the first stage; and of better rank, with
        all stages, if there was time for that. What has begun can't be interrupted for whoever comes later.
        """
        if not 0 < stage < len(self.stages) or place not in self.running:
            return False
        pace = self.stages[stage]
        done = now + pace.longest
        if done > _patience(place) or (self.waiting and self._is_at_a_cost(now, place, done)):
            return False
        place.stage, place.since, place.pace = stage, now, pace
        return True

    def is_in_time(self, now: float, place: Place, deadline: float) -> bool:
        """Say whether a place may be shared until this deadline: not one whose further stage takes longer."""
        return place.pace is None or self._end(now, place) <= deadline

    def wakes(self, now: float) -> float | None:
        """Return when `step` is due though nothing else happens, or None: somebody may become late by then."""
        deadlines = [place.deadline for place in self.waiting if place.ready]
        if not deadlines:
            return None
        due = min(deadlines) + self.leeway - self.pace
        if any(now - place.since > (place.pace or self.stages[0]).seconds for place in self.running):
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

    def measured(self, *stages: float) -> None:
        """Take the seconds of a finished picture into the paces, of each stage that it ran."""
        first, *further = stages
        self.stages[0].take(first)
        for pace, seconds in zip(self.stages[1:], further, strict=False):
            pace.take_doubted(seconds)

    def begin_anew(self, *paces: float) -> None:
        """Take these paces, whatever was measured before."""
        self.stages = [StagePace(seconds) for seconds in paces]

    def estimate(self, now: float) -> float:
        """Return the seconds until a request behind all that wait would be answered."""
        slots, pace = self._slots(now), self.pace
        for _ in self.waiting:
            heapq.heapreplace(slots, slots[0] + pace)
        return slots[0] + pace - now

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
        slots, doubt = self._slots(now), self._doubt(len(others))
        if self._all_fit(slots, [*others, place], doubt):
            return place, displaced
        late = set[Place]()
        everybody = sorted([*others, place], key=lambda one: one.order)
        # Without the leeway, and for those who live on it by now.
        for leeway in (doubt, self.leeway):
            late |= self._late(slots, everybody, leeway) - self._late(slots, others, leeway)
        if place in late or not all(other.yields_to(rank, now) for other in late):
            raise refused("deadline")
        # Of twins those who are late for it hear of it at the next step, and the others keep the place.
        if any(len(other.members) > 1 for other in late):
            late &= self._late(slots, everybody, 0.0, attrgetter("last_deadline"))
        displaced += sorted(late, key=lambda one: one.order)
        return place, displaced

    def _doubt(self, count: int) -> float:
        """Return the leeway, below 0, for whoever is behind so many: he shall be kept, and their times may be off."""
        return -self.stages[0].spread * sqrt(count / self.slots)

    def _is_at_a_cost(self, now: float, place: Place, done: float) -> bool:
        """Say whether somebody who waits would lose the answer, or a better rank its further stages."""
        rank = min(member.rank for member in place.members if not member.gone)
        others = [other for other in self.running if other is not place]
        idle = [now] * (self.slots - len(others))
        without = sorted([*idle, *(self._end(now, other) for other in others)])
        behind = sorted([*idle[1:], done, *(self._last_end(now, other, rank) for other in others)])
        pace, whole = self.pace, sum(self.paces)
        # Of the time until a deadline, those who will have come by then take a part, too.
        free, doubt = max(0.0, 1 - self.demand.rate(now) * pace / self.slots), self._doubt(len(self.waiting))
        for other in self.waiting:
            if now + pace > other.deadline + self.leeway:
                continue  # it has no hope in any case
            if behind[0] + pace > now + (other.deadline - now) * free + doubt:
                return True
            if other.rank[:2] < rank[:2] and without[0] + whole <= other.deadline < behind[0] + whole:
                return True
            for slots in (without, behind):
                heapq.heapreplace(slots, slots[0] + pace)
        return False

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

    def _all_fit(self, slots: Sequence[float], queue: Sequence[Place], leeway: float) -> bool:
        """Say in one look that nobody of a queue will be late; False: `_late` has to look at each of them."""
        last = max(slots) + ceil(len(queue) / self.slots) * self.pace
        return last <= min(place.deadline for place in queue) + leeway

    def _late(
        self, slots: Sequence[float], queue: Sequence[Place], leeway: float,
        deadline_of: Callable[[Place], float] = attrgetter("deadline"),
    ) -> set[Place]:  # fmt: skip
        """Return those of a queue that will not be in time at this pace; they will be dropped, so they take no time."""
        if not queue or self._all_fit(slots, queue, leeway):
            return set()
        slots, late, pace = list(slots), set(), self.pace
        for place in queue:
            done = slots[0] + pace
            if done > deadline_of(place) + leeway:
                late.add(place)
            else:
                heapq.heapreplace(slots, done)
        return late

    def _slots(self, now: float) -> list[float]:
        """Return when each slot is expected to be free, as a heap."""
        busy = [self._end(now, place) for place in self.running]
        slots = [now] * (self.slots - len(busy)) + busy
        heapq.heapify(slots)
        return slots

    def _end(self, now: float, place: Place) -> float:
        """Return when a picture is expected to be done with the stage that runs.

        One that has taken longer than usual is expected to take as long again as it is late already: so behind one
        that hangs nobody is admitted who would wait in vain.
        """
        pace = place.pace or self.stages[0]
        return now + abs(pace.seconds - (now - place.since))

    def _last_end(self, now: float, place: Place, rank: Rank) -> float:
        """Return when a picture may be done at the latest; of better rank, with all stages that it has time for."""
        pace = place.pace or self.stages[0]
        end = now + abs(pace.longest - (now - place.since))
        whole = end + sum(stage.longest for stage in self.stages[place.stage + 1 :])
        return whole if place.rank[:2] < rank[:2] and whole <= _patience(place) else end


def _patience(place: Place) -> float:
    """Return the first deadline of those who still wait for a picture that runs; nobody has any if they are gone."""
    return min((member.deadline for member in place.members if not member.gone), default=-inf)
