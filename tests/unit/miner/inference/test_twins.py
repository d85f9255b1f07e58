"""Equal pictures in flight: one inference, and every request its own end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest

from detectors.base import Budget, Detector, Prediction
from detectors.errors import ImageError, InferenceError
from miner.errors import InferenceFailed, Refused, UnreadableImage
from miner.inference.memory import Budget as Memory
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler, Ticket
from miner.inference.service import Answer, Picture, Service

PHOTO = b"the picture of a round"


class Held:
    """A detector that works on a picture until the test lets it go."""

    obstacle = None

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.go = threading.Semaphore(0)
        self.faults: list[Exception] = []  # raised in turn

    def predict(self, data: bytes, deadline: float | None = None, budget: Budget | None = None) -> Prediction:
        self.asked.append(data)
        assert self.go.acquire(timeout=60)
        if self.faults:
            raise self.faults.pop(0)
        return Prediction(0.75, 0.0, 0.0, 0.0)

    def close(self) -> None: ...


class Scene:
    """A service with one slot, and requests for it."""

    def __init__(self, capacity: int = 2**30, slots: int = 1) -> None:
        self.detector = Held()
        self.scheduler = Scheduler(Queue(slots, 0.01))
        self.scheduler.open()
        self.budget = Memory(most=capacity)
        self.service = Service(cast("Detector", self.detector), self.scheduler)
        self.tickets: list[Ticket] = []

    async def asks(
        self, caller: str, data: bytes = PHOTO, stake: float = 1.0, wait: float = 60.0, memory: int = 0
    ) -> "asyncio.Task[Answer]":
        """Have a request wait; returns what will be its end."""
        ticket = self.scheduler.admit(caller, stake, self.scheduler.clock() + wait)
        self.tickets.append(ticket)
        claim = self.budget.claim(ticket.rank)
        claim.grow(len(data))
        copied = bytes(bytearray(data))  # each has bytes of its own, as they come from the wire
        task = asyncio.create_task(self.service.answer(ticket, Picture(copied, memory), claim))
        await asyncio.sleep(0)
        return task

    async def working(self, count: int = 1) -> None:
        """Wait until the detector has been asked so often."""
        while len(self.detector.asked) < count:  # noqa: ASYNC110 - it is asked in a thread
            await asyncio.sleep(0.001)

    def finish(self, *faults: Exception, times: int = 1) -> None:
        self.detector.faults += faults
        self.detector.go.release(times)


def play(act: Callable[[Scene], Coroutine[Any, Any, None]], capacity: int = 2**30, slots: int = 1) -> None:
    async def run() -> None:
        scene = Scene(capacity, slots)
        await act(scene)
        assert (scene.scheduler.waiting, scene.scheduler.running, scene.scheduler._tickets) == (0, 0, {})
        assert (scene.service._works, scene.budget.held, scene.scheduler._starts) == ({}, 0, {})
        scene.service.close()

    asyncio.run(run())


async def ends(*tasks: Awaitable[Answer]) -> list[Answer | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_ten_equal_requests_are_one_inference_and_ten_answers() -> None:
    async def act(scene: Scene) -> None:
        tasks = [await scene.asks(f"validator {number}", stake=number) for number in range(10)]
        await scene.working()
        tasks.append(await scene.asks("late comer"))  # while it runs
        assert (scene.scheduler.waiting, scene.scheduler.running) == (0, 1)
        assert scene.budget.held == len(PHOTO)  # and not eleven times as much
        scene.finish()
        found = await ends(*tasks)
        assert [one.prediction.probability for one in found if isinstance(one, Answer)] == [0.75] * 11
        assert [one.shared for one in found if isinstance(one, Answer)].count(False) == 1
        assert scene.detector.asked == [PHOTO]
        again = await scene.asks("later")  # an answer is not kept
        scene.finish()
        assert not (await again).shared
        assert len(scene.detector.asked) == 2

    play(act)


def test_different_pictures_never_share() -> None:
    async def act(scene: Scene) -> None:
        tasks = [await scene.asks(str(number), PHOTO + bytes([number])) for number in range(5)]
        scene.finish(times=5)
        assert not any(one.shared for one in await asyncio.gather(*tasks))
        assert sorted(scene.detector.asked) == [PHOTO + bytes([number]) for number in range(5)]

    play(act)


def test_the_best_rank_of_twins_counts() -> None:
    async def act(scene: Scene) -> None:
        tasks = [await scene.asks("first", b"another picture")]
        await scene.working()
        tasks += [await scene.asks("poor", stake=1), await scene.asks("middle", b"third", stake=5)]
        tasks.append(await scene.asks("rich", stake=9))
        assert scene.scheduler.waiting == 2
        scene.finish(times=3)
        assert [isinstance(one, Answer) for one in await ends(*tasks)] == [True] * 4
        assert scene.detector.asked == [b"another picture", PHOTO, b"third"]

    play(act)


@pytest.mark.parametrize("running", [False, True], ids=["while they wait", "while it runs"])
@pytest.mark.parametrize("who", [0, 1, 2])
def test_who_hangs_up_takes_nobody_with_it(running: bool, who: int) -> None:
    async def act(scene: Scene) -> None:
        other = await scene.asks("other", b"another picture")
        await scene.working()
        tasks = [await scene.asks(str(number)) for number in range(3)]
        if running:
            scene.finish()
            await scene.working(2)
        tasks[who].cancel()
        found = await asyncio.wait({tasks[who]})
        assert found[0]
        scene.finish(times=1 + (not running))
        rest = [task for task in tasks if task is not tasks[who]]
        assert [isinstance(one, Answer) for one in await ends(other, *rest)] == [True] * 3
        assert scene.detector.asked.count(PHOTO) == 1

    play(act)


def test_when_all_hang_up_nothing_is_scored() -> None:
    async def act(scene: Scene) -> None:
        other = await scene.asks("other", b"another picture")
        await scene.working()
        tasks = [await scene.asks(str(number)) for number in range(3)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert scene.scheduler.waiting == 0
        scene.finish()
        await other
        assert scene.detector.asked == [b"another picture"]

    play(act)


def test_a_failure_is_one_requests_and_its_twins_have_a_try_of_their_own() -> None:
    async def act(scene: Scene) -> None:
        tasks = [await scene.asks(str(number)) for number in range(3)]
        scene.finish(InferenceError("not finite"), times=2)
        first, *others = await ends(*tasks)
        assert isinstance(first, InferenceFailed)
        assert [isinstance(one, Answer) for one in others] == [True, True]
        assert len(scene.detector.asked) == 2

    play(act)


def test_a_picture_that_can_not_be_opened_is_not_tried_twice() -> None:
    async def act(scene: Scene) -> None:
        tasks = [await scene.asks(str(number)) for number in range(3)]
        scene.finish(ImageError("no picture"))
        assert [isinstance(one, UnreadableImage) for one in await ends(*tasks)] == [True] * 3
        assert len(scene.detector.asked) == 1

    play(act)


def test_a_twin_with_less_patience_is_told_and_the_others_wait_on() -> None:
    async def act(scene: Scene) -> None:
        other = await scene.asks("other", b"another picture")
        await scene.working()
        patient, hasty = await scene.asks("patient"), await scene.asks("hasty", wait=0.2)
        (end,) = await ends(hasty)
        assert isinstance(end, Refused)
        assert end.reason == "late"
        scene.finish(times=2)
        assert [isinstance(one, Answer) for one in await ends(other, patient)] == [True, True]

    play(act)


def test_a_picture_too_large_for_what_is_left_is_refused_before_it_is_decoded() -> None:
    async def act(scene: Scene) -> None:
        (end,) = await ends(await scene.asks("a", memory=1001))
        assert isinstance(end, Refused)
        assert end.reason == "memory"
        scene.finish()
        assert isinstance(await (await scene.asks("b", memory=900)), Answer)
        assert len(scene.detector.asked) == 1

    play(act, capacity=1000)


def test_what_waits_gives_way_to_who_ranks_better_and_what_runs_does_not() -> None:
    async def act(scene: Scene) -> None:
        running = await scene.asks("poor", b"1" * 300, stake=1)
        await scene.working()
        twins = [await scene.asks(name, b"2" * 300, stake=2) for name in ("b", "c")]
        rich = await scene.asks("rich", b"3" * 500, stake=9)
        found = await ends(*twins)
        assert [one.reason for one in found if isinstance(one, Refused)] == ["memory"] * 2
        with pytest.raises(Refused):
            await scene.asks("richest", b"4" * 800, stake=99)
        scene.scheduler.leave(scene.tickets[-1])
        scene.finish(times=2)
        assert [isinstance(one, Answer) for one in await ends(running, rich)] == [True, True]

    play(act, capacity=1000)


def reasons(ends: list[Answer | BaseException]) -> list[str]:
    return [one.reason for one in ends if isinstance(one, Refused)]


def test_twins_that_try_again_without_the_memory_for_it_leave_no_slot_behind() -> None:
    async def act(scene: Scene) -> None:
        tasks = [await scene.asks(str(number), memory=500) for number in range(2)]
        await scene.working()
        scene.budget.see(left=-(2**20), used=0)
        scene.finish(InferenceError("not finite"))
        first, second = await ends(*tasks)
        assert isinstance(first, InferenceFailed)
        assert reasons([second]) == ["memory"]

    play(act, slots=2)


@pytest.mark.slow
def test_when_memory_is_gone_all_that_wait_are_told_however_many() -> None:
    async def act(scene: Scene) -> None:
        running = await scene.asks("running", b"another picture")
        await scene.working()
        waiting = [await scene.asks(str(number), b"%d" % number, memory=500) for number in range(500)]
        scene.budget.see(left=-(2**20), used=0)
        scene.finish()
        assert isinstance(await running, Answer)
        assert reasons(await ends(*waiting)) == ["memory"] * 500

    play(act)
