"""When a run has to stop before its end: time is over, or somebody asked for it."""

import os
import signal
import time
from collections.abc import Callable
from typing import Self

from detectors.console import Screen
from detectors.errors import DetectorError

TIME_OVER, SIGNALLED = "the time is over", "stopped by a signal"
UNFINISHED = (TIME_OVER, SIGNALLED)  # reasons after which `--resume` goes on


class StoppedEarly(DetectorError):
    """A run was stopped before there was anything that could serve; what it did is kept."""


class Stopping:
    """Inside the context, the first SIGINT or SIGTERM asks for a stop after the step, the second stops at once."""

    def __init__(self, max_hours: float | None, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._seconds = max_hours * 3600 if max_hours is not None else float("inf")
        self._screen, self._process = screen, os.getpid()
        self._signalled = False

    @property
    def reason(self) -> str | None:
        """Why it is time to stop, if it is."""
        return self.reason_within(1.0)

    def reason_within(self, share: float) -> str | None:
        """Say why it is time to stop, if it is, for a part of the run that may take this share of the time."""
        if self._signalled:
            return SIGNALLED
        return TIME_OVER if self._clock() - self._began > share * self._seconds else None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        if os.getpid() != self._process:
            return  # a process that loads photos: a terminal's Ctrl-C reaches it too, and it ends with the loader
        self._signalled = True
        signal.signal(number, self._before[signal.Signals(number)])
        self._screen.warn("stopping after this step; once more to stop at once")
