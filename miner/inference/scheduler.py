"""The scheduler: the queue on an event loop; callers wait for their turn, or are refused at once.

A place is taken before the body is read (`admit`); when the body is there, its picture lines up for a slot (`line_up`),
or joins an equal one that did (`join`). All decisions are the queue's (`miner.inference.queue`). A slot is given
back by the thread that used it, not by the caller who gave up.
"""

import asyncio
import time
from collections.abc import Callable

from miner.errors import RefusalReason, Refused, refused
from miner.inference.queue import Place, Queue, QueuedRequest, Rank


class Ticket:
    """A request's hold on its place."""

    def __init__(self, place: Place) -> None:
        self.place = place  # another one once it has joined a twin
        (self.member,) = place.members
        self.refusal: Refused | None = None
        self.tell: Callable[[Refused], None] | None = None  # told of the refusal at once

    @property
    def deadline(self) -> float:
        """On the scheduler's clock."""
        return self.member.deadline

    @property
    def rank(self) -> Rank:
        """Its own, whatever its twins have."""
        return self.member.rank

    def refuse(self, why: Refused) -> None:
        """Take the place away."""
        self.refusal = why
        if self.tell is not None:
            self.tell(why)

    def check(self) -> None:
        """Say whether the place is still held.

        Raises:
            Refused: it was lost.
        """
        if self.refusal is not None:
            raise self.refusal


class Scheduler:
    """A gate, a queue and a clock. Lives on one event loop.

    Args:
        queue: decides.
        clock: in seconds.
        veto: asked while the gate is open: why nobody is admitted all the same, or None.
        admitted: told of every place given.
    """

    def __init__(
        self,
        queue: Queue,
        clock: Callable[[], float] = time.monotonic,
        veto: Callable[[], RefusalReason | None] = lambda: None,
        admitted: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue = queue
        self.clock = clock
        self._veto = veto
        self._admitted = admitted
        self._tickets: dict[QueuedRequest, Ticket] = {}  # of those that wait
        self._starts: dict[Place, Callable[[], None]] = {}  # what to do when a place gets its slot
        self._closed: RefusalReason | None = "not_ready"
        self._alarm: asyncio.TimerHandle | None = None
        self._is_stepping = self._is_due = False

    @property
    def waiting(self) -> int:
        """Places taken."""
        return len(self.queue.waiting)

    @property
    def running(self) -> int:
        """Slots taken."""
        return len(self.queue.running)

    @property
    def estimate(self) -> float:
        """Seconds until a request that came now, behind all others, would be answered."""
        return self.queue.estimate(self.clock())

    def open(self) -> None:
        """Admit requests from now on."""
        self._closed = None

    def close(self, reason: RefusalReason) -> None:
        """Refuse new requests; those that have a place keep it."""
        self._closed = reason

    def check(self, caller: str, stake: float, deadline: float) -> Rank:
        """Say whether `admit` would give a place; return the rank it would have.

        Raises:
            Refused: the gate is closed, or as `Queue.check`.
        """
        self._pass_the_gate()
        return self.queue.check(self.clock(), caller, stake, deadline)

    def admit(self, caller: str, stake: float, deadline: float) -> Ticket:
        """Take a place, in a full queue or before a deadline from somebody of worse rank, who is told at once.

        Raises:
            Refused: as `check`.
        """
        self._pass_the_gate()
        place, displaced = self.queue.admit(self.clock(), caller, stake, deadline)
        for other in displaced:
            self._starts.pop(other, None)
            for member in other.members:
                self._tickets.pop(member).refuse(refused("evicted"))
        ticket = Ticket(place)
        self._tickets[ticket.member] = ticket
        self._admitted()
        return ticket

    def line_up(self, ticket: Ticket, start: Callable[[], None]) -> None:
        """Wait for a slot from now on: `start` is called when the place has one, which must be released then.

        Raises:
            Refused: the place was lost.
        """
        ticket.check()
        ticket.place.ready = True
        self._starts[ticket.place] = start
        self._step()

    def join(self, ticket: Ticket, place: Place) -> None:
        """Give a place up for that of an equal picture, which waits or runs already.

        Raises:
            Refused: the place was lost.
        """
        ticket.check()
        self.queue.join(ticket.place, place)
        ticket.place = place
        if place in self.queue.running:
            del self._tickets[ticket.member]  # nothing can take it away any more
        self._step()

    def put_back(self, tickets: list[Ticket], start: Callable[[], None]) -> Place:
        """Have those line up again whose picture ran in vain for another's sake; they wait until its slot is free."""
        place = self.queue.put_back(tickets[0].place, [ticket.member for ticket in tickets])
        for ticket in tickets:
            ticket.place = place
            self._tickets[ticket.member] = ticket
        self._starts[place] = start
        return place

    def refuse(self, ticket: Ticket, why: Refused) -> None:
        """Take a place away for another reason than the queue's; without effect for one that is already gone."""
        if self._tickets.pop(ticket.member, None) is not None:
            self.queue.remember_refusal(ticket.member.caller, ticket.deadline, self.clock())
            self._give_up(ticket)
            ticket.refuse(why)
            self._step()

    def grants(self, place: Place, stage: int) -> bool:
        """Say whether a picture in its slot may begin a further stage now; none may when the end is near."""
        return self._closed is None and self.queue.grants(self.clock(), place, stage)

    def is_in_time(self, ticket: Ticket, place: Place) -> bool:
        """Say whether `join` would have it answered in time."""
        return self.queue.is_in_time(self.clock(), place, ticket.deadline)

    def leave(self, ticket: Ticket) -> None:
        """Give a place up; without effect for one that is already gone, but for what is done for it in a slot."""
        ticket.member.gone = True
        if self._tickets.pop(ticket.member, None) is not None:
            self._give_up(ticket)
            self._step()

    def release(self, place: Place) -> None:
        """Give a slot back."""
        self.queue.release(place)
        self._step()

    def _give_up(self, ticket: Ticket) -> None:
        self.queue.leave(ticket.place, ticket.member)
        if ticket.place not in self.queue.waiting:
            self._starts.pop(ticket.place, None)

    def _pass_the_gate(self) -> None:
        reason = self._closed or self._veto()
        if reason is not None:
            raise refused(reason)

    def _step(self) -> None:
        """Do what is due, until nothing is; a start that gives its slot back at once asks for another round."""
        self._is_due = True
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._is_due:
                self._is_due = False
                self._step_once()
        finally:
            self._is_stepping = False
        self._wait_for_the_next()

    def _step_once(self) -> None:
        started, late = self.queue.step(self.clock())
        for member in late:
            ticket = self._tickets.pop(member)
            if ticket.place not in (*self.queue.waiting, *started):  # twins may have kept it
                self._starts.pop(ticket.place, None)
            ticket.refuse(refused("late"))
        for place in started:
            for member in place.members:
                self._tickets.pop(member)
        for start in [self._starts.pop(place) for place in started]:
            start()

    def _wait_for_the_next(self) -> None:
        """Whoever becomes late is told then, and not when the next slot is free."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now = self.clock()
        when = self.queue.wakes(now)
        if when is not None:
            # A little later, so that the deadline is surely past.
            delay = max(0.0, when - now) + 0.001
            self._alarm = asyncio.get_running_loop().call_later(delay, self._step)
