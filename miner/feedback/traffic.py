"""The traffic that was recorded: each photo once, with what was answered."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from detectors.photos.labelled import SUFFIXES
from miner.errors import ConfigurationError
from miner.feedback.labels import DIGEST
from miner.recorder.records import IMAGES, SEGMENTS, read_records, read_shadow_records

SHADOW = "shadow"  # whose opinion it is


@dataclass(frozen=True, slots=True)
class RecordedPhoto:
    """A photo that a validator has sent, and what was answered last.

    Attributes:
        digest: SHA-256 of its file.
        path: in the recorder's folder, whose oldest photos go.
        at: when it was asked about last, in seconds since 1970; 0: the record is gone.
        prediction: what was answered; None: nothing, or the record is gone.
        opinions: probabilities of the branches and of the shadow, by name.
    """

    digest: str
    path: Path
    at: float = 0.0
    prediction: float | None = None
    opinions: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_disputed(self) -> bool:
        """Whether the models that judged it stand on both sides of 0.5."""
        sides = {value > 0.5 for value in (*self.opinions.values(), self.prediction) if value is not None}
        return len(sides) > 1


def recorded_paths(recorder: Path) -> dict[str, Path]:
    """Return the photos of a recorder's folder by digest, whatever its records say."""
    images = recorder / IMAGES
    paths = images.iterdir() if images.is_dir() else ()
    return {path.stem: path for path in paths if path.suffix in SUFFIXES and DIGEST.fullmatch(path.stem)}


def read_traffic(recorder: Path) -> dict[str, RecordedPhoto]:
    """Return the photos of a recorder's folder by digest, the latest first; empty where nothing is recorded yet."""
    paths = recorded_paths(recorder)
    photos = {digest: RecordedPhoto(digest, path) for digest, path in paths.items()}
    with suppress(ConfigurationError):  # no record: the photos are older than all that are kept
        for record in read_records(recorder):
            if record.image in photos and record.prediction is not None:
                path = paths[record.image]
                photos[record.image] = RecordedPhoto(record.image, path, record.at, record.prediction, record.opinions)
        for said in read_shadow_records(recorder):
            if (photo := photos.get(said.image)) is not None:
                photos[said.image] = replace(photo, opinions={**photo.opinions, SHADOW: said.shadow})
    return dict(sorted(photos.items(), key=lambda item: (-item[1].at, item[0])))


def state_of(recorder: Path) -> object:
    """Return what differs once something was recorded or deleted, without reading any of it."""
    places = [recorder / IMAGES, *sorted(recorder.glob(SEGMENTS))]
    with suppress(OSError):  # one that is deleted meanwhile
        return [(path, state.st_mtime_ns, state.st_size) for path in places for state in (path.stat(),)]
    return None
