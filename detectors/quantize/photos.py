"""The pictures a faster graph is calibrated on, and the others it is judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from detectors.photos.synthetic import many_pictures

CALIBRATION = 32  # pictures; ranges hardly widen with more
SHARE = 3  # one of so many is calibrated on, where there are few
MADE = SHARE * CALIBRATION


@dataclass(frozen=True, slots=True)
class Photos:
    """Encoded photos for calibration and for the gate, and, if known, whether each shows roadwork."""

    data: Sequence[bytes]
    labels: Sequence[bool] | None = None
    made: bool = False  # by arithmetic

    @classmethod
    def by_arithmetic(cls) -> Self:
        """Return made ones, for want of photos."""
        return cls(many_pictures(MADE), made=True)

    def split(self) -> tuple[Self, Self]:
        """Return those to calibrate on and those to judge on; a lone one has to do for both.

        A graph looks better on what it was calibrated on. Spread over all, which may be sorted by class.
        """
        step = max(SHARE, len(self.data) // CALIBRATION)
        chosen = range(0, len(self.data), step)[:CALIBRATION]
        others = [number for number in range(len(self.data)) if number not in chosen]
        return self._only(chosen), self._only(others or chosen)

    def _only(self, numbers: Sequence[int]) -> Self:
        labels = None if self.labels is None else [self.labels[number] for number in numbers]
        return type(self)([self.data[number] for number in numbers], labels, self.made)
