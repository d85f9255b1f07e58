"""The sender of requests: each at its time, whatever became of those before; pictures are prepared ahead."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from miner.axon.client import Client, Reply

PREPARED_PICTURES = 32  # pictures ready before they are due, at least

Outcome = Literal["answered", "late", "refused", "unreachable", "failed"]


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """When a request goes out, and who sends it.

    Attributes:
        at: seconds on a clock that may run faster than ours.
        delay: real seconds after that.
    """

    number: int
    at: float
    delay: float
    validator: int


@dataclass(frozen=True, slots=True)
class SentAnswer:
    """What a validator makes of one request; `behind`: seconds that it went out later than planned."""

    number: int
    outcome: Outcome
    prediction: float | None
    seconds: float
    status: int
    message: str
    behind: float = 0.0


def judged(number: int, reply: Reply, behind: float = 0.0) -> SentAnswer:
    """Sort a reply: only a finite number in [0, 1] in time is an answer."""
    outcome: Outcome = "failed"
    value, prediction = reply.prediction, None
    if reply.timed_out:
        outcome = "late"
    elif reply.status == 0:
        outcome = "unreachable"
    elif reply.status == 503:
        outcome = "refused"
    elif reply.status == 200 and isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1:
        outcome, prediction = "answered", float(value)
    return SentAnswer(number, outcome, prediction, reply.seconds, reply.status, reply.message, behind)


async def send_all(
    sendings: Sequence[ScheduledRequest],
    picture: Callable[[int], bytes | None],
    clients: Sequence[Client],
    speed: float,
    stop: asyncio.Event,
    ended: Callable[[SentAnswer], None],
    ahead: int = PREPARED_PICTURES,
) -> None:
    """Send everything in order of time, until told to stop; what is on its way then is waited for.

    `picture` makes the encoded photo of a number ready, on a thread, `ahead` of them before the first is due; None: it
    is gone, and nothing is sent. `ended` is told of each answer as it comes.
    """
    loop = asyncio.get_running_loop()
    todo = iter(sorted(sendings, key=lambda one: one.at / speed + one.delay))
    with ThreadPoolExecutor(1, thread_name_prefix="pictures") as pool:

        def made(count: int) -> list[tuple[ScheduledRequest, asyncio.Future[bytes | None]]]:
            return [(one, loop.run_in_executor(pool, picture, one.number)) for one in islice(todo, count)]

        async def ask(sending: ScheduledRequest, data: bytes, behind: float) -> None:
            ended(judged(sending.number, await clients[sending.validator].ask(data), behind))

        ready = deque(made(ahead))
        stopping = asyncio.create_task(stop.wait())
        try:
            async with asyncio.TaskGroup() as group:
                if ready:
                    await asyncio.wait({encoded for _, encoded in ready})  # then the clock starts
                started = time.monotonic()
                while ready and not stop.is_set():
                    sending, encoded = ready.popleft()
                    ready.extend(made(1))
                    if (data := await encoded) is None:
                        continue
                    due = started + sending.at / speed + sending.delay
                    await asyncio.wait({stopping}, timeout=max(0.0, due - time.monotonic()))
                    if not stop.is_set():
                        group.create_task(ask(sending, data, time.monotonic() - due))
        finally:
            stopping.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
