"""Whether the predictions are spread as the model's manifest says: the last ones, in tenths."""

import math
from collections import deque
from collections.abc import Callable, Sequence

from detectors.models.calibration import TENTHS, stability_index, tenth_of
from miner.recorder.records import RequestRecord

WINDOW = 500  # predictions
LEAST = 200  # before anything is said: fewer are spread by chance alone


class Drift:
    """A window over the predictions of one model; another model begins another window."""

    def __init__(
        self, expected: Callable[[], Sequence[float] | None], window: int = WINDOW, least: int = LEAST
    ) -> None:
        """Read what is expected from the model that serves at the moment: shares by tenths, or None."""
        self._read = expected
        self._least = least
        self._expected: Sequence[float] | None = None
        self._last: deque[int] = deque(maxlen=window)

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Add the prediction of a request, if the model made it for this one."""
        if record.prediction is not None and not record.is_shared:
            self._take(record.prediction)

    def _take(self, prediction: float) -> None:
        expected = self._read()
        if expected is not self._expected:
            self._expected = expected
            self._last.clear()
        self._last.append(tenth_of(prediction))

    @property
    def index(self) -> float:
        """The population stability index; NaN: nothing to compare with, or too few predictions of this model."""
        expected = self._read()
        if expected is None or expected is not self._expected or len(self._last) < self._least:
            return math.nan
        return stability_index([self._last.count(tenth) for tenth in range(TENTHS)], expected)
