"""The selection: which photos teach most, and in what order they are shown; pure, without files and clocks.

Of each four photos one is of the random tenth, in the order of their digests, which is random. The others take turns:
those that the models dispute, those that the miner was unsure of, and those unlike anything labelled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miner.feedback import Reason, is_sampled
from miner.feedback.traffic import RecordedPhoto

CYCLE = 4  # photos, of which the last one is of the random tenth
INSTRUCTIVE: tuple[Reason, ...] = ("disagreement", "unsure", "unlike")
REPEAT = 0.012  # cosine distance: frames of one scene are at .007 to .012 mostly, other scenes at .013 and more
WIDEST = 2.0  # of all cosine distances
PART = 256  # photos that all others are compared with at a time

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pick:
    """A photo that is to be labelled, and why it is this one."""

    photo: RecordedPhoto
    reason: Reason


class Novelty:
    """How unlike what was seen each photo is: the cosine distance of its features to the nearest that was.

    What is about to be shown counts as seen, so that ten photos that nearly equal each other do not follow each other.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._vectors: Features = np.empty((0, 0), dtype=np.float32)
        self._nearest: Features = np.empty(0, dtype=np.float32)
        self._seen: dict[str, None] = {}  # as an ordered set

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def add(self, features: Mapping[str, Features]) -> None:
        """Take in the features of photos, by digest; those of a digest that is known are passed over."""
        new = {digest: vector for digest, vector in features.items() if digest not in self._rows}
        if not new:
            return
        vectors = np.stack([vector.astype(np.float32) for vector in new.values()])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
        first = len(self._rows)
        self._rows.update({digest: first + number for number, digest in enumerate(new)})
        self._vectors = vectors if first == 0 else np.concatenate([self._vectors, vectors])
        self._nearest = np.concatenate([self._nearest, np.full(len(new), WIDEST, dtype=np.float32)])
        seen = [self._rows[digest] for digest in self._seen if digest in self._rows]
        self._measure(slice(first, None), seen)
        self._measure(slice(0, first), [row for row in seen if row >= first])

    def see(self, digest: str) -> None:
        """Note that a photo was seen, whether its features are known yet or not."""
        if digest not in self._seen:
            self._seen[digest] = None
            if digest in self._rows:
                self._measure(slice(None), [self._rows[digest]])

    def distance(self, digest: str) -> float | None:
        """Return how far a photo is from what was seen; None: nobody knows yet. Nothing was seen: `WIDEST`."""
        row = self._rows.get(digest)
        return None if row is None else float(self._nearest[row])

    def _measure(self, rows: slice, seen: list[int]) -> None:
        """Note how far some photos are from some of those that were seen; a part at a time, so that memory is small."""
        for start in range(0, len(seen), PART):
            some = self._vectors[seen[start : start + PART]]
            nearest = (1 - self._vectors[rows] @ some.T).min(axis=1)
            self._nearest[rows] = np.minimum(self._nearest[rows], nearest)


def choose(
    waiting: Mapping[str, RecordedPhoto], turn: int, distance: Callable[[str], float | None] = lambda _: None
) -> Pick | None:
    """Return the photo that is to be shown in this turn; None: nothing waits.

    Where a reason has no photo left, the next one takes its turn. Of the disputed and the unsure, those that nearly
    equal what was seen come last.

    Args:
        waiting: photos without a label that are not chosen yet, by digest; the latest first.
        turn: how many were shown before.
        distance: how far a photo is from what was seen, if that is known.
    """
    sampled = min((digest for digest in waiting if is_sampled(digest)), default=None)
    others = [photo for digest, photo in waiting.items() if not is_sampled(digest)]
    if sampled is not None and (turn % CYCLE == CYCLE - 1 or not others):
        return Pick(waiting[sampled], "random")
    first = turn % CYCLE if turn % CYCLE < len(INSTRUCTIVE) else turn // CYCLE
    for step in range(len(INSTRUCTIVE)):
        reason = INSTRUCTIVE[(first + step) % len(INSTRUCTIVE)]
        best = _best(others, reason, distance)
        if best is not None:
            return Pick(best, reason)
    return Pick(others[0], "unsure") if others else None


def _best(photos: list[RecordedPhoto], reason: Reason, distance: Callable[[str], float | None]) -> RecordedPhoto | None:
    """Return the photo for which a reason holds most; None: it holds for none."""
    ranks = {photo.digest: rank for photo in photos if (rank := _rank(photo, reason, distance(photo.digest)))}
    return min((photo for photo in photos if photo.digest in ranks), key=lambda one: ranks[one.digest], default=None)


def _rank(photo: RecordedPhoto, reason: Reason, distance: float | None) -> tuple[bool, float] | None:
    """Return a photo's place for a reason, the least first; None: the reason does not hold."""
    is_repeat = distance is not None and distance < REPEAT
    if reason == "unlike":
        return None if distance is None else (False, -distance)
    if photo.prediction is None and reason == "unsure":
        return None
    if reason == "unsure":
        assert photo.prediction is not None
        return is_repeat, abs(photo.prediction - 0.5)
    said = [value for value in (*photo.opinions.values(), photo.prediction) if value is not None]
    return (is_repeat, min(said) - max(said)) if photo.is_disputed else None
