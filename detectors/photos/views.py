"""Views of a picture: what a model looks at in turn, and how its answers become one.

A model sees a picture at a few hundred pixels, where a cone far away is one of them. In tiles it sees parts of it at
the camera's own resolution.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.errors import ImageError

Pool = Literal["mean", "max", "head"]
Kind = Literal["whole", "letterbox", "flip", "tile"]
Box = tuple[int, int, int, int]  # left, top, right, bottom
Array = NDArray[np.float32]
Prepare = Callable[[Image.Image], Array]

WHOLE, LETTERBOX, FLIP, TILES = "whole", "letterbox", "flip", "tiles"
SIMPLE: tuple[Kind, ...] = ("whole", "letterbox", "flip")
MOST_ROWS = 8  # and columns
MOST_VIEWS = 24  # of a picture, each a run of the graph
ALLOWED = (
    f"a list of {', '.join(SIMPLE)} and tiles: ROWSxCOLUMNS (1 to {MOST_ROWS} each), none twice and with at most "
    f"{MOST_VIEWS} views in all, is allowed"
)
GRID = re.compile(r"tiles(?:: ?| )([0-9]{1,2})x([0-9]{1,2})")


class Cut(NamedTuple):
    """A view of a picture of known size: its kind, and of a tile the part that it is."""

    kind: Kind
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class PooledViews:
    """The views of a picture, and how what a model says of each becomes one answer.

    Attributes:
        parts: `whole`, `letterbox`, `flip`, `tiles 2x3`, in the order that `parse` gives them.
        pool: the mean or the largest of the probabilities, or a head that was learned on all views' features.
    """

    parts: tuple[str, ...]
    pool: Pool

    def __str__(self) -> str:
        """Return the views in words, by which measurements of them are kept."""
        return f"{' + '.join(self.parts)}, {self.pool}"

    @property
    def count(self) -> int:
        """How often the graph runs for a picture."""
        return sum(rows * columns for rows, columns in map(_grid, self.parts))

    def cuts(self, size: tuple[int, int]) -> list[Cut]:
        """Return the views of a picture of this (width, height), in turn.

        Tiles have half the picture's width and height, and lie evenly from edge to edge, so that neighbours overlap
        where there are more than two in a row; a single row or column lies in the middle. A tile with fewer pixels
        than the model's input is enlarged to it, as any small picture is: it shows nothing that is not in the whole,
        only larger.
        """
        found: list[Cut] = []
        for part in self.parts:
            rows, columns = _grid(part)
            if not part.startswith(TILES):
                found.append(Cut(_kind(part)))
                continue
            across, down = _places(size[0], columns), _places(size[1], rows)
            found += [Cut("tile", (left, top, right, bottom)) for top, bottom in down for left, right in across]
        return found

    def arrays(self, picture: Image.Image, whole: Prepare, boxed: Prepare) -> Iterator[Array]:
        """Yield the model's input for each view, made when it is asked for; raises ImageError as `whole` does.

        Of a picture with sides too unequal for a view, the whole stands in for that.

        Args:
            picture: upright and in RGB.
            whole: the model's own preprocessing.
            boxed: the same, with the whole picture between black bars.
        """
        known: list[Array] = []

        def entire() -> Array:
            if not known:
                known.append(whole(picture))
            return known[0]

        for kind, box in self.cuts(picture.size):
            if kind == FLIP:  # of the input, and not a second picture of full size
                yield np.ascontiguousarray(entire()[..., ::-1])
            elif kind == WHOLE:
                yield entire()
            else:
                try:
                    yield boxed(picture) if box is None else whole(picture.crop(box))
                except ImageError:
                    yield entire()

    def pooled(self, said: Sequence[float]) -> float:
        """Return one answer of the views' answers; a mean is of the probabilities."""
        return max(said) if self.pool == "max" else sum(said) / len(said)


def parse(value: object) -> tuple[str, ...]:
    """Return the views that a list names, in one order: equal sets are one.

    Args:
        value: a list of names, `tiles: 2x3` as a mapping or as text among them; or text with commas between them.

    Raises:
        ValueError: it names none, one twice, too many, or something else; says what is allowed.
    """
    named = value.split(",") if isinstance(value, str) else value
    if not isinstance(named, list | tuple):
        raise ValueError(ALLOWED)
    parts = [_part(one) for one in named]
    if len(set(parts)) != len(parts) or sum(rows * columns for rows, columns in map(_grid, parts)) > MOST_VIEWS:
        raise ValueError(ALLOWED)
    return tuple(sorted(parts, key=lambda part: (SIMPLE.index(_kind(part)) if part in SIMPLE else len(SIMPLE), part)))


def views_of(parts: Sequence[str], pool: Pool | None) -> PooledViews | None:
    """Return views that were parsed; None where they are but the whole, which is what a model sees without any."""
    return None if tuple(parts) in ((), (WHOLE,)) else PooledViews(tuple(parts), pool or "mean")


def _part(value: object) -> str:
    if isinstance(value, dict) and list(value) == [TILES]:
        value = f"{TILES} {value[TILES]}"
    text = " ".join(value.lower().split()) if isinstance(value, str) else ""
    if text in SIMPLE:
        return text
    found = GRID.fullmatch(text)
    if found is None or not all(1 <= int(number) <= MOST_ROWS for number in found.groups()):
        raise ValueError(ALLOWED)
    return f"{TILES} {int(found[1])}x{int(found[2])}"


def _grid(part: str) -> tuple[int, int]:
    """Return rows and columns of tiles; any other view is one."""
    found = GRID.fullmatch(part)
    return (int(found[1]), int(found[2])) if found is not None else (1, 1)


def _kind(part: str) -> Kind:
    return next((kind for kind in SIMPLE if kind == part), "tile")


def _places(side: int, count: int) -> list[tuple[int, int]]:
    """Return where half-size parts of a side begin and end."""
    size = (side + 1) // 2
    free = side - size
    starts = [free // 2] if count == 1 else [round(free * number / (count - 1)) for number in range(count)]
    return [(start, start + size) for start in starts]
