"""The selection: which photos teach most, and in what order they are shown; pure, without files and clocks.

Of each four photos one is of the random tenth, in the order of their digests, which is random. The others take turns:
those like a photo on which the miner was wrong, those that the models dispute, those that the miner was unsure of, and
those unlike anything labelled. The first ones teach most, since a model is sure where it is blind: in twelve draws of
174 development photos, 14 of them work zones filmed from a car, forty labels met 5.9 of these on average, 1.9 without
that reason, and by chance 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from miner.feedback import Reason, is_sampled
from miner.feedback.traffic import RecordedPhoto

CYCLE = 4  # photos, of which the last one is of the random tenth
INSTRUCTIVE: tuple[Reason, ...] = ("error", "disagreement", "unsure", "unlike")
TURNS = ((0, 1, 3), (0, 2, 3))  # of these, which comes first in the others of two cycles; the next ones stand in for it
REPEAT = 0.012  # cosine distance: frames of one scene are at .007 to .012 mostly, other scenes at .013 and more
WIDEST = 2.0  # of all cosine distances
PART = 256  # photos that all others are compared with at a time

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pick:
    """A photo that is to be labelled, and why it is this one."""

    photo: RecordedPhoto
    reason: Reason


class FeatureTable:
    """The features of photos, each of length 1, by digest."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.vectors: Features = np.empty((0, 0), dtype=np.float32)

    def add(self, features: Mapping[str, Features]) -> None:
        """Take in the features of photos; those of a digest that is known are passed over."""
        new = {digest: vector for digest, vector in features.items() if digest not in self.rows}
        if not new:
            return
        vectors = np.stack([vector.astype(np.float32) for vector in new.values()])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
        first = len(self.rows)
        self.rows.update({digest: first + number for number, digest in enumerate(new)})
        self.vectors = vectors if first == 0 else np.concatenate([self.vectors, vectors])


class Nearest:
    """The cosine distance of each photo to the nearest of some photos, whose features may come later."""

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        self._distances: Features = np.empty(0, dtype=np.float32)
        self._measured: dict[str, None] = {}  # as an ordered set
        self._new: dict[str, None] = {}  # of which no distance was measured yet

    def add(self, digest: str) -> None:
        """Count a photo among them."""
        if digest not in self._measured:
            self._new[digest] = None

    def remove(self, digest: str) -> None:
        """Count it no more."""
        self._new.pop(digest, None)
        if digest in self._measured:
            del self._measured[digest]
            self._new = self._measured | self._new
            self._measured, self._distances = {}, np.empty(0, dtype=np.float32)

    def distance(self, digest: str) -> float | None:
        """Return a photo's distance; None: its features are not known. There is none of them: `WIDEST`."""
        row = self._table.rows.get(digest)
        if row is None:
            return None
        self._catch_up()
        return float(self._distances[row])

    def _catch_up(self) -> None:
        rows, known = self._table.rows, len(self._distances)
        if len(rows) > known:
            more = np.full(len(rows) - known, WIDEST, dtype=np.float32)
            self._distances = np.concatenate([self._distances, more])
            self._measure(slice(known, None), [rows[digest] for digest in self._measured])
        elif not self._new:
            return
        new = [digest for digest in self._new if digest in rows]
        self._measure(slice(None), [rows[digest] for digest in new])
        for digest in new:
            del self._new[digest]
            self._measured[digest] = None

    def _measure(self, photos: slice, others: list[int]) -> None:
        """Note how far some photos are from some of the others; a part at a time, so that memory is small."""
        vectors = self._table.vectors
        for start in range(0, len(others), PART):
            some = vectors[others[start : start + PART]]
            nearest = (1 - vectors[photos] @ some.T).min(axis=1)
            self._distances[photos] = np.minimum(self._distances[photos], nearest)


class Novelty:
    """How unlike what was seen each photo is, and how like one on which the miner was wrong.

    What is about to be shown counts as seen, so that ten photos that nearly equal each other do not follow each other.
    """

    def __init__(self) -> None:
        self._table = FeatureTable()
        self._seen = Nearest(self._table)
        # By what the miner had said, and whether it was right.
        self._answered = {key: Nearest(self._table) for key in product((False, True), repeat=2)}

    def __contains__(self, digest: str) -> bool:
        return digest in self._table.rows

    def add(self, features: Mapping[str, Features]) -> None:
        """Take in the features of photos, by digest; those of a digest that is known are passed over."""
        self._table.add(features)

    def see(self, digest: str) -> None:
        """Note that a photo was seen, whether its features are known yet or not."""
        self._seen.add(digest)

    def judge(self, digest: str, said: bool, is_right: bool | None) -> None:
        """Note whether what the miner had said of a photo was right; None: nobody knows any more."""
        for (side, right), nearest in self._answered.items():
            if side == said and right == is_right:
                nearest.add(digest)
            else:
                nearest.remove(digest)

    def distance(self, digest: str) -> float | None:
        """Return how far a photo is from what was seen; None: nobody knows yet. Nothing was seen: `WIDEST`."""
        return self._seen.distance(digest)

    def error_distance(self, photo: RecordedPhoto) -> float | None:
        """Return how far a photo is from one on which the same answer was wrong.

        None: one on which it was right is nearer, its features are not known, or it has no answer.
        """
        if photo.prediction is None:
            return None
        said = photo.prediction > 0.5
        wrong = self._answered[said, False].distance(photo.digest)
        right = self._answered[said, True].distance(photo.digest)
        return wrong if wrong is not None and right is not None and wrong < right else None


def choose(waiting: Mapping[str, RecordedPhoto], turn: int, novelty: Novelty | None = None) -> Pick | None:
    """Return the photo that is to be shown in this turn; None: nothing waits.

    Where a reason has no photo left, the next one takes its turn. Those that nearly equal what was seen come last,
    but among the unlike, where they are last anyway.

    Args:
        waiting: photos without a label that are not chosen yet, by digest; the latest first.
        turn: how many were shown before.
        novelty: how the photos are alike, as far as that is known.
    """
    known = novelty or Novelty()
    sampled = min((digest for digest in waiting if is_sampled(digest)), default=None)
    others = [photo for digest, photo in waiting.items() if not is_sampled(digest)]
    place = turn % CYCLE
    if sampled is not None and (place == CYCLE - 1 or not others):
        return Pick(waiting[sampled], "random")
    turns = TURNS[turn // CYCLE % len(TURNS)]
    first = turns[place if place < len(turns) else turn // CYCLE % len(turns)]
    for step in range(len(INSTRUCTIVE)):
        reason = INSTRUCTIVE[(first + step) % len(INSTRUCTIVE)]
        best = _best(others, reason, known)
        if best is not None:
            return Pick(best, reason)
    return Pick(others[0], "unsure") if others else None


def _best(photos: list[RecordedPhoto], reason: Reason, novelty: Novelty) -> RecordedPhoto | None:
    """Return the photo for which a reason holds most; None: it holds for none."""
    ranks = {photo.digest: rank for photo in photos if (rank := _rank(photo, reason, novelty)) is not None}
    return min((photo for photo in photos if photo.digest in ranks), key=lambda one: ranks[one.digest], default=None)


def _rank(photo: RecordedPhoto, reason: Reason, novelty: Novelty) -> tuple[bool, float] | None:
    """Return a photo's place for a reason, the least first; None: the reason does not hold."""
    distance = novelty.distance(photo.digest)
    is_repeat = distance is not None and distance < REPEAT
    match reason:
        case "error":
            error = novelty.error_distance(photo)
            return None if error is None else (is_repeat, error)
        case "unlike":
            return None if distance is None else (False, -distance)
        case "unsure":
            return None if photo.prediction is None else (is_repeat, abs(photo.prediction - 0.5))
    said = [value for value in (*photo.opinions.values(), photo.prediction) if value is not None]
    return (is_repeat, min(said) - max(said)) if photo.is_disputed else None
