"""The answers that models gave to labelled photos, kept by model and photo: nothing is asked twice."""

import io
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from detectors.base import Detector
from detectors.ensemble import Ensemble
from detectors.evaluation.estimates import Floats
from detectors.evaluation.reward import PromisedAccuracy, promised_accuracy
from detectors.files import as_owner, write_safely
from detectors.load import PreparedModel
from detectors.models.calibration import Fusion, Share
from detectors.models.manifest import Manifest
from detectors.photos.labelled import Photo, groups, read_listed
from miner.feedback import is_sampled
from miner.feedback.labels import Label, Labels

FOLDER = "answers"  # in the folder of the labels
THUMBNAILS = "thumbnails.npz"
KEPT_EVERY = 50  # answers, so that a long run that is killed is not for nothing
Tell = Callable[[], None]


def counts(label: Label) -> bool:
    """Return whether a label is one of the random tenth's, which alone say how right a model is.

    An imported photo may be from anywhere, and one that was skipped has no class.
    """
    return label.kind != "skip" and label.reason != "import" and is_sampled(label.digest)


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """The labelled photos of the random tenth, with the thumbnails that near-identical ones are told by.

    Attributes:
        folder: of the labels.
        photos: in an order that depends on their contents alone.
        left_out: why others can't be judged, in words.
        is_new: whether some were decoded that no file remembers yet.
    """

    folder: Path
    photos: list[Photo]
    left_out: list[str]
    is_new: bool = False

    @classmethod
    def read(cls, labels: Labels, tell: Callable[[int, int], None] = lambda _done, _of: None) -> Self:
        """Read them; what was decoded before is remembered beside the labels."""
        folder, known = labels.folder, _read_thumbnails(labels.folder / FOLDER / THUMBNAILS)
        wanted = [label for label in labels if counts(label)]
        paths = {labels.path_of(label.digest): int(label.is_roadwork) for label in wanted}
        seen = [
            Photo(path, path.relative_to(folder).as_posix(), label, path.stem, known[path.stem])
            for path, label in paths.items()
            if path.stem in known
        ]
        new = read_listed(folder, {path: label for path, label in paths.items() if path.stem not in known}, tell)
        fresh = [photo for photo in new.photos if photo.digest == photo.path.stem]
        changed = [f"{photo.name}: not the photo of its name" for photo in new.photos if photo not in fresh]
        photos = sorted([*seen, *fresh], key=lambda photo: photo.digest)
        return cls(folder, photos, [*new.skipped, *changed], bool(fresh))

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Whether each shows roadwork."""
        return np.array([photo.label == 1 for photo in self.photos], dtype=bool)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Numbers of the groups of near-identical photos."""
        if not self.photos:
            return np.empty(0, dtype=np.int64)
        return groups([photo.thumbnail for photo in self.photos])

    def only(self, digests: Container[str]) -> Self:
        """Return those of them that are among some."""
        return replace(self, photos=[photo for photo in self.photos if photo.digest in digests])

    def keep(self) -> None:
        """Remember the thumbnails.

        Raises:
            OSError: the disk does not take them.
        """
        if not self.is_new:
            return
        path = self.folder / FOLDER / THUMBNAILS
        digests = np.array([photo.digest for photo in self.photos])
        content = io.BytesIO()
        np.savez(content, digests=digests, thumbnails=np.stack([photo.thumbnail for photo in self.photos]))
        _write(path, content.getvalue())


def _read_thumbnails(path: Path) -> dict[str, NDArray[np.uint8]]:
    try:
        with np.load(io.BytesIO(path.read_bytes())) as found:
            return dict(zip(found["digests"].tolist(), found["thumbnails"], strict=True))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):  # none yet, or damaged: they are decoded again
        return {}


def fingerprint_of(manifest: Manifest, stages: Iterable[Fusion] = ()) -> str:
    """Return what two models share that give the same answers: weights, class, threshold, views and combination.

    A faster precision of a model has its fingerprint: the gate keeps their answers on the same side.
    """
    moved = manifest.calibration
    branches = (manifest.branches or {}).items()
    said = {
        "model": [manifest.detector, manifest.name, manifest.revision, manifest.output.index, manifest.view_words],
        "map": [manifest.threshold, *([moved.threshold, moved.temperature] if moved is not None else [])],
        "branches": [[name, one.name, one.revision, one.index, one.views] for name, one in branches],
        "stages": [stage.model_dump(mode="json", exclude={"measured"}) for stage in stages],
    }
    return sha256(json.dumps(said).encode()).hexdigest()[:16]


def prepared_fingerprint(model: PreparedModel) -> str:
    """Return the fingerprint of a model that is on this disk."""
    fusion = model.config.fusion
    return fingerprint_of(model.manifest, (*model.config.stages, fusion) if fusion is not None else ())


def detector_fingerprint(detector: Detector) -> str:
    """Return the fingerprint of a model that is loaded."""
    stages = (*detector.cheaper, detector.fusion) if isinstance(detector, Ensemble) else ()
    return fingerprint_of(detector.manifest, stages)


def promise_of(detector: Detector) -> PromisedAccuracy | None:
    """Return how often a model that is loaded was measured to be right on photos kept back."""
    return promised_accuracy(detector.manifest, detector.fusion if isinstance(detector, Ensemble) else None)


class AnswerFile(BaseModel):
    """What a model sent, or would have, for photos, by digest."""

    model_config = ConfigDict(frozen=True)

    model: str
    fingerprint: str
    precision: str
    said: dict[str, Share]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what is kept; None: nothing, or nothing that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None


class AnswerCache:
    """A model's answers, in a file of its own; a photo is asked about once."""

    def __init__(self, labels: Path, model: str, fingerprint: str, precision: str) -> None:
        """Read what is kept below the folder of the labels."""
        self.path = labels / FOLDER / f"{fingerprint}-{precision}.json"
        kept = AnswerFile.read(self.path)
        said = dict(kept.said) if kept is not None else {}
        self.file = AnswerFile(model=model, fingerprint=fingerprint, precision=precision, said=said)

    @property
    def said(self) -> dict[str, float]:
        """What it sent, or would have, by digest."""
        return self.file.said

    def missing(self, photos: Sequence[Photo]) -> list[Photo]:
        """Return those that it was not asked about yet."""
        return [photo for photo in photos if photo.digest not in self.said]

    def ask(self, detector: Detector, photos: Sequence[Photo], tell: Tell = lambda: None) -> None:
        """Ask about photos as they were sent; what was answered is kept, also where it is stopped in the middle.

        Raises:
            DetectorError: it has no answer.
            OSError: a photo is gone, or the disk does not take the answers, which are known all the same.
        """
        try:
            for number, photo in enumerate(photos, 1):
                self.said[photo.digest] = detector.predict(photo.path.read_bytes()).probability
                tell()
                if number % KEPT_EVERY == 0:
                    with suppress(OSError):  # a full disk is told at the end
                        self.keep()
        finally:
            self.keep()

    def keep(self) -> None:
        """Write the file.

        Raises:
            OSError: the disk does not take it.
        """
        _write(self.path, self.file.model_dump_json().encode())


def _write(path: Path, content: bytes) -> None:
    """Write a file below the folder of the labels, as that one's owner: root may have asked for a service."""
    with as_owner(path.parent.parent):
        path.parent.mkdir(exist_ok=True, mode=0o700)
        write_safely(path, content, mode=0o600)


def answers_to(said: Mapping[str, float], photos: Sequence[Photo]) -> Floats:
    """Return the answers in the order of the photos, to all of which there is one."""
    return np.array([said[photo.digest] for photo in photos], dtype=np.float64)
