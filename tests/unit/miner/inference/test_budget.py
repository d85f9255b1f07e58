"""A budget for each picture: its thread asks the queue on the event loop before each further stage."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from detectors.base import Budget, Detector, Judgement, RunOptions
from detectors.ensemble import Ensemble
from detectors.models.calibration import Fusion, Stage
from miner.errors import Refused
from miner.inference import service as module
from miner.inference.memory import Budget as Memory
from miner.inference.plan import planned_paces
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler, Ticket
from miner.inference.service import Answer, Picture, Service
from miner.settings.validators import StageMode
from tests.models import photo
from tests.unit.detectors.test_ensemble import MANIFEST, MEASURED

PHOTOS = [photo(32, 24, seed=seed) for seed in range(8)]
PACES = (0.01, 0.02)


class Branch(Detector):
    """Says a number when the test lets it, or at once."""

    def __init__(self, said: float, *, held: bool = False) -> None:
        super().__init__(MANIFEST, RunOptions(), "onnx")
        self.said, self.held, self.asked = said, held, 0
        self.go = threading.Semaphore(0)

    def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
        self.asked += 1
        assert not self.held or self.go.acquire(timeout=60)
        return Judgement(self.said, 0.0, 0.0)


class Scene:
    """A service of a cascade: the small branch is unsure, and the large one is not."""

    def __init__(self, mode: StageMode = "adaptive", slots: int = 1, *, held: Sequence[str] = (), said: float = 0.6):
        self.small, self.large = (Branch(value, held=name in held) for name, value in (("small", said), ("large", 1.0)))
        self.detector = Ensemble(
            MANIFEST,
            {"small": self.small, "large": self.large},
            Fusion(branches=["small", "large"]),
            (),
            RunOptions(),
            cheaper=[Stage(branches=["small"], band=(0.1, 0.9), measured=MEASURED)],
        )
        self.detector.paces = PACES
        pace, *further = planned_paces(mode, PACES)
        self.queue = Queue(slots, pace, further=further)
        self.scheduler = Scheduler(self.queue)
        self.scheduler.open()
        self.memory = Memory()
        self.service = Service(self.detector, self.scheduler, mode)
        self.tickets: list[Ticket] = []

    async def asks(self, photo: bytes = PHOTOS[0], wait: float = 60.0, caller: str = "") -> "asyncio.Task[Answer]":
        ticket = self.scheduler.admit(caller or f"caller {len(self.tickets)}", 1.0, self.scheduler.clock() + wait)
        self.tickets.append(ticket)
        claim = self.memory.claim(ticket.rank)
        task = asyncio.create_task(self.service.answer(ticket, Picture(photo), claim))
        await asyncio.sleep(0)
        return task

    async def working(self, branch: Branch, count: int = 1) -> None:
        while branch.asked < count:  # noqa: ASYNC110 - it is asked in a thread
            await asyncio.sleep(0.001)

    def play(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            asyncio.run(act())
        finally:
            for branch in (self.small, self.large):
                branch.go.release(100)
            self.service.close()


def stages(answer: Answer) -> int:
    return len(answer.prediction.stages)


@pytest.mark.parametrize(("said", "expected"), [(0.6, 2), (0.95, 1)])
def test_alone_an_unsure_picture_gets_every_stage_and_a_sure_one_the_first(said: float, expected: int) -> None:
    scene = Scene(said=said)

    async def act() -> None:
        before = scene.queue.paces
        assert stages(await (await scene.asks())) == expected
        assert [was != now for was, now in zip(before, scene.queue.paces, strict=True)] == [True, expected == 2]

    scene.play(act)


@pytest.mark.parametrize(("wait", "expected"), [(60.0, 2), (0.5, 1)])
def test_the_most_urgent_of_those_who_wait_for_it_says_how_long_it_may_take(wait: float, expected: int) -> None:
    scene = Scene(held=["small"])

    async def act() -> None:
        scene.queue.begin_anew(0.01, 5.0)
        first = await scene.asks()
        await scene.working(scene.small)
        twin = await scene.asks(wait=wait)
        scene.small.go.release()
        assert [stages(one) for one in await asyncio.gather(first, twin)] == [expected, expected]
        assert scene.small.asked == 1

    scene.play(act)


def test_who_waits_behind_is_answered_in_time() -> None:
    scene = Scene(held=["small"])

    async def act() -> None:
        scene.queue.begin_anew(0.01, 5.0)
        first = await scene.asks()
        await scene.working(scene.small)
        second = await scene.asks(PHOTOS[1], wait=4.0)
        scene.small.go.release()
        assert stages(await first) == 1
        await scene.working(scene.small, 2)
        scene.small.go.release()
        assert stages(await second) == 1  # five seconds do not fit into its four
        third = await scene.asks(PHOTOS[2])
        scene.small.go.release()
        assert stages(await third) == 2

    scene.play(act)


@pytest.mark.parametrize("why", ["hung up", "another model", "draining"])
def test_no_stage_is_begun_for_nobody_by_an_old_model_or_near_the_end(why: str) -> None:
    scene = Scene(held=["small"])

    async def act() -> None:
        task = await scene.asks()
        await scene.working(scene.small)
        if why == "hung up":
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif why == "draining":
            scene.scheduler.close("draining")
        else:
            assert scene.service.replace(Scene().detector, *PACES) is scene.detector
        scene.small.go.release()
        await scene.service.drain(60)
        assert (scene.large.asked, scene.scheduler.running, scene.service._works) == (0, 0, {})
        assert why == "hung up" or stages(await task) == 1
        assert why != "another model" or scene.queue.paces == list(PACES)  # what the old one took tells nothing of it

    scene.play(act)


def test_cheapest_is_quick_alone_too() -> None:
    scene = Scene("cheapest")

    async def act() -> None:
        assert scene.queue.paces == [PACES[0]]
        assert stages(await (await scene.asks())) == 1
        scene.service.replace(scene.detector, 2.0, 3.0)
        assert scene.queue.paces == [2.0]

    scene.play(act)


def test_the_proof_with_all_stages_counts_for_each_by_its_share() -> None:
    expectations: dict[StageMode, list[float]] = {"adaptive": [0.1, 0.2], "cheapest": [0.1]}
    for mode, expected in expectations.items():
        scene = Scene(mode)
        scene.service.proved(0.3)
        assert scene.queue.paces == pytest.approx(expected)
        scene.service.close()


def test_a_loop_that_has_no_time_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRANT_SECONDS", 0.05)
    scene, said = Scene(held=["small"]), threading.Event()
    ask = scene.service._may_begin

    def may_begin(*question: Any) -> bool:
        try:
            return ask(*question)
        finally:
            said.set()

    monkeypatch.setattr(scene.service, "_may_begin", may_begin)

    async def act() -> None:
        task = await scene.asks()
        await scene.working(scene.small)
        (place,) = scene.queue.running
        scene.small.go.release()
        assert said.wait(60)  # the loop stands still meanwhile
        assert stages(await task) == 1
        assert place.stage == 0

    scene.play(act)


def test_a_loop_that_is_gone_means_no() -> None:
    scene = Scene()
    loop = asyncio.new_event_loop()
    loop.close()
    with ThreadPoolExecutor(1) as pool:
        nothing: Any = None  # is at work
        assert pool.submit(scene.service._may_begin, loop, nothing, scene.detector, 1).result() is False
    scene.service.close()


def test_a_twin_without_the_time_for_what_has_begun_gets_a_slot_of_its_own() -> None:
    scene = Scene(slots=2, held=["large"])

    async def act() -> None:
        scene.queue.begin_anew(0.01, 30.0)
        patient = await scene.asks()
        await scene.working(scene.large)
        hasty = await scene.asks(wait=5.0)
        assert stages(await hasty) == 1
        assert scene.small.asked == 2
        later = await scene.asks(wait=50.0)
        scene.large.go.release(2)
        assert [stages(one) for one in await asyncio.gather(patient, later)] == [2, 2]
        assert scene.small.asked <= 3
        assert scene.service._works == {}

    scene.play(act)


def test_no_order_of_events_loses_a_slot_or_a_request() -> None:
    """Ten thousand requests, of callers that wait, hang up, come as twins or all at once, on three slots."""
    scene = Scene(slots=3)
    ends: list[str] = []

    async def act() -> None:
        luck = random.Random(5)
        scene.queue.begin_anew(0.001, 0.002)

        async def caller(number: int) -> None:
            await asyncio.sleep(0.5 * luck.random())
            try:
                task = await scene.asks(luck.choice(PHOTOS), luck.choice((0.005, 0.05, 5.0)), f"caller {number % 64}")
            except Refused:
                ends.append("refused")
                return
            if luck.random() < 0.1:
                task.cancel()
            try:
                ends.append(str(stages(await task)))
            except Refused:
                ends.append("lost")
            except asyncio.CancelledError:
                ends.append("hung up")

        for _ in range(10):
            await asyncio.gather(*(caller(number) for number in range(1000)))
        await scene.service.drain(60)
        assert (scene.scheduler.running, scene.scheduler.waiting) == (0, 0)
        assert (scene.scheduler._tickets, scene.service._works, scene.memory.held) == ({}, {}, 0)

    scene.play(act)
    assert len(ends) == 10_000
    assert {"1", "2", "hung up"} <= set(ends)
