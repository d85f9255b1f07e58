"""The life signs of a running miner: beats for systemd's watchdog, and a line for each change of state.

A beat is sent only when the event loop turns *and* a slot has ended a picture since the last beat. Validators' pictures
are that proof while they come, even those that can't be opened; a quiet miner proves itself with the known picture, on
a thread of its own, so that no slot is taken. While a slot is at work nothing is added to it: either it finishes, or it
hangs and no beat goes out until systemd restarts the process. A model that has failed so often that nothing is asked of
it is no reason to restart either: it is tested again and again, and a test that hangs ends the process (`health`).
"""

import asyncio
import logging
import re
from collections.abc import Callable
from functools import cache

from detectors.errors import DetectorError, EngineError
from detectors.pictures import known_picture
from miner import systemd
from miner.selftest import on_a_thread
from miner.service import Service

log = logging.getLogger(__name__)

BEATS = 2  # in the time the watchdog allows: one may be late
LOOKS = 20  # for a proof, between two beats
STATE_SECONDS = 1.0  # between two looks at the state

_picture = cache(known_picture)


async def beat(service: Service, allowed: float, tell: Callable[[str], None] = systemd.notify) -> None:
    """Feed a watchdog that strikes after `allowed` seconds without a beat; ends with its task."""
    pause = allowed / BEATS
    while True:
        proofs, told = service.ended, None
        await asyncio.sleep(pause)
        while service.ended == proofs and (fault := await _fault_of(service)) is not None:
            if fault and fault != told:
                log.error("the known picture gets no prediction, so the watchdog is not fed: %s", fault)
                told = fault
            await asyncio.sleep(pause / LOOKS)
        tell("WATCHDOG=1")


class States:
    """Tells systemd and the log of each change between starting, ready, not ready and stopping."""

    def __init__(self, obstacle: Callable[[], str | None], tell: Callable[[str], None] = systemd.notify) -> None:
        self._obstacle = obstacle
        self._tell = tell
        self._summary: Callable[[], str] | None = None  # there while started and not stopping
        self._shown = ""
        self._logged: str | None = ""  # the reason, without its numbers; None: ready

    async def watch(self) -> None:
        """Look again and again; ends with its task."""
        while True:
            self._look()
            await asyncio.sleep(STATE_SECONDS)

    def started(self, summary: Callable[[], str]) -> None:
        """Say that the start is over; `summary` is what is served and where."""
        self._summary = summary
        self._logged = _without_numbers(self._obstacle())
        self._shown = self._state()
        log.info("%s", self._shown)
        self._tell(f"READY=1\n{systemd.status(self._shown)}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._summary = None
        self._tell(f"STOPPING=1\n{systemd.status('shutting down')}")
        self._shown = self._state()

    def _look(self) -> None:
        reason, state = _without_numbers(self._obstacle()), self._state()
        if state != self._shown:
            self._tell(systemd.status(state))
            self._shown = state
        if self._summary is not None and reason != self._logged:
            log.log(logging.INFO if reason is None else logging.WARNING, "%s", state)
            self._logged = reason

    def _state(self) -> str:
        """Return what `systemctl status` shows."""
        reason = self._obstacle()
        if self._summary is None:
            return reason or ""
        return f"ready: {self._summary()}" if reason is None else f"not ready ({reason}): {self._summary()}"


def _without_numbers(reason: str | None) -> str | None:
    """Return a reason as it stays while its figures change."""
    return None if reason is None else re.sub(r"\d[\d.]*", "#", reason)


async def end(task: asyncio.Task[None]) -> None:
    """End one of these tasks."""
    task.cancel()
    await asyncio.wait({task})


async def _fault_of(service: Service) -> str | None:
    """Return why an idle detector has no answer to the known picture, or None; a busy one is left alone: ""."""
    if service.breaker.obstacle is not None:
        return None
    if service.scheduler.running:
        return ""
    try:
        await on_a_thread(lambda: service.detector.predict(_picture()))
    except EngineError:
        return None  # this process is well, and a restart of it would mend nothing elsewhere
    except DetectorError as error:
        return str(error)
    return None
