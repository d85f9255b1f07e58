"""Two models beside each other on the same pictures: by how much their answers differ, and how many change sides."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from detectors.base import Detector
from detectors.errors import DetectorError, ModelError
from detectors.photos.synthetic import many_pictures

PICTURES = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture, and the probability it was answered with."""

    data: bytes
    probability: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences of probability over some pictures; flips: pictures on the other side of 0.5."""

    pictures: int
    mean: float
    largest: float
    flips: int

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"beside the old model on {self.pictures} picture{'s' * (self.pictures != 1)}: "
            f"probabilities differ by {self.mean:.4f} on average and "
            f"{self.largest:.4f} at most, {self.flips} change sides"
        )


def compare(old: Detector, new: Detector, seen: Sequence[Seen], seconds: float) -> Comparison | None:
    """Compare on pictures that the old model has answered, then on made ones, up to `PICTURES` and for a while.

    A picture that the old model has no answer to does not count; None: it had none to any.

    Args:
        old: the model that serves.
        new: the one that is to take its place.
        seen: recent pictures.
        seconds: after which no further picture is begun.

    Raises:
        ModelError: the new model has no probability for a picture.
    """
    pictures: list[Seen | bytes] = [*seen[-PICTURES:], *many_pictures(max(0, PICTURES - len(seen)))]
    until, pairs = time.monotonic() + seconds, list[tuple[float, float]]()
    for picture in pictures:
        if pairs and time.monotonic() > until:
            break
        try:
            was = picture if isinstance(picture, Seen) else Seen(picture, old.predict(picture).probability)
        except DetectorError:
            continue
        try:
            pairs.append((was.probability, new.predict(was.data).probability))
        except DetectorError as error:
            raise ModelError(
                f"the model {new.manifest.name} has no answer to a picture of the comparison: {error}"
            ) from error
    return sum_up(pairs) if pairs else None


def sum_up(pairs: Sequence[tuple[float, float]]) -> Comparison:
    """Return the differences of pairs of probabilities; like validators, 0.5 itself counts as no roadwork."""
    differences = [abs(before - after) for before, after in pairs]
    flips = sum((before > 0.5) != (after > 0.5) for before, after in pairs)
    return Comparison(len(pairs), sum(differences) / len(pairs), max(differences), flips)
