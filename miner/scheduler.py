"""The bounded queue: slots, places, deadlines, refusal by estimate.

A place is taken before the body is read (`admit`), a slot when the body is there and it is one's turn (`turn`). First
come, first served: a pool guarded by a semaphore starved some callers for seconds. A slot is given back by the thread
that used it, not by the caller who gave up.
"""

import asyncio
import time
from collections.abc import Callable

from miner.errors import RefusalReason, Refused

PACE_WEIGHT = 0.1  # of the newest measurement in the moving average of seconds a picture takes

MESSAGES: dict[RefusalReason, str] = {
    "queue_full": "the queue is full",
    "deadline": "no answer in time is possible",
    "evicted": "the place went to a caller with a higher stake",
    "late": "the deadline can no longer be met",
    "not_ready": "the miner is not ready",
    "draining": "the miner is shutting down",
    "no_endpoint": "no machine that could score the picture is within reach",
}


def refused(reason: RefusalReason) -> Refused:
    """Make the refusal for a reason."""
    return Refused(reason, MESSAGES[reason])


class Ticket:
    """A place in the queue, and later a slot."""

    def __init__(self, priority: float, deadline: float) -> None:
        self.priority = priority
        self.deadline = deadline  # on the scheduler's clock
        self.turn: asyncio.Future[None] | None = None  # there while its caller waits for a slot
        self.refusal: Refused | None = None

    def refuse(self, reason: RefusalReason) -> None:
        """Take the place away; a caller that is still reading its body learns it at `Scheduler.turn`."""
        self.refusal = refused(reason)
        if self.turn is not None and not self.turn.done():
            self.turn.set_exception(self.refusal)


class Scheduler:
    """`slots` at once, `depth` waiting. Lives on one event loop; only `measured` may come from elsewhere."""

    def __init__(self, slots: int, depth: int, pace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.slots = slots
        self.depth = depth
        self.pace = pace  # seconds a picture takes in its slot, measured
        self.clock = clock
        self.running = 0
        self._places: list[Ticket] = []
        self._closed: RefusalReason | None = "not_ready"

    @property
    def waiting(self) -> int:
        """Places taken."""
        return len(self._places)

    def open(self) -> None:
        """Admit requests from now on."""
        self._closed = None

    def close(self, reason: RefusalReason = "draining") -> None:
        """Refuse new requests; those that have a place keep it."""
        self._closed = reason

    def estimate(self, ahead: int) -> float:
        """Return the seconds until a request with `ahead` others before it would be answered.

        Each slot works off its share of what runs and waits; a running picture counts as whole.
        """
        rounds = (self.running + ahead) // self.slots + 1
        return rounds * self.pace

    def check(self, priority: float, deadline: float) -> Ticket | None:
        """Say whether `admit` would give a place; return the ticket it would take the place from.

        Raises:
            Refused: the gate is closed, an answer in time is impossible, or the queue is full of higher priorities.
        """
        if self._closed is not None:
            raise refused(self._closed)
        full = len(self._places) >= self.depth
        if self.clock() + self.estimate(len(self._places) - full) > deadline:
            raise refused("deadline")
        if not full:
            return None
        lowest = min(reversed(self._places), key=lambda ticket: ticket.priority)
        if lowest.priority >= priority:
            raise refused("queue_full")
        return lowest

    def admit(self, priority: float, deadline: float) -> Ticket:
        """Take a place; in a full queue, from the lowest priority below one's own.

        Raises:
            Refused: as `check`.
        """
        lowest = self.check(priority, deadline)
        if lowest is not None:
            self._places.remove(lowest)
            lowest.refuse("evicted")
        ticket = Ticket(priority, deadline)
        self._places.append(ticket)
        return ticket

    async def turn(self, ticket: Ticket) -> None:
        """Wait for a slot; the caller then owns it and must `release` it.

        Raises:
            Refused: the place was lost, or the deadline can't be met any more.
        """
        if ticket.refusal is not None:
            raise ticket.refusal
        ticket.turn = asyncio.get_running_loop().create_future()
        # The first to be ready need not be the first in the queue: its body may still be on its way.
        self._call_next()
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket.turn.done() and not ticket.turn.cancelled() and ticket.turn.exception() is None:
                self.release()  # the slot was given at the very moment the caller gave up
            else:
                self.leave(ticket)
            raise

    def leave(self, ticket: Ticket) -> None:
        """Give a place up; without effect for one that is already gone."""
        if ticket in self._places:
            self._places.remove(ticket)
            self._call_next()

    def release(self) -> None:
        """Give a slot back."""
        self.running -= 1
        self._call_next()

    def measured(self, seconds: float) -> None:
        """Take the duration of a finished picture into the pace."""
        self.pace += PACE_WEIGHT * (seconds - self.pace)

    def _call_next(self) -> None:
        # A turn that is done already belongs to a caller who has just given up and is about to leave.
        for ticket in [ticket for ticket in self._places if ticket.turn is not None and not ticket.turn.done()]:
            if self.running >= self.slots:
                return
            self._places.remove(ticket)
            if self.clock() + self.pace > ticket.deadline:
                ticket.refuse("late")
            else:
                self.running += 1
                assert ticket.turn is not None
                ticket.turn.set_result(None)
