"""The check of labels: photos whose folder a model doubts that has not seen them, near-duplicates, hard negatives.

A regularised last layer on features of a frozen network is cross-validated, with near-identical photos on one side. A
wrong label is then one that the other photos speak against (confident learning: Northcutt et al. 2021, arXiv
1911.00068).
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError
from detectors.files import write_safely
from detectors.photos.labelled import CLASSES, LabelledPhotos, Photo, near_pairs, read_photos
from detectors.training.config import HUB
from detectors.training.data import fetch
from detectors.training.dataset import PARTS
from detectors.training.features import photo_features
from detectors.training.job import Job

FOLDS = 5
STRENGTH = 0.01  # scikit-learn's C; a tenth and a hundredth of it found the same wrong labels among 387 photos
# Correlation of two thumbnails: of 387 photos every pair above it was one picture twice, and none of those below. The
# groups that are kept on one side of a split are wider, to be safe.
SAME_PICTURE = 0.95
HARD_NEGATIVES = 40  # as many as somebody looks at
COLUMNS = ("found", "photo", "label", "roadwork", "other", "other_label", "correlation")


@dataclass(frozen=True, slots=True)
class JudgedPhoto:
    """A photo, and the probability of roadwork by a model that has learnt from others."""

    photo: Photo
    roadwork: float

    @property
    def agreement(self) -> float:
        """The probability of the class that it is in."""
        return self.roadwork if self.photo.label else 1 - self.roadwork


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two photos that are nearly the same, and the correlation of their thumbnails."""

    one: Photo
    other: Photo
    correlation: float

    @property
    def is_contradictory(self) -> bool:
        """Whether they are in different classes."""
        return self.one.label != self.other.label


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What was found in labelled photos.

    Attributes:
        model: whose features the judgement is by.
        judged: how many photos were judged.
        doubts: those that the model puts into the other class, the surest first.
        pairs: near-duplicates, those of different classes first.
        hard_negatives: roads without works that look most like works and are not doubted.
        skipped: what was left out, with the reason.
    """

    model: str
    judged: int
    doubts: Sequence[JudgedPhoto]
    pairs: Sequence[NearPair]
    hard_negatives: Sequence[JudgedPhoto]
    skipped: Sequence[str]

    def rows(self) -> Iterator[dict[str, str | float]]:
        """Yield what was found, by `COLUMNS`: doubts, pairs, hard negatives."""
        yield from (_judged_row("doubt", one) for one in self.doubts)
        yield from map(_pair_row, self.pairs)
        yield from (_judged_row("hard_negative", one) for one in self.hard_negatives)

    def write_csv(self, path: Path) -> None:
        """Write all of it as a table."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, COLUMNS, restval="")
        table.writeheader()
        table.writerows(self.rows())
        write_safely(path, text.getvalue().encode(errors="backslashreplace"))


def _judged_row(found: str, one: JudgedPhoto) -> dict[str, str | float]:
    label = CLASSES[one.photo.label]
    return {"found": found, "photo": one.photo.name, "label": label, "roadwork": round(one.roadwork, 4)}


def _pair_row(pair: NearPair) -> dict[str, str | float]:
    return {
        "found": "contradiction" if pair.is_contradictory else "duplicate",
        "photo": pair.one.name, "label": CLASSES[pair.one.label],
        "other": pair.other.name, "other_label": CLASSES[pair.other.label],
        "correlation": round(pair.correlation, 4),
    }  # fmt: skip


def check_labels(job: Job) -> LabelReport:
    """Judge every photo's label by the others.

    Raises:
        DetectorConfigError: the photos are wrong, or too few to judge each other.
        ModelError: the network can't be found or loaded.
        StoppedEarly: time was over, or a signal came, before all features were there; those there are kept.
    """
    found = _read(job)
    for line in found.skipped:
        job.screen.warn(f"left out: {line}")
    photos, own = found.photos, found.groups
    _check_variety(found.labels, own)
    said = out_of_fold(photo_features(job, photos), found.labels, own, job.config.seed)
    every = [*photos, *found.contradictory]
    labels = np.array([photo.label for photo in every])
    pairs = near_pairs([photo.thumbnail for photo in every], labels, SAME_PICTURE)
    judged = [JudgedPhoto(photo, float(value)) for photo, value in zip(photos, said, strict=True)]
    doubts = sorted((one for one in judged if one.agreement < 0.5), key=lambda one: one.agreement)
    clear = [one for one in judged if one.agreement >= 0.5 and not one.photo.label]
    return LabelReport(
        model=job.config.model,
        judged=len(photos),
        doubts=doubts,
        pairs=[NearPair(every[one], every[other], value) for one, other, value in pairs],
        hard_negatives=sorted(clear, key=lambda one: -one.roadwork)[:HARD_NEGATIVES],
        skipped=found.skipped,
    )


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], own: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Return the probability of roadwork of each photo, by a layer that has learnt from the other folds.

    Args:
        features: shape (photos, width).
        labels: as they are in doubt.
        own: numbers of the groups of near-identical photos, which are in one fold.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    said = np.empty(len(labels))
    splits = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels, own)
    for learnt, held in splits:
        layer = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
        model = make_pipeline(StandardScaler(), layer).fit(features[learnt], labels[learnt])
        said[held] = model.predict_proba(features[held])[:, 1]
    return said


def _check_variety(labels: NDArray[np.int64], own: NDArray[np.int64]) -> None:
    """Want photos of each class that can judge each other.

    Raises:
        DetectorConfigError: a class has fewer than folds; near-identical photos count once.
    """
    for label, kind in enumerate(CLASSES):
        count = len(np.unique(own[labels == label]))
        if count < FOLDS:
            raise DetectorConfigError(
                f"{kind}: {count} photo{'s' * (count != 1)}, if near-identical ones count once; at least {FOLDS} are "
                f"needed to judge each other"
            )


def _read(job: Job) -> LabelledPhotos:
    """Read the photos of a folder, or of its parts as one, so that a copy in another part is seen."""
    config, screen = job.config, job.screen
    folder = Path(config.data).expanduser()
    if config.data.startswith(HUB):
        folder = fetch(config.data.removeprefix(HUB), config.labels, job.cache / "photos", screen)
    with screen.bar("reading photos") as bar:
        if not (folder / PARTS[0]).is_dir():
            return read_photos(folder, lambda done, of: bar(done, total=of), job.machine.cores)
        parts = {
            name: read_photos(folder / name, lambda done, of: bar(done, total=of), job.machine.cores)
            for name in PARTS
            if (folder / name).is_dir()
        }

    def named(name: str, photos: Sequence[Photo]) -> list[Photo]:
        return [replace(photo, name=f"{name}/{photo.name}") for photo in photos]

    return LabelledPhotos(
        [photo for name, part in parts.items() for photo in named(name, part.photos)],
        [f"{name}/{line}" for name, part in parts.items() for line in part.skipped],
        [photo for name, part in parts.items() for photo in named(name, part.contradictory)],
    )
