"""A circuit breaker on the model's answers: after several failures in a row nothing is asked of it for a while.

The known picture closes it again, on probation: the next failure opens it at once, for twice as long. A good answer to
a validator's picture, or another model, ends the probation. A known picture that fails opens it too.
"""

import time
from collections.abc import Callable

FAILURES = 5  # in a row; a single picture that a model has no number for is no reason to refuse the others
FIRST_PAUSE, LAST_PAUSE = 5.0, 300.0  # seconds before a test


class Breaker:
    """Told of every answer; lives on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.obstacle: str | None = None
        self.is_hopeless = False  # whether a test failed after the longest pause: minutes after the first
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._test_at = 0.0

    @property
    def due(self) -> bool:
        """Whether it is open and the model should be tested."""
        return self.obstacle is not None and self.clock() >= self._test_at

    def succeeded(self) -> None:
        """Take a good answer in."""
        self.obstacle, self._failures, self._pause, self.is_hopeless = None, 0, FIRST_PAUSE, False

    def failed(self, message: str) -> None:
        """Take a failure in."""
        self._failures += 1
        if self._failures >= FAILURES and self.obstacle is None:
            self._open(f"the model failed {self._failures} times in a row: {message}")

    def tested(self, fault: str | None) -> None:
        """Take the outcome of a test in: what is wrong, or None."""
        if fault is None:
            self.obstacle, self._failures, self.is_hopeless = None, FAILURES - 1, False
        else:
            self.is_hopeless = self._pause >= LAST_PAUSE
            self._open(f"the model fails its self-test: {fault}")

    def _open(self, reason: str) -> None:
        self.obstacle = reason
        self._test_at = self.clock() + self._pause
        self._pause = min(LAST_PAUSE, 2 * self._pause)
