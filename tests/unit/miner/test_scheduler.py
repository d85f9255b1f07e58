"""The queue: who gets a place, who gets a slot, and who is refused."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from miner.errors import Refused
from miner.scheduler import Scheduler


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scheduler(clock: Clock) -> Scheduler:
    """One slot, three places, a picture a second."""
    scheduler = Scheduler(slots=1, depth=3, pace=1.0, clock=clock)
    scheduler.open()
    return scheduler


def scene(play: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(play())


def reason(caught: pytest.ExceptionInfo[Refused]) -> str:
    return caught.value.reason


def test_a_closed_gate_refuses() -> None:
    scheduler = Scheduler(slots=1, depth=1, pace=0.1)
    with pytest.raises(Refused) as caught:
        scheduler.admit(1, 1e9)
    assert reason(caught) == "not_ready"
    scheduler.close("draining")
    with pytest.raises(Refused) as caught:
        scheduler.admit(1, 1e9)
    assert reason(caught) == "draining"


def test_what_can_not_be_done_in_time_is_refused_before_any_work(scheduler: Scheduler, clock: Clock) -> None:
    scheduler.admit(1, clock.now + 1.0)
    with pytest.raises(Refused) as caught:
        scheduler.admit(1, clock.now + 1.9)  # one second behind another one
    assert reason(caught) == "deadline"
    scheduler.admit(1, clock.now + 2.0)


def test_two_slots_halve_the_estimate(clock: Clock) -> None:
    scheduler = Scheduler(slots=2, depth=8, pace=1.0, clock=clock)
    assert [scheduler.estimate(ahead) for ahead in range(5)] == [1, 1, 2, 2, 3]


def test_a_full_queue_gives_its_last_place_to_a_higher_stake(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        late = clock.now + 60
        first, poor, other = (scheduler.admit(priority, late) for priority in (5, 1, 5))
        with pytest.raises(Refused) as caught:
            scheduler.admit(1, late)  # an equal stake does not push
        assert reason(caught) == "queue_full"
        rich = scheduler.admit(9, late)
        with pytest.raises(Refused) as caught:
            await scheduler.turn(poor)
        assert reason(caught) == "evicted"
        assert scheduler.waiting == 3
        for ticket in (first, other, rich):
            await scheduler.turn(ticket)
            scheduler.release()

    scene(play)


def test_an_evicted_caller_that_waits_learns_it_at_once(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        late = clock.now + 60
        await scheduler.turn(scheduler.admit(1, late))  # the slot is taken
        waiting = asyncio.create_task(scheduler.turn(scheduler.admit(1, late)))
        scheduler.admit(5, late)
        scheduler.admit(5, late)
        await asyncio.sleep(0)
        scheduler.admit(9, late)
        with pytest.raises(Refused, match="higher stake"):
            await waiting

    scene(play)


def test_first_come_first_served_but_a_slow_body_holds_nobody_up(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        late = clock.now + 60
        slow, quick = scheduler.admit(1, late), scheduler.admit(1, late)
        await scheduler.turn(quick)
        assert scheduler.running == 1
        turn = asyncio.create_task(scheduler.turn(slow))
        await asyncio.sleep(0)
        assert not turn.done()
        scheduler.release()
        await turn

    scene(play)


def test_a_request_whose_time_ran_out_in_the_queue_is_dropped_not_worked_on(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        await scheduler.turn(scheduler.admit(1, clock.now + 60))
        waiting = asyncio.create_task(scheduler.turn(scheduler.admit(1, clock.now + 2)))
        await asyncio.sleep(0)
        clock.now += 1.5
        scheduler.release()
        with pytest.raises(Refused) as caught:
            await waiting
        assert reason(caught) == "late"
        assert (scheduler.running, scheduler.waiting) == (0, 0)

    scene(play)


def test_a_caller_who_gives_up_while_waiting_leaves_its_place(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        await scheduler.turn(scheduler.admit(1, clock.now + 60))
        waiting = asyncio.create_task(scheduler.turn(scheduler.admit(1, clock.now + 60)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (scheduler.running, scheduler.waiting) == (1, 0)

    scene(play)


def test_a_caller_who_gives_up_as_the_slot_is_given_gives_it_back(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        await scheduler.turn(scheduler.admit(1, clock.now + 60))
        waiting = asyncio.create_task(scheduler.turn(scheduler.admit(1, clock.now + 60)))
        await asyncio.sleep(0)
        scheduler.release()  # gives the slot, and before the task runs:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (scheduler.running, scheduler.waiting) == (0, 0)

    scene(play)


def test_a_caller_who_hangs_up_gives_back_no_slot_that_it_never_had(scheduler: Scheduler, clock: Clock) -> None:
    async def play() -> None:
        await scheduler.turn(scheduler.admit(1, clock.now + 60))
        ticket = scheduler.admit(1, clock.now + 60)
        waiting = asyncio.create_task(scheduler.turn(ticket))
        await asyncio.sleep(0)
        waiting.cancel()
        scheduler.leave(ticket)  # the application tidies up before the cancelled turn wakes
        await asyncio.gather(waiting, return_exceptions=True)
        assert (scheduler.running, scheduler.waiting) == (1, 0)

    scene(play)


def test_the_pace_follows_the_measurements(scheduler: Scheduler) -> None:
    for _ in range(100):
        scheduler.measured(2.0)
    assert scheduler.pace == pytest.approx(2.0, abs=0.01)


def test_no_order_of_events_loses_a_slot(clock: Clock) -> None:
    """Callers that finish, give up while waiting, give up before their body came, or are pushed out."""
    import random

    async def play() -> None:
        luck = random.Random(7)
        scheduler = Scheduler(slots=2, depth=5, pace=0.001, clock=clock)
        scheduler.open()

        async def caller(patience: int) -> None:
            try:
                ticket = scheduler.admit(luck.random(), clock.now + 1)
            except Refused:
                return
            try:
                for _ in range(luck.randrange(3)):
                    await asyncio.sleep(0)  # the body
                async with asyncio.timeout(patience / 1000):
                    await scheduler.turn(ticket)
            except (Refused, TimeoutError):
                return
            finally:
                scheduler.leave(ticket)
            assert scheduler.running <= 2
            await asyncio.sleep(luck.random() / 1000)
            scheduler.release()

        await asyncio.gather(*(caller(luck.randrange(5)) for _ in range(500)))
        assert (scheduler.running, scheduler.waiting) == (0, 0)

    scene(play)
