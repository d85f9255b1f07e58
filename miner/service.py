"""One request from a place in the queue to a prediction."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

from detectors.base import Detector, Prediction
from detectors.comparison import PICTURES, Seen
from detectors.errors import ImageError, InferenceError, NoEndpoint, OutOfTime
from miner.breaker import Breaker
from miner.errors import CouldNotStart, InferenceCrashed, InferenceFailed, RequestError, UnreadableImage
from miner.queue import refused
from miner.scheduler import Scheduler, Ticket

log = logging.getLogger(__name__)

KEPT_BYTES = 512 * 2**10  # of a picture: a validator's has 20 to 300 kB


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction, and when its thread began, had the body unpacked, and was done (on `time.monotonic`)."""

    prediction: Prediction
    started: float
    unpacked: float
    finished: float


class Service:
    """Runs the detector on a pool of as many threads as there are slots; never on the event loop."""

    def __init__(self, detector: Detector, scheduler: Scheduler) -> None:
        self.detector = detector  # replaced as a whole by a reload; running pictures finish on the old one
        self.scheduler = scheduler
        self.ended = 0  # pictures that a slot was given and gave back, whatever became of them
        self.breaker = Breaker()
        self.recent: deque[Seen] = deque(maxlen=PICTURES)  # to compare another model with this one
        self._pool = _started(scheduler.queue.slots)

    @property
    def obstacle(self) -> str | None:
        """Why no picture can be scored at the moment, or None."""
        return self.detector.obstacle

    async def answer(self, ticket: Ticket, picture: Callable[[], bytes]) -> Answer:
        """Wait for a slot and predict; `picture` unpacks the encoded photo, in the slot's thread.

        Raises:
            Refused: the place was lost, there is no time left, or no remote endpoint is there to ask.
            UnreadableImage: the bytes are not a picture.
            InferenceFailed: the model's output is not a probability.
            InferenceCrashed: it raised something.
        """
        await self.scheduler.turn(ticket)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        job = self._pool.submit(self._predict, picture, ticket.deadline)
        # The slot is freed by the thread that used it: a caller who gives up does not stop the work.
        job.add_done_callback(lambda done: self._tell(loop, ticket, done, answer))
        return await answer

    def replace(self, detector: Detector, pace: float) -> Detector:
        """Ask another detector from now on, which takes `pace` seconds for a picture; return the one before."""
        old, self.detector = self.detector, detector
        self.scheduler.queue.begin_anew(pace)
        self.recent.clear()
        self.breaker.succeeded()
        return old

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

    def _predict(self, picture: Callable[[], bytes], deadline: float) -> Answer:
        started = time.monotonic()
        try:
            data = picture()
            unpacked = time.monotonic()
            prediction = self.detector.predict(data, deadline)
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
            self.recent.append(Seen(data, prediction.probability))
        return Answer(prediction, started, unpacked, time.monotonic())

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        ticket: Ticket,
        job: "Future[Answer]",
        answer: "asyncio.Future[Answer]",
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the drain did not wait for this one
            loop.call_soon_threadsafe(self._done, ticket, job, answer)

    def _done(self, ticket: Ticket, job: "Future[Answer]", answer: "asyncio.Future[Answer]") -> None:
        self.scheduler.release(ticket)
        self.ended += 1
        if job.cancelled():
            answer.cancel()
        elif (error := job.exception()) is not None:
            self._fail(error, answer)
        else:
            self._succeed(job.result(), answer)

    def _succeed(self, result: Answer, answer: "asyncio.Future[Answer]") -> None:
        self.breaker.succeeded()
        self.scheduler.queue.measured(result.finished - result.started)
        if not answer.done():  # its caller is still there
            answer.set_result(result)

    def _fail(self, error: BaseException, answer: "asyncio.Future[Answer]") -> None:
        """Tell the caller; of whatever a library raises, even what would end a program, it gets a plain 500."""
        if not isinstance(error, RequestError):
            log.error("a picture's thread raised %s", type(error).__name__, exc_info=error)
            error = InferenceCrashed("the model failed")
        if isinstance(error, InferenceFailed | InferenceCrashed):
            self.breaker.failed(str(error))
        if not answer.done():
            answer.set_exception(error)


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
