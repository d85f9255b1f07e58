"""Features on disk: rows found by a photo's content and the number of its view, in files that may be carried home.

A folder for each network and kind of view; in it any number of `features-<sum>.npz`, each written whole or not at all.
Two caches are merged by copying the files of one to the other.
"""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.files import write_safely
from detectors.training.config import Augment

Row = tuple[str, int]  # SHA-256 of the photo's file, number of the view
SHARD = 4096  # rows in a file
SECONDS = 60.0  # from one file to the next at most: what a kill may cost


@dataclass(frozen=True, slots=True)
class Key:
    """What features depend on, besides the photo: the network, its preprocessing, and how views are drawn."""

    weights: str  # SHA-256 of all weights
    preprocessing: str  # in words
    views_version: int
    augment: Augment
    seed: int

    def folder(self, cache: Path, name: str) -> Path:
        """Say where these features are: `<cache>/<name>-<sum>`."""
        facts = [self.weights, self.preprocessing, self.views_version, self.augment.model_dump(), self.seed]
        return cache / f"{name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]}"


class FeatureCache:
    """The features of one folder, in memory."""

    def __init__(
        self, folder: Path, warn: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self._clock, self._written = folder, clock, clock()
        self._rows: dict[Row, NDArray[np.float32]] = {}
        self._fresh: list[Row] = []
        for path in sorted(folder.glob("features-*.npz")):
            try:
                self._rows |= _read(path)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                warn(f"{path} can't be read ({error}); what it held is calculated again")

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that are not there, in their order."""
        return [row for row in dict.fromkeys(rows) if row not in self._rows]

    def add(self, rows: Sequence[Row], features: NDArray[np.float32]) -> None:
        """Take features in, shape (rows, width); written once they fill a file or a minute has passed."""
        self._rows.update(zip(rows, features, strict=True))
        self._fresh += rows
        if len(self._fresh) >= SHARD or self._clock() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        self._written = self._clock()
        if not self._fresh:
            return
        buffer = io.BytesIO()
        np.savez(
            buffer,
            digests=np.array([digest for digest, _ in self._fresh]),
            views=np.array([view for _, view in self._fresh], dtype=np.int32),
            features=np.stack([self._rows[row] for row in self._fresh]),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        data = buffer.getvalue()
        write_safely(self.folder / f"features-{hashlib.sha256(data).hexdigest()[:16]}.npz", data)
        self._fresh = []

    def matrix(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return features in the order of the rows, shape (rows, width)."""
        return np.stack([self._rows[row] for row in rows])


def _read(path: Path) -> dict[Row, NDArray[np.float32]]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        features = file["features"]
        rows = zip(file["digests"].tolist(), file["views"].tolist(), strict=True)
        return {(str(digest), int(view)): row for (digest, view), row in zip(rows, features, strict=True)}
