"""The queue on an event loop: callers wait for their turn, and are refused the moment they can't have it.

A place is taken before the body is read (`admit`), a slot when the body is there and it is one's turn (`turn`). All
decisions are the queue's (`miner.queue`). A slot is given back by the thread that used it, not by the caller who gave
up.
"""

import asyncio
import time
from collections.abc import Callable

from miner.errors import RefusalReason, Refused
from miner.queue import Place, Queue, refused


class Ticket:
    """A caller's hold on its place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.turn: asyncio.Future[None] | None = None  # there while its caller waits for a slot
        self.refusal: Refused | None = None

    @property
    def deadline(self) -> float:
        """On the scheduler's clock."""
        return self.place.deadline

    @property
    def gave_up(self) -> bool:
        """Whether its caller was cancelled while it waited, and is about to leave."""
        return self.turn is not None and self.turn.cancelled()

    def refuse(self, reason: RefusalReason) -> None:
        """Take the place away; a caller that is still reading its body learns it at its next look at `check`."""
        self.refusal = refused(reason)
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(self.refusal)

    def check(self) -> None:
        """Say whether the place is still held.

        Raises:
            Refused: it was lost.
        """
        if self.refusal is not None:
            raise self.refusal


class Scheduler:
    """A gate, a queue and a clock. Lives on one event loop."""

    def __init__(self, queue: Queue, clock: Callable[[], float] = time.monotonic) -> None:
        self.queue = queue
        self.clock = clock
        self.admitted: Callable[[], None] = lambda: None  # told of every place given
        self._tickets: dict[Place, Ticket] = {}  # of those that wait
        self.veto: Callable[[], RefusalReason | None] = lambda: None  # asked while the gate is open
        self._closed: RefusalReason | None = "not_ready"
        self._alarm: asyncio.TimerHandle | None = None

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

    def close(self, reason: RefusalReason = "draining") -> None:
        """Refuse new requests; those that have a place keep it."""
        self._closed = reason

    def check(self, caller: str, priority: float, deadline: float) -> None:
        """Say whether `admit` would give a place.

        Raises:
            Refused: the gate is closed, or as `Queue.check`.
        """
        self._pass_the_gate()
        self.queue.check(self.clock(), caller, priority, deadline)

    def admit(self, caller: str, priority: float, deadline: float) -> Ticket:
        """Take a place, in a full queue or before a deadline from somebody of lower rank, who is told at once.

        Raises:
            Refused: as `check`.
        """
        self._pass_the_gate()
        place, displaced = self.queue.admit(self.clock(), caller, priority, deadline)
        for other in displaced:
            self._tickets.pop(other).refuse("evicted")
        ticket = self._tickets[place] = Ticket(place)
        self.admitted()
        return ticket

    async def turn(self, ticket: Ticket) -> None:
        """Wait for a slot; the caller then owns it and must `release` it.

        Raises:
            Refused: the place was lost, or the deadline can't be met any more.
        """
        ticket.check()
        ticket.turn = asyncio.get_running_loop().create_future()
        ticket.place.ready = True
        self._step()
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket.turn.done() and not ticket.turn.cancelled() and ticket.turn.exception() is None:
                self.release(ticket)  # the slot was given at the very moment the caller gave up
            else:
                self.leave(ticket)
            raise

    def leave(self, ticket: Ticket) -> None:
        """Give a place up; without effect for one that is already gone."""
        if self._tickets.pop(ticket.place, None) is not None:
            self.queue.leave(ticket.place)
            self._step()

    def release(self, ticket: Ticket) -> None:
        """Give a slot back."""
        self.queue.release(ticket.place)
        self._step()

    def _pass_the_gate(self) -> None:
        reason = self._closed or self.veto()
        if reason is not None:
            raise refused(reason)

    def _step(self) -> None:
        for place in [place for place, ticket in self._tickets.items() if ticket.gave_up]:
            del self._tickets[place]
            self.queue.leave(place)
        started, late = self.queue.step(self.clock())
        for place in late:
            self._tickets.pop(place).refuse("late")
        for place in started:
            turn = self._tickets.pop(place).turn
            assert turn is not None
            turn.set_result(None)
        self._wait_for_the_next()

    def _wait_for_the_next(self) -> None:
        """Whoever becomes late is told then, and not when the next slot is free."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self.queue.wakes()
        if when is not None:
            # A little later, so that the deadline is surely past.
            delay = max(0.0, when - self.clock()) + 0.001
            self._alarm = asyncio.get_running_loop().call_later(delay, self._step)
