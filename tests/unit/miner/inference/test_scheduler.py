"""The queue on an event loop: who waits, who is told what, and when."""

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest

from miner.errors import Refused
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler, Ticket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def turn(scheduler: Scheduler, ticket: Ticket) -> None:
    """Wait for a slot, as the service does; the caller then owns it and must release it."""
    slot = asyncio.get_running_loop().create_future()

    def start() -> None:
        if slot.cancelled():  # its caller gave up at that very moment
            scheduler.release(ticket.place)
        else:
            slot.set_result(None)

    ticket.tell = lambda why: None if slot.done() else slot.set_exception(why)
    try:
        scheduler.line_up(ticket, start)
        await slot
    except asyncio.CancelledError:
        if not slot.cancelled() and slot.done() and slot.exception() is None:
            scheduler.release(ticket.place)
        raise
    finally:
        scheduler.leave(ticket)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scheduler(clock: Clock) -> Scheduler:
    """One slot, three places, a picture a second."""
    scheduler = Scheduler(Queue(slots=1, pace=1.0, depth=3), clock)
    scheduler.open()
    return scheduler


def scene(play: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(play())


def reason(caught: pytest.ExceptionInfo[Refused]) -> str:
    return caught.value.reason


def test_a_closed_gate_refuses(scheduler: Scheduler) -> None:
    for why in ("not_ready", "draining"):
        scheduler.close(why)  # type: ignore[arg-type]
        with pytest.raises(Refused) as caught:
            scheduler.admit("a", 1, 1e9)
        assert reason(caught) == why
        with pytest.raises(Refused):
            scheduler.check("a", 1, 1e9)


def test_an_evicted_caller_that_waits_learns_it_at_once(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        late = clock.now + 60
        await turn(scheduler, scheduler.admit("first", 1, late))  # the slot is taken
        waiting = asyncio.create_task(turn(scheduler, scheduler.admit("poor", 1, late)))
        scheduler.admit("a", 5, late)
        scheduler.admit("b", 5, late)
        await asyncio.sleep(0)
        scheduler.admit("rich", 9, late)
        with pytest.raises(Refused, match="better rank"):
            await waiting

    scene(play)


def test_an_evicted_caller_that_still_reads_its_body_learns_it_there_or_at_its_turn(
    scheduler: Scheduler, clock: Clock
) -> None:
    async def play() -> None:
        poor, *_ = (scheduler.admit(name, 1, clock.now + 60) for name in "abc")
        poor.check()
        scheduler.admit("rich", 9, clock.now + 2)
        (evicted,) = [ticket for ticket in (poor, *_) if ticket.refusal is not None]
        with pytest.raises(Refused, match="better rank"):
            evicted.check()
        with pytest.raises(Refused, match="better rank"):
            await turn(scheduler, evicted)

    scene(play)


def test_a_slow_body_holds_nobody_up(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        late = clock.now + 60
        slow, quick = scheduler.admit("a", 1, late), scheduler.admit("b", 1, late)
        await turn(scheduler, quick)
        assert scheduler.running == 1
        waiting = asyncio.create_task(turn(scheduler, slow))
        await asyncio.sleep(0)
        assert not waiting.done()
        scheduler.release(quick.place)
        await waiting

    scene(play)


def test_who_becomes_late_is_told_then_though_no_slot_gets_free(clock: Clock) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        scheduler = Scheduler(Queue(slots=1, pace=0.01, depth=3), loop.time)
        scheduler.open()
        await turn(scheduler, scheduler.admit("hangs", 1, loop.time() + 60))
        with pytest.raises(Refused) as caught:
            await turn(scheduler, scheduler.admit("waits", 1, loop.time() + 0.1))
        assert reason(caught) == "late"
        assert (scheduler.running, scheduler.waiting) == (1, 0)

    scene(play)


def test_a_twin_that_is_late_in_the_moment_of_the_start_takes_nothing_from_the_other(clock: Clock) -> None:
    async def play() -> None:
        scheduler = Scheduler(Queue(slots=1, pace=1.0), clock)
        scheduler.open()
        first = scheduler.admit("first", 1, clock.now + 60)
        await turn(scheduler, first)
        hasty, patient = (
            scheduler.admit(name, 1, clock.now + wait) for name, wait in (("hasty", 3.0), ("patient", 9.0))
        )
        starts: list[str] = []
        scheduler.line_up(hasty, lambda: starts.append("shared"))
        scheduler.join(patient, hasty.place)
        clock.now += 2.5
        scheduler.release(first.place)
        assert (starts, scheduler.running) == (["shared"], 1)
        assert hasty.refusal is not None
        assert patient.refusal is None

    scene(play)


@pytest.mark.parametrize("moment", ["while it waits", "as it gets one", "after it left"])
def test_a_caller_who_gives_up_leaves_neither_a_place_nor_a_slot_behind(
    scheduler: Scheduler, clock: Clock, moment: str
) -> None:
    async def play() -> None:
        first = scheduler.admit("first", 1, clock.now + 60)
        await turn(scheduler, first)
        ticket = scheduler.admit("gives up", 1, clock.now + 60)
        waiting = asyncio.create_task(turn(scheduler, ticket))
        await asyncio.sleep(0)
        if moment == "as it gets one":
            scheduler.release(first.place)  # gives it the slot, and before the task runs:
        waiting.cancel()
        if moment == "after it left":
            scheduler.leave(ticket)  # the application tidies up before the cancelled turn wakes
        await asyncio.gather(waiting, return_exceptions=True)
        assert scheduler.waiting == 0
        assert scheduler.running == (0 if moment == "as it gets one" else 1)

    scene(play)


def test_a_slot_that_gets_free_passes_over_one_who_has_just_given_up(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        first, gone, next_one = (scheduler.admit(name, 1, clock.now + 60) for name in "abc")
        await turn(scheduler, first)
        turns = [asyncio.create_task(turn(scheduler, ticket)) for ticket in (gone, next_one)]
        await asyncio.sleep(0)
        turns[0].cancel()
        scheduler.release(first.place)
        assert scheduler.running == 1
        await turns[1]
        scheduler.release(next_one.place)
        await asyncio.gather(*turns, return_exceptions=True)
        assert (scheduler.running, scheduler.waiting) == (0, 0)

    scene(play)


def test_no_order_of_events_loses_a_slot(clock: Clock) -> None:
    """Callers that finish, give up while waiting, give up before their body came, or are pushed out."""

    async def play() -> None:
        luck = random.Random(7)
        scheduler = Scheduler(Queue(slots=2, pace=0.001, depth=5), clock)
        scheduler.open()
        ends = []

        async def caller(patience: int) -> None:
            try:
                ticket = scheduler.admit(luck.choice("abcdef"), luck.random(), clock.now + 1)
            except Refused:
                ends.append("refused")
                return
            try:
                for _ in range(luck.randrange(3)):
                    await asyncio.sleep(0)  # the body
                async with asyncio.timeout(patience / 1000):
                    await turn(scheduler, ticket)
            except (Refused, TimeoutError):
                ends.append("lost")
                return
            finally:
                scheduler.leave(ticket)
            assert scheduler.running <= 2
            await asyncio.sleep(luck.random() / 1000)
            scheduler.release(ticket.place)
            ends.append("answered")

        for _ in range(25):  # crowds, one after the other
            await asyncio.gather(*(caller(luck.randrange(5)) for _ in range(20)))
        assert (scheduler.running, scheduler.waiting, scheduler._tickets) == (0, 0, {})
        assert set(ends) == {"refused", "lost", "answered"}

    scene(play)
