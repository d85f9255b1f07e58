"""One request from a place in the queue to a prediction."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from detectors.base import Detector, Prediction
from detectors.errors import ImageError, InferenceError, NoEndpoint, OutOfTime
from miner.errors import InferenceFailed, UnreadableImage
from miner.queue import refused
from miner.scheduler import Scheduler, Ticket


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
        self.completed = 0  # pictures that got a prediction
        self._pool = ThreadPoolExecutor(scheduler.queue.slots, thread_name_prefix="inference")

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
        """
        await self.scheduler.turn(ticket)
        loop = asyncio.get_running_loop()
        job = self._pool.submit(self._predict, picture, ticket.deadline)
        # The slot is freed by the thread that used it: a caller who gives up does not stop the work.
        job.add_done_callback(lambda done: self._tell(loop, ticket, done))
        return await asyncio.wrap_future(job)

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
        return Answer(prediction, started, unpacked, time.monotonic())

    def _tell(self, loop: asyncio.AbstractEventLoop, ticket: Ticket, job: "Future[Answer]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the drain did not wait for this one
            loop.call_soon_threadsafe(self._done, ticket, job)

    def _done(self, ticket: Ticket, job: "Future[Answer]") -> None:
        self.scheduler.release(ticket)
        if not job.cancelled() and job.exception() is None:
            answer = job.result()
            self.completed += 1
            self.scheduler.queue.measured(answer.finished - answer.started)
