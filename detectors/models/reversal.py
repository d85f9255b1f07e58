"""Whether a model says the opposite of what it should: of labelled photos by its AUC, of drawings by what cones do.

A swapped class costs everything and shows in no latency, no error and no parity: only in what is said of pictures that
somebody knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.photos.synthetic import drawn_pairs

NORMAL = 1.96  # standard deviations of a 95 % interval
MUCH = 0.25  # a change of probability that is no noise; the starter's is 0.9
LOOKS = "looks reversed"

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sorting:
    """How well a model's answers tell labelled photos apart: the AUC, and what chance alone would give.

    Attributes:
        photos: how many there were.
        auc: the share of pairs, one of each class, that are in the right order.
        chance: half the width of the AUC's 95 % interval around 0.5, were the answers drawn by lot.
    """

    photos: int
    auc: float
    chance: float

    @property
    def is_reversed(self) -> bool:
        """Whether the AUC is under 0.5 by more than chance."""
        return self.auc < 0.5 - self.chance

    @property
    def words(self) -> str:
        """In words."""
        said = f"AUC {self.auc:.3f} on {self.photos} labelled photos"
        return f"{said} (by chance not under {max(0.0, 0.5 - self.chance):.3f}): {LOOKS}" if self.is_reversed else said


def sorting_of(labels: Sequence[bool] | Flags, probabilities: Sequence[float] | Floats) -> Sorting:
    """Compare answers with labels, both of which have to occur.

    The AUC is Mann and Whitney's U over the number of pairs, ties counting half; by chance its variance is
    (m + n + 1) / 12mn (Mann and Whitney 1947), so that no answers to fewer than three photos of each class are proof.
    """
    flags, said = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=np.float64)
    works, clear = said[flags], np.sort(said[~flags])
    below, upto = np.searchsorted(clear, works, "left"), np.searchsorted(clear, works, "right")
    pairs = len(works) * len(clear)
    auc = float((below + upto).sum()) / (2 * pairs)
    return Sorting(len(flags), auc, NORMAL * float(np.sqrt((len(flags) + 1) / (12 * pairs))))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a model says of drawn roads, as they are and with cones in them: pairs of probabilities."""

    pairs: Sequence[tuple[float, float]]

    @property
    def is_reversed(self) -> bool:
        """Whether cones lower every answer, and by much.

        A hint and no proof: a network that was trained on photos owes nothing to a drawing.
        """
        changes = [with_cones - without for without, with_cones in self.pairs]
        return bool(changes) and max(changes) < 0 and float(np.median(changes)) < -MUCH

    @property
    def words(self) -> str:
        """In words."""
        without, with_cones = (float(np.median(column)) for column in zip(*self.pairs, strict=True))
        said = f"cones that are drawn into a road change its answer from {without:.2f} to {with_cones:.2f}"
        return f"{said}: {LOOKS}" if self.is_reversed else said


def ask_drawn(ask: Callable[[Image.Image], float]) -> Drawn:
    """Ask a model about every drawn road."""
    return Drawn([(ask(Image.fromarray(road)), ask(Image.fromarray(works))) for road, works in drawn_pairs()])
