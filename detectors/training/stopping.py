"""When a run has to stop before its end: time is over, or somebody asked for it."""

import signal
import time
from typing import Self

from detectors.training.screen import Screen


class Stopping:
    """Inside the context, the first SIGINT or SIGTERM asks for a stop after the step, the second stops at once."""

    def __init__(self, max_hours: float | None, screen: Screen) -> None:
        self._end = time.monotonic() + max_hours * 3600 if max_hours is not None else float("inf")
        self._screen = screen
        self._signalled = False

    @property
    def reason(self) -> str | None:
        """Why it is time to stop, if it is."""
        if self._signalled:
            return "stopped by a signal"
        return "the time is over" if time.monotonic() > self._end else None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        self._signalled = True
        signal.signal(number, self._before[signal.Signals(number)])
        self._screen.warn("stopping after this step; once more to stop at once")
