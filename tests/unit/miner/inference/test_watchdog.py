"""When a beat goes out, and when it does not."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import cast

import pytest

from detectors.base import Detector
from detectors.errors import DetectorError, InferenceError, ModelError, NoEndpoint
from miner import systemd
from miner.inference.queue import Place, Queue, QueuedRequest, Rank
from miner.inference.scheduler import Scheduler
from miner.inference.service import FAILURES, Service
from miner.inference.watchdog import StateReporter, beat, end

ALLOWED = 0.1  # seconds
A_WHILE = 10 * ALLOWED  # long enough for beats that should not be
PATIENCE = 60.0


class FakeDetector:
    """Answers, fails or hangs."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: DetectorError | None = None
        self.released = threading.Event()
        self.released.set()

    def close(self) -> None:
        pass

    def prove(self) -> float:
        self.asked += 1
        self.released.wait()
        if self.failure is not None:
            raise self.failure
        return 0.1


class Scene:
    """A service, the beats of it, and what happens meanwhile."""

    def __init__(self) -> None:
        self.detector = FakeDetector()
        self.service = Service(cast("Detector", self.detector), Scheduler(Queue(1, 0.1, 1)))
        self.beats: list[str] = []

    def play(self, action: Callable[["Scene"], object] = lambda scene: None, *, silent: bool = False) -> "Scene":
        """Run until there are two beats; `silent`: for a while."""

        async def run() -> None:
            task = asyncio.create_task(beat(self.service, ALLOWED, self.beats.append))
            action(self)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(A_WHILE if silent else PATIENCE):
                    while silent or len(self.beats) < 2:  # noqa: ASYNC110
                        await asyncio.sleep(ALLOWED / 10)
            self.heard = len(self.beats)
            self.detector.released.set()
            await end(task)

        asyncio.run(run())
        self.service.close()
        return self


def test_a_quiet_miner_proves_itself_with_the_known_picture() -> None:
    scene = Scene().play()
    assert set(scene.beats) == {"WATCHDOG=1"}
    assert scene.detector.asked >= scene.heard > 1


def test_a_validators_picture_is_proof_enough() -> None:
    def answered(scene: Scene) -> None:
        scene.service.ended += 1
        asyncio.get_running_loop().call_later(ALLOWED / 10, answered, scene)

    scene = Scene().play(answered)
    assert scene.heard > 1
    assert scene.detector.asked == 0


def test_a_slot_at_work_is_left_alone_and_is_no_proof_before_it_is_done() -> None:
    def occupied(scene: Scene) -> None:
        scene.service.scheduler.queue.running.append(Place([QueuedRequest("somebody", Rank(0, -1.0, 0), 1.0)], 0))

    scene = Scene().play(occupied, silent=True)
    assert scene.heard == 0
    assert scene.detector.asked == 0


def test_no_beat_while_the_self_inference_hangs() -> None:
    scene = Scene().play(lambda scene: scene.detector.released.clear(), silent=True)
    assert scene.heard == 0
    assert scene.detector.asked == 1  # not another one on top


@pytest.mark.parametrize("failure", [InferenceError("not a probability"), ModelError("it answers 0.9")])
def test_a_model_that_fails_on_the_known_picture_is_alive_and_asked_no_more(failure: DetectorError) -> None:
    def broken(scene: Scene) -> None:
        scene.detector.failure = failure

    scene = Scene().play(broken)
    assert scene.heard > 1
    assert (scene.service.breaker.obstacle or "").endswith(f"self-test: {failure}")
    assert scene.detector.asked == 1  # further tests are those of the health


def test_a_model_that_is_asked_no_more_and_tested_again_is_alive() -> None:
    def broken(scene: Scene) -> None:
        scene.detector.failure = InferenceError("not a probability")
        for _ in range(FAILURES):
            scene.service.breaker.failed("not a probability")

    scene = Scene().play(broken)
    assert scene.heard > 1
    assert scene.detector.asked == 0  # the self-tests are those of the health


def test_an_engine_elsewhere_that_is_away_is_no_reason_to_restart_this_process() -> None:
    def away(scene: Scene) -> None:
        scene.detector.failure = NoEndpoint("0 of 2 endpoints")

    assert Scene().play(away).heard > 1


def test_who_waits_for_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    for microseconds, seconds in (("", None), ("0", None), ("nonsense", None), ("60000000", 60.0)):
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
        assert systemd.watchdog_seconds() == seconds
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_seconds() == 60.0
    monkeypatch.setenv("WATCHDOG_PID", "1")  # meant for the parent
    assert systemd.watchdog_seconds() is None


def test_each_change_of_state_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "miner.inference.watchdog")
    told: list[str] = []
    reason: list[str | None] = ["starting"]
    states = StateReporter(lambda: reason[0], told.append)

    def look_at(text: str | None) -> None:
        reason[0] = text
        states._look()
        states._look()

    look_at("starting")
    look_at("loading\nthe model")
    reason[0] = None
    states.started(lambda: "port 8091")
    look_at(None)
    look_at("the snapshot is 24.1 h old")
    look_at("the snapshot is 24.2 h old")
    look_at("memory is short: 20 MiB are left")
    look_at(None)
    reason[0] = "shutting down"
    states.stopping()
    look_at("shutting down")

    assert told == [
        "STATUS=starting",
        "STATUS=loading the model",
        "READY=1\nSTATUS=ready: port 8091",
        "STATUS=not ready (the snapshot is 24.1 h old): port 8091",
        "STATUS=not ready (the snapshot is 24.2 h old): port 8091",
        "STATUS=not ready (memory is short: 20 MiB are left): port 8091",
        "STATUS=ready: port 8091",
        "STOPPING=1\nSTATUS=shutting down",
    ]
    assert [entry.getMessage() for entry in caplog.records] == [
        "ready: port 8091",
        "not ready (the snapshot is 24.1 h old): port 8091",
        "not ready (memory is short: 20 MiB are left): port 8091",
        "ready: port 8091",
    ]
