"""Work on a thread of its own that, should it hang, keeps nobody from ending the process: for pictures of ours."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from detectors.errors import DetectorError, InferenceError

LAST_SECONDS = 10.0  # for work that runs when the process ends: it should not end under native code

T = TypeVar("T")


async def on_a_thread(work: Callable[[], T]) -> T:
    """Return what the work returns; no slot is taken.

    Raises:
        DetectorError: as the work raises it, or for whatever else ends it (which then stands in the log).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[DetectorError | None] = loop.create_future()
    results: list[T] = []

    def run() -> None:
        failure: DetectorError | None = InferenceError("the model crashed on a picture of ours")
        try:
            results.append(work())
            failure = None
        except DetectorError as error:
            failure = error
        finally:
            with contextlib.suppress(RuntimeError):  # the loop did not wait for us
                loop.call_soon_threadsafe(done.set_result, failure)

    try:
        threading.Thread(target=run, name="self-test", daemon=True).start()
    except RuntimeError as error:
        raise InferenceError(f"no thread for a picture of ours: {error}") from error
    try:
        await asyncio.wait({done})
    except asyncio.CancelledError:
        await asyncio.wait({done}, timeout=LAST_SECONDS)
        raise
    if (failure := done.result()) is not None:
        raise failure
    return results[0]
