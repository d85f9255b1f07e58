"""What becomes of a slot and of a caller, whatever a detector does in its thread."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from detectors.base import Budget, Detector, Prediction, StageEnd
from detectors.errors import DetectorError, ImageError, InferenceError, OutOfTime
from miner.errors import InferenceCrashed, InferenceFailed, Refused, RequestError, UnreadableImage
from miner.inference.memory import Budget as Memory
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler
from miner.inference.service import FAILURES, KEPT_BYTES, Answer, Picture, Service

GOOD = Prediction(0.75, 0.0, 0.0, 0.0)


class FakeDetector:
    """Does to each picture what the test says."""

    obstacle = elsewhere = None

    def __init__(self, act: Callable[[bytes], Prediction]) -> None:
        self.act = act

    def predict(self, data: bytes, deadline: float | None = None, budget: Budget | None = None) -> Prediction:
        return self.act(data)

    def close(self) -> None: ...


def play(
    act: Callable[[bytes], Prediction], *pictures: bytes, further: Sequence[float] = ()
) -> tuple[Service, list[Answer | BaseException]]:
    """Ask for each picture, one after the other, through one slot."""

    async def run() -> tuple[Service, list[Answer | BaseException]]:
        scheduler, budget = Scheduler(Queue(1, 0.01, further=further)), Memory()
        service = Service(cast("Detector", FakeDetector(act)), scheduler)
        scheduler.open()
        ends: list[Answer | BaseException] = []
        for picture in pictures:
            ticket = scheduler.admit("caller", 1.0, scheduler.clock() + 60)
            claim = budget.claim(ticket.rank)
            (end,) = await asyncio.gather(service.answer(ticket, Picture(picture), claim), return_exceptions=True)
            ends.append(end)
            assert (scheduler.running, scheduler._tickets, service._works, budget.held) == (0, {}, {}, 0)
        service.close()
        return service, ends

    return asyncio.run(run())


def raises(error: BaseException) -> Callable[[bytes], Prediction]:
    def act(data: bytes) -> Prediction:
        if data == b"bad":
            raise error
        return GOOD

    return act


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("onnxruntime's"),
        MemoryError(),
        SystemExit(1),
        KeyboardInterrupt(),
        StopIteration(),
        RecursionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_detector_raises_frees_the_slot_and_is_a_plain_500(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    service, (bad, good) = play(raises(error), b"bad", b"good")
    assert isinstance(bad, InferenceCrashed)
    assert str(bad) == "the model failed"
    assert isinstance(good, Answer)
    assert service.ended == 2
    (entry,) = (entry for entry in caplog.records if entry.levelno == logging.ERROR)
    assert entry.exc_info


@pytest.mark.parametrize(
    ("error", "kind"), [(ImageError("x"), UnreadableImage), (InferenceError("y"), InferenceFailed)]
)
def test_what_is_expected_keeps_its_name(error: DetectorError, kind: type[RequestError]) -> None:
    service, (bad, good) = play(raises(error), b"bad", b"good")
    assert isinstance(bad, kind)
    assert isinstance(good, Answer)
    assert service.ended == 2  # a picture that can't be opened is a life sign too


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.1, 1.1])
def test_no_answer_leaves_that_is_not_a_probability(probability: float) -> None:
    _, (end,) = play(lambda _: Prediction(probability, 0.0, 0.0, 0.0), b"picture")
    assert isinstance(end, InferenceFailed)


def test_failures_of_the_model_in_a_row_are_an_obstacle_bad_pictures_are_none() -> None:
    assert play(raises(InferenceError("not finite")), *[b"bad"] * FAILURES)[0].breaker.obstacle is not None
    assert play(raises(RuntimeError("crash")), *[b"bad"] * FAILURES)[0].breaker.obstacle is not None
    assert play(raises(ImageError("no picture")), *[b"bad"] * FAILURES)[0].breaker.obstacle is None


def test_the_last_pictures_are_kept_for_a_comparison_but_not_large_ones() -> None:
    service, _ = play(lambda _: GOOD, *[b"%d" % number for number in range(20)], b"x" * (KEPT_BYTES + 1))
    assert [seen.data for seen in service.recent] == [b"%d" % number for number in range(12, 20)]
    assert {seen.probability for seen in service.recent} == {0.75}


@pytest.mark.parametrize(("seconds", "least"), [(0.05, 0.011), (0.0, 0.01)])
def test_a_picture_that_time_cut_short_takes_no_less_than_it_did(seconds: float, least: float) -> None:
    def act(data: bytes) -> Prediction:
        time.sleep(seconds)
        raise OutOfTime("after 3 of 7 views")

    service, _ = play(act, b"picture")
    assert service.scheduler.queue.pace >= least


def test_a_picture_of_the_model_before_says_nothing_of_the_pace_when_time_cuts_it_short() -> None:
    services: list[Service] = []

    def act(data: bytes) -> Prediction:
        services[0].replace(cast("Detector", FakeDetector(lambda _: GOOD)), 0.01)
        time.sleep(0.05)
        raise OutOfTime("after 3 of 7 views")

    async def run() -> None:
        scheduler, budget = Scheduler(Queue(1, 2.0)), Memory()
        services.append(Service(cast("Detector", FakeDetector(act)), scheduler))
        scheduler.open()
        ticket = scheduler.admit("caller", 1.0, scheduler.clock() + 60)
        with pytest.raises(Refused):
            await services[0].answer(ticket, Picture(b"picture"), budget.claim(ticket.rank))
        assert scheduler.queue.pace == 0.01
        services[0].close()

    asyncio.run(run())


@pytest.mark.parametrize(("seconds", "is_slower"), [(0.9, True), (0.1, False)])
def test_so_does_a_stage_of_it(seconds: float, is_slower: bool) -> None:
    end = StageEnd(1, ("small", "large"), "budget")
    cut = Prediction(0.75, 0.0, 0.0, 0.0, (0.01, seconds), end)
    service, _ = play(lambda _: cut, b"a", b"b", b"c", further=(0.2,))
    assert service.scheduler.queue.paces == [pytest.approx(0.01), 0.9 if is_slower else 0.2]


def test_another_model_begins_anew() -> None:
    service, _ = play(raises(InferenceError("not finite")), b"good", *[b"bad"] * FAILURES)
    old, new = service.detector, cast("Detector", FakeDetector(lambda _: GOOD))
    assert service.replace(new, 0.2) is old
    assert service.detector is new
    assert service.scheduler.queue.pace == 0.2
    assert service.breaker.obstacle is None
    assert not service.recent


def test_a_pool_runs_before_it_is_asked() -> None:
    before = set(threading.enumerate())  # some may end meanwhile
    service = Service(cast("Detector", FakeDetector(lambda _: GOOD)), Scheduler(Queue(3, 0.1)))
    assert len(set(threading.enumerate()) - before) == 3
    service.close()
