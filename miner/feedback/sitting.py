"""A sitting: the photos that are shown and what somebody says of them, from the first to the last."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from miner.feedback import is_sampled
from miner.feedback.labels import Kind, Label, Labels
from miner.feedback.selection import Features, Novelty, Pick, choose
from miner.feedback.traffic import RecordedPhoto

AHEAD = 4  # photos that are chosen before they are shown, so that they can be fetched
MOST_HELD, HELD_BYTES = 16, 64 * 2**20  # photos in memory: the recorder may delete what somebody looks at

Way = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A photo as it is shown: why, what models say of it, and its label if it has one."""

    digest: str
    reason: str
    at: float
    prediction: float | None
    opinions: Mapping[str, float]
    label: str | None = None
    is_surprise: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """How far it is: of all sittings.

    Attributes:
        labelled: how many have a label; those skipped have none.
        surprises: of how many of them the miner had said otherwise.
        waiting: how many have neither.
        sampled: how many labelled ones are of the random tenth.
        skipped: how many were skipped.
    """

    labelled: int
    surprises: int
    waiting: int
    sampled: int
    skipped: int


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows: a photo, those that come next, the one before, and how far it is."""

    photo: Shown | None
    following: list[str]
    tally: Tally
    last: Shown | None
    undoable: int


class Sitting:
    """Safe to use from several threads; every label is on the disk when `label` returns."""

    def __init__(self, labels: Labels, clock: Callable[[], float] = time.time) -> None:
        """Begin; nothing waits until `take_in` says so."""
        self.labels = labels
        self._clock = clock
        self._lock = threading.RLock()
        self._waiting: dict[str, RecordedPhoto] = {}
        self._facts: dict[str, RecordedPhoto] = {}  # of labelled photos that are recorded still
        self._line: list[Pick] = []
        self._turn = len(labels)
        self._novelty = Novelty()
        self._done: list[tuple[str, Label | None, Pick | None]] = []  # to be undone: what was before
        self._held: OrderedDict[str, bytes] = OrderedDict()
        for label in labels:
            self._novelty.see(label.digest)
            self._learn(label.digest)

    def take_in(self, traffic: Mapping[str, RecordedPhoto]) -> None:
        """Take notice of what is recorded now; photos that somebody may be looking at stay."""
        with self._lock:
            aside = {digest: RecordedPhoto(digest, path) for digest, path in self.labels.undecided().items()}
            everything = aside | dict(traffic)
            self._facts = {digest: photo for digest, photo in everything.items() if digest in self.labels}
            self._waiting = {digest: photo for digest, photo in everything.items() if digest not in self.labels}
            self._line = [
                pick for pick in self._line if pick.photo.digest in self._waiting or pick.photo.digest in self._held
            ]
            self._waiting = {pick.photo.digest: pick.photo for pick in self._line} | self._waiting

    def know(self, features: Mapping[str, Features]) -> None:
        """Take features in."""
        with self._lock:
            self._novelty.add(features)

    def wanted(self) -> dict[str, Path]:
        """Return the photos of which features are of use: what is labelled first, then what waits."""
        with self._lock:
            labelled = {label.digest: self.labels.kept(label.digest) for label in self.labels.decided}
            return {digest: path for digest, path in labelled.items() if path is not None} | {
                digest: photo.path for digest, photo in self._waiting.items()
            }

    def view(self) -> View:
        """Return what is to be shown."""
        with self._lock:
            self._choose()
            picks = self._line
            last = self._done[-1][0] if self._done else None
            shown = self.labels.get(last) if last is not None else None
            return View(
                photo=_shown(picks[0].photo, picks[0].reason, None) if picks else None,
                following=[pick.photo.digest for pick in picks[1:]],
                tally=self.tally(),
                last=self._of(shown) if shown is not None else None,
                undoable=len(self._done),
            )

    def tally(self) -> Tally:
        """Count."""
        with self._lock:
            decided = self.labels.decided
            return Tally(
                labelled=len(decided),
                surprises=sum(label.is_surprise for label in decided),
                waiting=len(self._waiting),
                sampled=sum(label.reason == "random" for label in decided),
                skipped=len(self.labels) - len(decided),
            )

    def photo(self, digest: str) -> bytes:
        """Return a photo's file; a photo that is neither labelled nor waits is none of ours.

        Raises:
            FileNotFoundError: it is not there, or not what its name says.
            OSError: it can't be read.
        """
        with self._lock:
            if digest in self._held:
                self._held.move_to_end(digest)
                return self._held[digest]
            recorded = self._waiting.get(digest) or self._facts.get(digest)
            path = self.labels.kept(digest) or (recorded.path if recorded is not None else None)
        if path is None:
            raise FileNotFoundError(digest)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise FileNotFoundError(digest)
        except FileNotFoundError:
            self._forget(digest)
            raise
        with self._lock:
            self._held[digest] = data
            while len(self._held) > MOST_HELD or sum(map(len, self._held.values())) > HELD_BYTES:
                if len(self._held) == 1:
                    break
                self._held.popitem(last=False)
        return data

    def label(self, digest: str, kind: Kind) -> None:
        """Label a photo, or label it anew; when, why and what the miner had said then stays.

        Raises:
            FileNotFoundError: the photo is gone.
            OSError: the disk does not take it; nothing has changed.
        """
        with self._lock:
            before = self.labels.get(digest)
            pick = next((pick for pick in self._line if pick.photo.digest == digest), None)
            photo = b"" if kind == "skip" or self.labels.kept(digest) is not None else self.photo(digest)
            if before is not None:
                now = replace(before, kind=kind)
            else:
                facts = pick.photo if pick is not None else self._waiting.get(digest)
                if facts is None:
                    raise FileNotFoundError(digest)
                pick = pick or Pick(facts, "random" if is_sampled(digest) else "unsure")
                now = Label(digest, kind, round(self._clock(), 3), pick.reason, facts.prediction)
            if before == now:
                return
            self.labels.put(now, photo)
            self._done.append((digest, before, pick))
            self._novelty.see(digest)
            self._learn(digest)
            self._line = [one for one in self._line if one.photo.digest != digest]
            recorded = self._waiting.pop(digest, None)
            if recorded is not None:
                self._facts[digest] = recorded

    def undo(self) -> str | None:
        """Take back what was said last in this sitting, and return of which photo; None: nothing was said.

        Raises:
            OSError: the disk does not take it; nothing has changed.
        """
        with self._lock:
            if not self._done:
                return None
            digest, before, pick = self._done[-1]
            if before is not None:
                self.labels.put(before)
            else:
                self.labels.take_back(digest)
                assert pick is not None
                photo = replace(pick.photo, path=self.labels.kept(digest) or pick.photo.path)
                self._facts.pop(digest, None)
                self._waiting = {digest: photo} | self._waiting
                self._line.insert(0, Pick(photo, pick.reason))
            self._done.pop()
            self._learn(digest, pick.photo.prediction if pick is not None else None)
            return digest

    def beside(self, digest: str | None, way: Way) -> Shown | None:
        """Return the labelled photo before or after one, in the order of labelling; None: there is none.

        Args:
            digest: of a labelled one; of any other, or None: what waits comes after all labelled ones.
            way: which side.
        """
        with self._lock:
            order = [label.digest for label in self.labels]
            place = order.index(digest) if digest is not None and digest in self.labels else len(order)
            place += -1 if way == "before" else 1
            label = self.labels.get(order[place]) if 0 <= place < len(order) else None
            return self._of(label) if label is not None else None

    def shown(self, digest: str) -> Shown | None:
        """Return a labelled photo as it is shown; None: it has no label."""
        with self._lock:
            label = self.labels.get(digest)
            return self._of(label) if label is not None else None

    def _learn(self, digest: str, said: float | None = None) -> None:
        """Note whether the miner was right about a photo, or that nobody knows any more what it had said."""
        label = self.labels.get(digest)
        prediction = label.prediction if label is not None else said
        if prediction is not None:
            is_right = None if label is None or label.kind == "skip" else not label.is_surprise
            self._novelty.judge(digest, prediction > 0.5, is_right)

    def _of(self, label: Label) -> Shown:
        facts = self._facts.get(label.digest) or RecordedPhoto(label.digest, Path())
        return _shown(replace(facts, prediction=label.prediction), label.reason, label)

    def _choose(self) -> None:
        """Fill the line of what comes next."""
        chosen = {pick.photo.digest for pick in self._line}
        while len(self._line) <= AHEAD:
            left = {digest: photo for digest, photo in self._waiting.items() if digest not in chosen}
            pick = choose(left, self._turn, self._novelty)
            if pick is None:
                return
            self._turn += 1
            self._line.append(pick)
            chosen.add(pick.photo.digest)
            self._novelty.see(pick.photo.digest)

    def _forget(self, digest: str) -> None:
        """Drop a photo that is gone; whoever looks at it next sees another."""
        with self._lock:
            self._waiting.pop(digest, None)
            self._facts.pop(digest, None)
            self._line = [pick for pick in self._line if pick.photo.digest != digest]


def _shown(photo: RecordedPhoto, reason: str, label: Label | None) -> Shown:
    return Shown(
        photo.digest, reason, photo.at, photo.prediction, dict(photo.opinions),
        label.kind if label is not None else None, label is not None and label.is_surprise,
    )  # fmt: skip
