"""What keeps a loaded model from being asked, and how that ends."""

import asyncio
import re
import threading
import time
from typing import cast

import pytest

from detectors.base import Detector
from detectors.errors import ModelError
from detectors.machine import Headroom
from miner.inference.background import is_at_work
from miner.inference.health import AGAIN_SECONDS, CHANGED_SECONDS, STUCK_SECONDS, TEST_SECONDS, Health, Pressure
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler
from miner.inference.service import FAILURES, FIRST_PAUSE, LAST_PAUSE, Service

HANG, ALLOWED = 30.0, 8.5


class FakeDetector:
    """Passes its self-test, or not."""

    obstacle = None
    elsewhere: object = None

    def __init__(self) -> None:
        self.fault = ""
        self.tests = 0
        self.seconds = 0.2
        self.paces: tuple[float, ...] = (0.1,)
        self.files: str | None = None  # what is wrong with them

    def prove(self) -> float:
        self.tests += 1
        if self.fault:
            raise ModelError(self.fault)
        return self.seconds

    def look(self) -> str | None:
        return self.files

    def close(self) -> None: ...


class Scene:
    """A service of some slots on a clock that the test turns."""

    def __init__(self, slots: int = 1) -> None:
        self.now = 1000.0
        self.detector = FakeDetector()
        self.scheduler = Scheduler(Queue(slots, 0.1, 8), lambda: self.now)
        self.service = Service(cast("Detector", self.detector), self.scheduler)
        self.service.breaker.clock = lambda: self.now
        self.gone: list[str] = []
        self.left = 1e12
        pressure = Pressure(lambda: Headroom(self.left, 2**30, "cgroup"))
        self.renewals = 0
        self.health = Health(
            self.service, HANG, ALLOWED, self.gone.append, None, pressure, lambda: self.now, changed=self.renew
        )

    def renew(self) -> None:
        self.renewals += 1

    def work(self) -> None:
        """Have a slot work on a picture."""
        queue = self.scheduler.queue
        place, _ = queue.admit(self.now, f"caller {len(queue.running)}", 1.0, self.now + 9)
        place.ready = True
        assert queue.step(self.now) == ([place], [])

    def after(self, seconds: float) -> "Scene":
        """Look some time later, and let a self-test end."""

        async def look() -> None:
            self.health.pressure.look()
            self.health.look()
            if self.health._test is not None:
                await self.health._test

        self.now += seconds
        asyncio.run(look())
        return self

    def close(self) -> None:
        self.service.close()


def test_a_hanging_picture_takes_its_slot_and_a_single_slot_is_all_there_is(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.work()
    assert scene.after(HANG - 1).health.obstacle is None
    assert re.fullmatch("every slot hangs: .* 30 s", scene.after(2).health.obstacle or "")
    assert scene.health.refusal == "not_ready"
    assert "one slot of 1 is lost" in caplog.text
    (place,) = scene.scheduler.queue.running
    scene.scheduler.queue.release(place)
    assert scene.after(1).health.obstacle is None
    assert "ended after 32 s" in caplog.text
    assert scene.after(STUCK_SECONDS + 1).gone == []
    scene.close()


def test_of_two_slots_the_other_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(slots=2)
    scene.work()
    scene.after(HANG + 1).after(STUCK_SECONDS + 1)
    assert caplog.text.count("one slot of 2 is lost") == 1
    assert scene.health.obstacle is None
    assert scene.health.refusal is None
    assert scene.gone == []
    scene.close()


def test_slots_that_all_hang_for_good_end_the_process_once() -> None:
    scene = Scene(slots=2)
    scene.work()
    scene.work()
    scene.after(HANG + 1)
    assert scene.after(STUCK_SECONDS - 1).gone == []
    (gone,) = scene.after(2).after(100).gone
    assert re.fullmatch("every slot hangs .* 40 s", gone)
    scene.close()


def test_a_model_that_fails_is_tested_and_asked_again_once_it_passes() -> None:
    scene = Scene()
    for _ in range(FAILURES):
        scene.service.breaker.failed("not finite")
    assert scene.health.refusal == "not_ready"
    assert scene.after(FIRST_PAUSE / 2).detector.tests == 0
    scene.detector.fault = "it answers 0.9"
    assert (scene.after(FIRST_PAUSE / 2).health.obstacle or "").endswith("self-test: it answers 0.9")
    scene.detector.fault = ""
    assert scene.after(2 * FIRST_PAUSE).health.obstacle is None
    assert scene.detector.tests == 2
    scene.close()


def test_a_self_test_that_hangs_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, hold = Scene(), threading.Event()
    monkeypatch.setattr(scene.detector, "prove", hold.wait)
    scene.health.hang = 0.05
    for _ in range(FAILURES):
        scene.service.breaker.failed("not finite")
    (gone,) = scene.after(FIRST_PAUSE).gone
    assert re.fullmatch("the known picture .* 0.05 s", gone)
    assert is_at_work()
    hold.set()
    scene.close()


@pytest.mark.parametrize("elsewhere", [None, "endpoints"])
def test_a_model_that_fails_its_self_test_for_minutes_ends_the_process_unless_it_runs_elsewhere(
    elsewhere: object,
) -> None:
    scene = Scene()
    scene.detector.fault, scene.detector.elsewhere = "not finite", elsewhere
    scene.service.breaker.tested("not finite")
    began = scene.now
    while not scene.gone and scene.detector.tests < 20:
        scene.after(FIRST_PAUSE)
    assert scene.now - began > LAST_PAUSE
    ends = ["the model fails its self-test again and again: not finite"]
    assert scene.gone == (ends if elsewhere is None else [])
    scene.close()


def test_a_model_too_slow_of_late_is_tried_again_by_itself() -> None:
    """Nobody is admitted then, so nothing else would ever show that it is quick again."""
    scene = Scene()
    scene.scheduler.queue.begin_anew(9.0)
    assert re.fullmatch(r"one picture takes 9\.0 s .* 8\.5", scene.health.obstacle or "")
    assert scene.after(TEST_SECONDS).health.obstacle is None
    assert scene.scheduler.queue.pace == 0.2
    scene.close()


def shut() -> Scene:
    """Return a cascade whose second stage has become too slow to be begun."""
    scene = Scene()
    scene.detector.paces = (0.1, 0.2)
    scene.scheduler.queue.begin_anew(0.1, 0.2)
    for _ in range(3):
        scene.scheduler.queue.measured(0.1, 50.0)
    return scene


@pytest.mark.parametrize(("proof", "paces"), [(0.3, [0.1, 0.2]), (29.0, [0.1, 50.0])])
def test_a_further_stage_that_is_never_begun_any_more_is_tried_now_and_then(proof: float, paces: list[float]) -> None:
    scene = shut()
    scene.detector.seconds = proof
    assert scene.health.obstacle is None  # the first stage answers in time
    assert scene.after(AGAIN_SECONDS - 1).detector.tests == 0
    assert scene.after(2).detector.tests == 1
    assert scene.scheduler.queue.paces == pytest.approx(paces)
    scene.close()


def test_a_further_stage_that_takes_for_ever_ends_no_process_and_is_not_tried_beside_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, hold, begun = shut(), threading.Event(), list[float]()

    def prove() -> float:
        begun.append(scene.now)
        hold.wait()
        return 0.3

    monkeypatch.setattr(scene.detector, "prove", prove)
    scene.health.hang = 0.05
    for _ in range(3):
        scene.after(AGAIN_SECONDS + 1)
    assert (len(begun), scene.gone, scene.health.obstacle) == (1, [], None)
    hold.set()
    while is_at_work():
        time.sleep(0.01)
    scene.after(AGAIN_SECONDS + 1)
    assert (len(begun), scene.scheduler.queue.paces) == (2, pytest.approx([0.1, 0.2]))
    scene.close()


def test_the_known_picture_has_the_time_of_a_picture_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = shut()
    monkeypatch.setattr(scene.detector, "prove", lambda: time.sleep(0.3) or 0.3)
    scene.health.hang = 0.2
    scene.after(AGAIN_SECONDS + 1)
    assert scene.scheduler.queue.paces == pytest.approx([0.1, 0.2])
    scene.close()


def test_a_stage_is_tried_though_a_dearer_one_never_had_the_time() -> None:
    scene = Scene()
    scene.detector.paces = (0.1, 0.2, ALLOWED)
    scene.detector.seconds = sum(scene.detector.paces)
    scene.scheduler.queue.begin_anew(*scene.detector.paces)
    for _ in range(3):
        scene.scheduler.queue.measured(0.1, 50.0)
    scene.after(AGAIN_SECONDS + 1)
    assert scene.scheduler.queue.paces == pytest.approx([0.1, 0.2, ALLOWED])
    scene.close()


def test_a_stage_that_never_had_the_time_is_not_tried() -> None:
    scene = Scene()
    scene.detector.paces = (0.1, ALLOWED)
    scene.scheduler.queue.begin_anew(*scene.detector.paces)
    assert scene.after(2 * AGAIN_SECONDS).detector.tests == 0
    scene.close()


def test_a_stage_that_is_worked_on_hangs_from_its_own_beginning() -> None:
    scene = Scene()
    scene.scheduler.queue.begin_anew(0.1, 0.2)
    scene.work()
    (place,) = scene.scheduler.queue.running
    place.deadline = place.members[0].deadline = scene.now + HANG + 9
    scene.now += HANG - 1
    assert scene.scheduler.queue.grants(scene.now, place, 1)
    assert scene.after(2).health.obstacle is None
    assert scene.after(HANG).health.obstacle is not None
    scene.close()


def test_nothing_is_tested_beside_a_validators_picture() -> None:
    scene = Scene(slots=2)
    scene.work()
    scene.scheduler.queue.begin_anew(9.0)
    assert scene.after(TEST_SECONDS).detector.tests == 0
    scene.close()


def test_short_memory_has_a_reason_of_its_own() -> None:
    scene = Scene()
    scene.left = 1e6
    scene.after(1)
    assert scene.health.refusal == "memory"
    assert "memory is short" in (scene.health.obstacle or "")
    scene.left = 1e9
    assert scene.after(1).health.refusal is None
    scene.close()


def test_a_model_whose_files_were_changed_is_asked_no_more_and_loaded_anew() -> None:
    scene = Scene()
    scene.detector.files = "changed"
    scene.health.look()
    assert (scene.health.obstacle, scene.health.refusal) == ("changed", "not_ready")
    assert scene.renewals == 0, "who writes is not done yet"
    for count, seconds in enumerate((CHANGED_SECONDS, AGAIN_SECONDS, AGAIN_SECONDS), start=1):
        scene.now += seconds - 1
        scene.health.look()
        assert scene.renewals == count - 1
        scene.now += 1
        scene.health.look()
        assert scene.renewals == count
    scene.service.breaker.failed("whatever")
    assert scene.detector.tests == 0, "the known picture would be read from those files"
    scene.detector.files = None
    scene.health.look()
    assert scene.health.obstacle is None
