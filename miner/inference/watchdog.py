"""The watchdog: beats for systemd while the model answers, and a line for each change of state.

A beat is sent only when the event loop turns *and* a slot has ended a picture since the last beat. Validators' pictures
are that proof while they come, even those that can't be opened; a quiet miner proves itself with the known picture, on
a thread of its own, so that no slot is taken. While a slot is at work nothing is added to it: either it finishes, or it
hangs and no beat goes out until systemd restarts the process. A detector that answers wrongly, or not with a
probability, does not hang: it opens the breaker, the miner is not ready and says why, and `health` tests it again.
"""

import asyncio
import logging
import re
from collections.abc import Callable

from detectors.errors import DetectorError, EngineError
from miner import systemd
from miner.inference.background import on_a_thread
from miner.inference.service import Service

log = logging.getLogger(__name__)

BEATS_PER_LIMIT = 2  # in the time the watchdog allows: one may be late
LOOKS_PER_BEAT = 20  # for a proof, between two beats
STATE_SECONDS = 1.0  # between two looks at the state


async def beat(service: Service, allowed: float, tell: Callable[[str], None] = systemd.notify) -> None:
    """Feed a watchdog that strikes after `allowed` seconds without a beat; ends with its task."""
    pause = allowed / BEATS_PER_LIMIT
    while True:
        proofs = service.ended
        await asyncio.sleep(pause)
        while service.ended == proofs:
            if await _proves_itself(service):
                break
            await asyncio.sleep(pause / LOOKS_PER_BEAT)
        tell("WATCHDOG=1")


class StateReporter:
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


async def _proves_itself(service: Service) -> bool:
    """Return whether an idle detector comes back with the known picture; a busy one is left alone."""
    if service.breaker.obstacle is not None:
        return True
    if service.scheduler.running:
        return False
    detector = service.detector
    try:
        await on_a_thread(detector.prove)
    except EngineError:  # nothing here can mend that, and the endpoints' own tests tell of it
        return True
    except DetectorError as error:
        if detector is service.detector:  # and not replaced meanwhile
            service.breaker.tested(str(error))
    return True
