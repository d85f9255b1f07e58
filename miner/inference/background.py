"""Background threads that may hang without keeping the process from ending: loading, photos of ours."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from detectors.errors import DetectorError, InferenceError
from miner.errors import StartError

log = logging.getLogger(__name__)

THREAD_NAME = "self-test"  # of the threads
LAST_SECONDS = 2.0  # for work that runs when the process ends: it should not end under native code

T = TypeVar("T")


class BackgroundTimeout(InferenceError):
    """The work did not end in time. Nothing can end it: its thread is left behind, and a core with it."""


async def on_a_thread(work: Callable[[], T], seconds: float | None = None, late: str = "no answer came") -> T:
    """Return what the work returns; no slot is taken.

    Args:
        work: what is done.
        seconds: for which it is waited.
        late: what is said when they are over, before "within 30 s".

    Raises:
        BackgroundTimeout: they are over.
        StartError: as the work raises it.
        DetectorError: as the work raises it, or for whatever else ends it (which then stands in the log).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[DetectorError | StartError | None] = loop.create_future()
    results: list[T] = []

    def run() -> None:
        failure: DetectorError | StartError | None = InferenceError("the model crashed on work of ours, see the log")
        try:
            results.append(work())
            failure = None
        except (DetectorError, StartError) as error:
            failure = error
        except BaseException as error:  # what would end a program must not end a thread without a word
            log.error("a background thread raised %s", type(error).__name__, exc_info=error)
        with contextlib.suppress(RuntimeError):  # the loop did not wait for us
            loop.call_soon_threadsafe(done.set_result, failure)

    try:
        threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    except RuntimeError as error:
        raise InferenceError(f"no thread for work of ours: {error}") from error
    try:
        await asyncio.wait({done}, timeout=seconds)
    except asyncio.CancelledError:
        await asyncio.wait({done}, timeout=LAST_SECONDS)
        raise
    if not done.done():
        raise BackgroundTimeout(f"{late} within {seconds:g} s")
    if (failure := done.result()) is not None:
        raise failure
    return results[0]


def begin_on_a_thread(work: Callable[[], T]) -> "Future[T]":
    """Begin work before there is a loop; return what will have its result or its error."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told, as of any other
            future.set_exception(error)

    threading.Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return future


def is_at_work() -> bool:
    """Return whether such a thread runs still, under which Python must not be taken down."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())
