"""The findings of the check-up: a line for each thing looked at, under a time limit, and one sentence at the end."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from detectors.redact import shown_within

Level = Literal["ok", "warning", "problem"]

T = TypeVar("T")
REPORT_HINT = "roadwork-miner report bundles what a maintainer needs to mend it"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it is not ok."""

    name: str
    level: Level
    words: str
    todo: str = ""


def ok(name: str, words: str) -> Finding:
    """It is as it should be."""
    return Finding(name, "ok", words)


def warning(name: str, words: str, todo: str = "") -> Finding:
    """It works so far, or could not be looked at."""
    return Finding(name, "warning", words, todo)


def problem(name: str, words: str, todo: str) -> Finding:
    """With this, nothing is earned."""
    return Finding(name, "problem", words, todo)


def verdict(findings: Sequence[Finding], *, running: bool, standalone: bool) -> str:
    """Return the one sentence: ready to earn, or the first reason why not."""
    first = next((finding for finding in findings if finding.level == "problem"), None)
    if first is not None:
        return f"not ready to earn: {first.name}: {first.words}"
    if standalone:
        return "ready, and earning nothing: SUBTENSOR_NETWORK=standalone contacts no chain"
    if not running:
        return "ready to earn as soon as the miner runs: roadwork-miner run"
    return "ready to earn"


async def in_time(
    read: Callable[[], T],
    seconds: float,
    otherwise: Callable[[str], T],
    if_late: Callable[[str], T] | None = None,
) -> T:
    """Read.

    Args:
        read: what may take long or break.
        seconds: after which it is left behind.
        otherwise: makes a result of the words that say why there is none.
        if_late: the same for one that is only late; None: `otherwise`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T) -> None:
        if not future.done():
            future.set_result(result)

    def run() -> None:
        try:
            result = read()
        except Exception as error:  # noqa: BLE001 - one step that breaks is a line, and the others are looked at
            result = otherwise(unseen(error))
        with contextlib.suppress(RuntimeError):  # the loop did not wait for us
            loop.call_soon_threadsafe(deliver, result)

    threading.Thread(target=run, name="look", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        return (if_late or otherwise)(late(seconds))


async def asked_in_time(ask: Callable[[], Awaitable[T]], seconds: float, otherwise: Callable[[str], T]) -> T:
    """As `in_time`, for what needs an event loop: it gets one of its own."""
    return await in_time(lambda: _on_a_loop(ask), seconds, otherwise)


def _on_a_loop(ask: Callable[[], Awaitable[T]]) -> T:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(ask())
    finally:
        loop.close()  # `asyncio.run` would first wait for the threads that look names up


def judged(name: str, judge: Callable[[], Finding]) -> Finding:
    """Return the judgement, or a problem in its place if it can't be made."""
    try:
        return judge()
    except Exception as error:  # noqa: BLE001 - as above
        return problem(name, unseen(error), REPORT_HINT)


def unseen(error: Exception) -> str:
    """Say that something unexpected came between."""
    text = " ".join(shown_within(str(error)).split())
    return f"can't be looked at: {type(error).__name__}{f': {text}' if text else ''}"


def late(seconds: float) -> str:
    """Say that nothing came."""
    return f"no answer within {seconds:g} s"
