"""The shadow: what it is given, and that it gives way."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace

import psutil
import pytest

from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler
from miner.metrics import Metrics
from miner.settings.settings import Settings, environment_of
from miner.shadow import worker
from miner.shadow.shadow import MAX_WAITING, ShadowCounts, ShadowJob, ShadowKeeper, ShadowModel, job_of
from miner.shadow.worker import NICE
from tests.models import photo
from tests.process.daemon import PATIENCE

STARTER = ShadowJob("ViT", "starter.yaml", "nowhere", "onnx", "fp32")
PICTURE = photo(224, 224)


class Scene:
    """A shadow with the starter, and a queue that is busy or not."""

    def __init__(self, job: ShadowJob = STARTER, sample: float = 1.0) -> None:
        self.busy = False
        self.seen: list[tuple[bytes, float, float]] = []
        self.shadow = ShadowModel(job, sample, lambda: self.busy, lambda *one: self.seen.append(one), Random(0))

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.01)

    def play(self, act: Callable[[], object]) -> None:
        """Run the shadow while `act`, a coroutine function, runs."""

        async def run() -> None:
            running = asyncio.create_task(self.shadow.run(environment_of(Settings())))
            try:
                await act()  # type: ignore[misc]
            finally:
                running.cancel()
                await asyncio.wait({running})
            await asyncio.sleep(0)  # in which what was cancelled ends
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a wait outlives the shadow"

        asyncio.run(run())

    @property
    def child(self) -> psutil.Process:
        assert self.shadow._child is not None
        return psutil.Process(self.shadow._child.pid)


def test_pictures_are_scored_and_compared_while_nobody_asks() -> None:
    scene = Scene()

    async def act() -> None:
        await scene.until(lambda: scene.shadow.name)
        scene.shadow.offer(0.9, PICTURE)
        await scene.until(lambda: len(scene.seen) == 1)
        ((picture, probability, seconds),) = scene.seen
        assert picture == PICTURE
        for prediction in (probability, 1 - probability):
            scene.shadow.offer(prediction, PICTURE)
        await scene.until(lambda: len(scene.seen) == 3)
        assert 0 < seconds < 60
        scene.shadow.offer(0.9, b"not a picture")
        await scene.until(lambda: scene.shadow.tally.failed == 1)
        assert scene.child.nice() >= NICE

    scene.play(act)
    tally = scene.shadow.tally
    assert tally.same + tally.different == 3
    assert {tally.same, tally.different} == {1, 2}
    assert tally.agreement == pytest.approx(tally.same / 3)


def test_nothing_is_begun_while_a_request_waits_and_it_is_held_when_one_comes() -> None:
    scene = Scene()

    async def act() -> None:
        await scene.until(lambda: scene.shadow.name)
        scene.busy = True
        for _ in range(3):
            scene.shadow.offer(0.9, PICTURE)
        await asyncio.sleep(0.3)
        assert not scene.seen
        scene.busy = False
        await scene.until(lambda: scene.shadow._works)
        scene.busy = True
        scene.shadow.hold()
        await scene.until(lambda: scene.child.status() == psutil.STATUS_STOPPED or len(scene.seen) == 3)
        before = len(scene.seen)
        await asyncio.sleep(0.3)
        assert len(scene.seen) - before <= 1  # what it had written down already
        scene.busy = False
        await scene.until(lambda: len(scene.seen) == 3)

    scene.play(act)


def test_a_process_that_is_held_ends_with_the_miner() -> None:
    scene = Scene()
    pids = []

    async def act() -> None:
        await scene.until(lambda: scene.shadow.name)
        pids.append(scene.child.pid)
        scene.child.send_signal(signal.SIGSTOP)

    scene.play(act)
    assert not psutil.pid_exists(pids[0])


def test_only_the_newest_wait_and_only_a_sample_is_taken() -> None:
    shadow = Scene(sample=0.25).shadow
    shadow.offer(0.1, PICTURE)
    assert not shadow._waiting  # it is not loaded yet
    shadow.name = "loaded"
    for number in range(4000):
        shadow.offer(number, b"x")
    kept = [int(prediction) for prediction, _ in shadow._waiting]
    assert len(kept) == MAX_WAITING
    assert 4000 - kept[0] == pytest.approx(MAX_WAITING / 0.25, rel=0.6)
    shadow.offer(4000, bytes(2**20 + 1))
    shadow.offer(4000, None)
    assert 4000 not in [prediction for prediction, _ in shadow._waiting]


def test_a_model_that_is_not_there_is_said_so_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other.yaml").write_text("model_folder: missing\n")
    scene = Scene(ShadowJob("ViT", str(tmp_path / "other.yaml"), str(tmp_path), "onnx", "fp32"))

    async def act() -> None:
        await scene.until(lambda: "does not run" in caplog.text)

    scene.play(act)
    assert "missing" in caplog.text
    assert scene.shadow.name is None


def test_the_settings_choose_it_and_the_queue_holds_it() -> None:
    metrics, queue = Metrics(), Queue(1, 0.1, 4)
    keeper, value = ShadowKeeper(queue, metrics), metrics.registry.get_sample_value
    scheduler = Scheduler(queue, admitted=keeper.hold)

    async def act() -> None:
        for settings in (Settings(), Settings(shadow_detector_config="starter.yaml", shadow_sample=0)):
            keeper.begin(settings)
            assert keeper.shadow is None
        keeper.begin(Settings(shadow_detector_config="starter.yaml"))
        shadow = keeper.shadow
        assert shadow is not None
        scheduler.open()
        scheduler.admit("caller", 1.0, time.monotonic() + 60)
        assert shadow._last_request > 0
        assert shadow._busy()
        shadow.tally.different = 3
        assert value("roadwork_miner_shadow_compared_total", {"side": "different"}) == 3
        assert value("roadwork_miner_shadow_up") == 0

        await keeper.renew(Settings(shadow_detector_config="other.yaml"))
        other = keeper.shadow
        assert other is not None
        assert (other.job.config, other.tally.different) == ("other.yaml", 0)
        other.tally.different = 1
        assert value("roadwork_miner_shadow_compared_total", {"side": "different"}) == 4  # a counter never goes back
        starter = Settings(image_detector_config="starter.yaml", shadow_detector_config="starter.yaml")
        await keeper.renew(starter)
        assert keeper.shadow is None, "it is the one that serves now"
        assert value("roadwork_miner_shadow_compared_total", {"side": "different"}) == 4
        await keeper.renew(starter.model_copy(update={"shadow_detector": "YOLOClassifier"}))
        assert keeper.shadow is not None
        await keeper.end()

    asyncio.run(act())
    job = job_of(Settings(shadow_detector_config="a.yaml", shadow_detector="YOLOClassifier"))
    assert job is not None
    assert (job.detector, job.config, job.backend, job.precision) == ("YOLOClassifier", "a.yaml", "onnx", "fp32")


def test_what_is_not_foreseen_is_told_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "miner.shadow.worker"], input=b"no job\n", capture_output=True, timeout=PATIENCE,
        check=True, env=environment_of(Settings()),
    )  # fmt: skip
    assert json.loads(done.stdout)["fault"].startswith("JSONDecodeError: ")


def test_a_process_that_may_not_be_nice_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(worker.os, "nice", refuse)
    monkeypatch.setattr(worker.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))  # this is no child
    monkeypatch.setattr(worker, "KILL_FIRST", Path("/proc/self/oom_score_adj").read_text())
    worker.give_way()


def test_predictions_are_counted_by_tenths_beside_those_of_the_model_that_serves() -> None:
    tally = ShadowCounts()
    for served, probability in ((0.95, 0.05), (0.91, 0.91), (0.05, 1.0)):
        tally.take(served, probability, 0.1)
    assert (tally.same, tally.different) == (1, 2)
    assert tally.tenths == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert tally.tenths_served == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
