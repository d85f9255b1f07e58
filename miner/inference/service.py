"""The inference service, from a place in the queue to a prediction.

Equal photos are scored once; a model that fails is left alone awhile.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Barrier

from detectors.base import Budget, Detector, Prediction
from detectors.errors import ImageError, InferenceError, NoEndpoint, OutOfTime
from detectors.evaluation.evaluate import COMPARED_PICTURES, AnsweredPicture
from miner.errors import (
    CouldNotStart,
    InferenceCrashed,
    InferenceFailed,
    Refused,
    RequestError,
    UnreadableImage,
    refused,
)
from miner.inference.memory import Claim
from miner.inference.plan import planned_paces
from miner.inference.queue import Place
from miner.inference.scheduler import Scheduler, Ticket
from miner.settings.validators import StageMode

log = logging.getLogger(__name__)

FAILURES = 5  # in a row; a single picture that a model has no number for is no reason to refuse the others
FIRST_PAUSE, LAST_PAUSE = 5.0, 300.0  # seconds before a test

KEPT_BYTES = 512 * 2**10  # of a picture: a validator's has 20 to 300 kB
GRANT_SECONDS = 0.5  # for which a picture waits for the event loop's word on its next stage


class Breaker:
    """The circuit breaker: after failures in a row no request reaches the model until it answers the known picture.

    It is told of every answer, and lives on one event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.obstacle: str | None = None
        self.is_hopeless = False  # whether a test failed after the longest pause: minutes after the first
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._test_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is open and the model should be tested."""
        return self.obstacle is not None and self.clock() >= self._test_at

    def succeeded(self) -> None:
        """Take a good answer in."""
        self.obstacle, self._failures, self._pause, self.is_hopeless = None, 0, FIRST_PAUSE, False

    def failed(self, message: str) -> None:
        """Take a failure in."""
        self._failures += 1
        if self._failures >= FAILURES and self.obstacle is None:
            self._open(f"the model failed {self._failures} times in a row: {message}")

    def tested(self, fault: str | None) -> None:
        """Take the outcome of a test in: what is wrong, or None."""
        if fault is None:
            self.obstacle, self._failures, self.is_hopeless = None, FAILURES - 1, False
        else:
            self.is_hopeless = self._pause >= LAST_PAUSE
            self._open(f"the model fails its self-test: {fault}")

    def _open(self, reason: str) -> None:
        self.obstacle = reason
        self._test_at = self.clock() + self._pause
        self._pause = min(LAST_PAUSE, 2 * self._pause)


@dataclass(slots=True)
class Picture:
    """An encoded photo, and the bytes that decoding it takes."""

    data: bytes
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction, when its thread began and was done (on `time.monotonic`), and whether another asked for it."""

    prediction: Prediction
    started: float
    finished: float
    shared: bool = False


@dataclass(eq=False, slots=True)
class _Waiter:
    ticket: Ticket
    answer: "asyncio.Future[Answer]"


@dataclass(eq=False, slots=True)
class _Work:
    """One picture, and who waits for its score: twins have joined the first."""

    picture: Picture
    claim: Claim
    place: Place
    waiters: list[_Waiter] = field(default_factory=list)
    running: bool = False


class Service:
    """Runs the detector on a pool of as many threads as there are slots; never on the event loop."""

    def __init__(self, detector: Detector, scheduler: Scheduler, mode: StageMode = "adaptive") -> None:
        self.detector = detector  # replaced as a whole by a reload; running pictures finish on the old one
        self.scheduler = scheduler
        self.mode = mode
        self.ended = 0  # pictures that a slot was given and gave back, whatever became of them
        self.breaker = Breaker()
        self.recent: deque[AnsweredPicture] = deque(maxlen=COMPARED_PICTURES)  # to compare another model with this one
        self._works: dict[bytes, _Work] = {}  # by the picture's bytes: those that wait or run
        self._pool = _started(scheduler.queue.slots)

    @property
    def obstacle(self) -> str | None:
        """Why no picture can be scored at the moment, or None."""
        return self.detector.obstacle

    async def answer(self, ticket: Ticket, picture: Picture, claim: Claim) -> Answer:
        """Wait for a slot and predict, or for the answer to an equal picture that waits or runs already.

        A validator sends a round's picture to all miners at once, and to one of them several times where miners are
        few. `picture.data` is the twin's afterwards, and the claim is given back.

        Raises:
            Refused: the place or the memory was lost, there is no time left, or no remote endpoint is there to ask.
            UnreadableImage: the bytes are not a picture.
            InferenceFailed: the model's output is not a probability.
            InferenceCrashed: it raised something.
        """
        waiter = _Waiter(ticket, asyncio.get_running_loop().create_future())
        work = self._works.get(picture.data)
        if work is not None and not self.scheduler.is_in_time(ticket, work.place):
            work = None  # a further stage makes that one too late for this one; another slot may be free
        try:
            if work is None:
                work = _Work(picture, claim, ticket.place)
                self._wait(work, waiter)
                self._works[picture.data] = work
                claim.lose = partial(self._refuse_all, work)
                self.scheduler.line_up(ticket, partial(self._start, work))
            else:
                picture.data = work.picture.data
                claim.shrink()
                self._wait(work, waiter)
                self.scheduler.join(ticket, work.place)
                work.claim.rank = work.place.rank
            return await waiter.answer
        finally:
            self.scheduler.leave(ticket)
            if work is not None:
                self._leave(work, waiter)
            else:
                claim.shrink()

    def replace(self, detector: Detector, *paces: float) -> Detector:
        """Ask another detector from now on, whose stages take so many seconds each; return the one before."""
        old, self.detector = self.detector, detector
        self.scheduler.queue.begin_anew(*planned_paces(self.mode, paces))
        self.recent.clear()
        self.breaker.succeeded()
        return old

    def proved(self, seconds: float) -> None:
        """Take the seconds that the known picture took, with all stages, for the pace."""
        self.scheduler.queue.begin_anew(*planned_paces(self.mode, self.shares(seconds)))

    def shares(self, seconds: float) -> list[float]:
        """Return how much of these seconds each stage takes, by its share when the model was loaded."""
        paces = self.detector.paces
        return [seconds * (one / sum(paces)) for one in paces]

    async def drain(self, seconds: float) -> bool:
        """Wait until nothing waits or runs; return whether that came in time."""
        deadline = time.monotonic() + seconds
        while self.scheduler.waiting or self.scheduler.running:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.detector.close()

    def _wait(self, work: _Work, waiter: _Waiter) -> None:
        work.waiters.append(waiter)
        waiter.ticket.tell = partial(self._tell_refusal, work, waiter)

    def _tell_refusal(self, work: _Work, waiter: _Waiter, why: Refused) -> None:
        if not waiter.answer.done():
            waiter.answer.set_exception(why)
        self._leave(work, waiter)

    def _leave(self, work: _Work, waiter: _Waiter) -> None:
        """Forget who waits no longer, and work that nobody waits for, unless it runs."""
        if waiter in work.waiters:
            work.waiters.remove(waiter)
        if not work.waiters and not work.running:
            self._forget(work)

    def _forget(self, work: _Work) -> None:
        if self._works.get(work.picture.data) is work:
            del self._works[work.picture.data]
        work.claim.lose = None
        work.claim.shrink()

    def _refuse_all(self, work: _Work, why: Refused) -> None:
        for waiter in list(work.waiters):
            self.scheduler.refuse(waiter.ticket, why)

    def _start(self, work: _Work) -> None:
        """Have a picture scored that has got its slot, if there is the memory to decode it."""
        waiting = [waiter for waiter in work.waiters if not waiter.answer.done()]
        work.claim.lose = None
        try:
            if not waiting:  # they were cancelled and are about to leave
                raise refused("late")
            work.claim.grow(work.picture.memory)
        except Refused as why:
            self._end(work, why)
            self.scheduler.release(work.place)
            return
        work.running = True
        deadline = max(waiter.ticket.deadline for waiter in waiting)
        loop, detector = asyncio.get_running_loop(), self.detector
        budget: Budget | None = None
        if self.mode == "cheapest":
            budget = _never
        elif len(self.scheduler.queue.stages) > 1:
            budget = partial(self._may_begin, loop, work, detector)
        job = self._pool.submit(self._predict, detector, work.picture.data, deadline, budget)
        # The slot is freed by the thread that used it: a caller who gives up does not stop the work.
        job.add_done_callback(partial(self._tell, loop, work, detector))

    def _may_begin(self, loop: asyncio.AbstractEventLoop, work: _Work, detector: Detector, stage: int) -> bool:
        """Ask the queue on its loop, from the picture's thread; a loop that has no time, or is gone, means no."""
        granted: Future[bool] = Future()

        def decide() -> None:
            if granted.set_running_or_notify_cancel():
                # Another model's paces say nothing of this one's stages.
                granted.set_result(detector is self.detector and self.scheduler.grants(work.place, stage))

        try:
            loop.call_soon_threadsafe(decide)
            return granted.result(GRANT_SECONDS)
        except RuntimeError:
            return False
        except TimeoutError:
            return not granted.cancel() and granted.result(GRANT_SECONDS)  # it may come at this very moment

    def _predict(self, detector: Detector, data: bytes, deadline: float, budget: Budget | None) -> Answer:
        started = time.monotonic()
        try:
            prediction = detector.predict(data, deadline, budget)
        except ImageError as error:
            raise UnreadableImage(str(error)) from error
        except InferenceError as error:
            raise InferenceFailed(str(error)) from error
        except NoEndpoint as error:
            raise refused("no_endpoint") from error
        except OutOfTime as error:
            raise refused("late") from error
        if not 0 <= prediction.probability <= 1:  # the last guard: a NaN is neither
            raise InferenceFailed("the detector's answer is not a probability")
        if len(data) <= KEPT_BYTES:
            self.recent.append(AnsweredPicture(data, prediction.probability))
        return Answer(prediction, started, time.monotonic())

    def _tell(self, loop: asyncio.AbstractEventLoop, work: _Work, detector: Detector, job: "Future[Answer]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the drain did not wait for this one
            loop.call_soon_threadsafe(self._done, work, detector, job)

    def _done(self, work: _Work, detector: Detector, job: "Future[Answer]") -> None:
        place, work.running = work.place, False
        self.ended += 1
        if job.cancelled():
            for waiter in work.waiters:
                waiter.answer.cancel()
            self._forget(work)
        elif (error := job.exception()) is None:
            if detector is self.detector:  # what another model took tells nothing of this one
                self._measure(job.result())
            self._succeed(work, job.result())
        else:
            self._fail(work, detector, error)
        self.scheduler.release(place)

    def _succeed(self, work: _Work, answer: Answer) -> None:
        self.breaker.succeeded()
        self._forget(work)
        shared = False
        for waiter in work.waiters:
            if not waiter.answer.done():  # its caller is still there
                waiter.answer.set_result(Answer(answer.prediction, answer.started, answer.finished, shared))
                shared = True

    def _measure(self, answer: Answer) -> None:
        """Have the queue know what a picture took in its slot; of a stage that time cut short, only if that is more."""
        queue, prediction = self.scheduler.queue, answer.prediction
        if len(queue.stages) == 1:
            queue.measured(answer.finished - answer.started)
            return
        stages, end = prediction.stages, prediction.end
        is_cut = end is not None and len(stages) > end.number
        queue.measured(*(stages[:-1] if is_cut and stages[-1] <= queue.paces[len(stages) - 1] else stages))

    def _measure_at_least(self, seconds: float) -> None:
        """Have the queue know of a picture that time cut short, in the midst of its views: it takes no less than that.

        Else one too slow for every deadline would be let in for ever.
        """
        if seconds > self.scheduler.queue.pace:
            self.scheduler.queue.measured(seconds)

    def _fail(self, work: _Work, detector: Detector, error: BaseException) -> None:
        """Tell the caller; of whatever a library raises, even what would end a program, it gets a plain 500."""
        if not isinstance(error, RequestError):
            log.error("an inference thread raised %s", type(error).__name__, exc_info=error)
            error = InferenceCrashed("the model failed")
        if isinstance(error, InferenceFailed | InferenceCrashed):
            self.breaker.failed(str(error))
        elif isinstance(error, Refused) and detector is self.detector and detector.elsewhere is None:
            self._measure_at_least(time.monotonic() - work.place.started)
        waiting = [waiter for waiter in work.waiters if not waiter.answer.done()]
        if isinstance(error, UnreadableImage) or len(waiting) < 2:
            self._end(work, error)
            return
        # One request has failed: its twins have a try of their own, as they would have had without it.
        first, *others = waiting
        first.answer.set_exception(error)
        work.waiters = others
        work.claim.shrink(len(work.picture.data))
        work.claim.lose = partial(self._refuse_all, work)
        work.place = self.scheduler.put_back([one.ticket for one in others], partial(self._start, work))

    def _end(self, work: _Work, error: RequestError) -> None:
        self._forget(work)
        for waiter in work.waiters:
            if not waiter.answer.done():
                waiter.answer.set_exception(error)


def _never(stage: int) -> bool:
    """Begin no further stage."""
    return False


def _started(threads: int) -> ThreadPoolExecutor:
    """Return a pool whose threads run already.

    Raises:
        CouldNotStart: there can't be so many.
    """
    pool, barrier = ThreadPoolExecutor(threads, thread_name_prefix="inference"), Barrier(threads)
    try:
        for _ in range(threads):
            pool.submit(barrier.wait)
    except RuntimeError as error:
        barrier.abort()
        raise CouldNotStart(f"INFERENCE_SLOTS={threads}: {error}") from error
    return pool
