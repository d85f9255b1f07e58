"""The operator's labels: a folder for each class and a CSV file, written so that no crash loses one.

A photo's label is the folder it lies in, under its content's SHA-256: it can be moved by hand, and `train` and
`evaluate` read the folder as it is. `labels.csv` says when and why each was labelled, and what was skipped.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from detectors.files import flush, held_alone, write_safely
from detectors.photos.labelled import SUFFIXES, read_photos
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback import Reason
from miner.recorder.records import image_name

Kind = Literal["roadwork", "no_roadwork", "skip"]
KINDS: tuple[Literal["roadwork", "no_roadwork"], ...] = ("roadwork", "no_roadwork")  # as the folders are called
DIGEST = re.compile(r"[0-9a-f]{64}")  # a photo's name without its ending
TABLE = "labels.csv"
UNDECIDED = "undecided"  # photos whose label was taken back; the recorder may have lost them


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody said of a photo.

    Attributes:
        digest: SHA-256 of its file.
        kind: its class, or that it was skipped.
        at: seconds since 1970.
        reason: why it was to be labelled.
        prediction: what the miner had answered; None: it is not from the recorder.
    """

    digest: str
    kind: Kind
    at: float
    reason: Reason
    prediction: float | None = None

    @property
    def is_roadwork(self) -> bool:
        """Whether the photo shows roadwork; of one that was not skipped."""
        return self.kind == "roadwork"

    @property
    def is_surprise(self) -> bool:
        """Whether the miner had said otherwise."""
        return self.kind != "skip" and self.prediction is not None and (self.prediction > 0.5) != self.is_roadwork


class Labels:
    """The labels of a folder, by digest, the oldest first; whoever changes them has the folder to himself."""

    def __init__(self, folder: Path) -> None:
        """Read a folder, if it is there: files moved by hand count as they lie, and rows without a file not at all.

        Raises:
            ConfigurationError: its table can't be read.
        """
        self.folder = folder
        self._paths: dict[str, Path] = {}
        rows = {label.digest: label for label in _read(folder / TABLE)}
        kinds: dict[str, Kind] = {digest: "skip" for digest, label in rows.items() if label.kind == "skip"}
        for kind in KINDS:
            for path in _photos(folder / kind):
                row = rows.get(path.stem)
                if path.stem in self._paths and row is not None and row.kind != kind:
                    continue  # a kill came between the copy and the row: the label before stands
                kinds[path.stem], self._paths[path.stem] = kind, path
        now = {digest: rows.get(digest) or Label(digest, kind, 0.0, "import") for digest, kind in kinds.items()}
        labels = [Label(**asdict(label) | {"kind": kinds[digest]}) for digest, label in now.items()]
        self._labels = {label.digest: label for label in sorted(labels, key=lambda label: (label.at, label.digest))}

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, digest: str) -> bool:
        return digest in self._labels

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels.values())

    @property
    def decided(self) -> list[Label]:
        """Those that were not skipped."""
        return [label for label in self if label.kind != "skip"]

    def get(self, digest: str) -> Label | None:
        """Return a photo's label; None: it has none."""
        return self._labels.get(digest)

    def path_of(self, digest: str) -> Path:
        """Return where a labelled photo lies."""
        return self._paths[digest]

    def undecided(self) -> dict[str, Path]:
        """Return the photos whose label was taken back, by digest."""
        return {path.stem: path for path in _photos(self.folder / UNDECIDED)}

    def put(self, label: Label, photo: bytes) -> None:
        """Label a photo, or label it anew; on the disk when this returns.

        Raises:
            OSError: the disk does not take it; the label before stays.
        """
        name = image_name(label.digest, photo)
        before = self._paths.get(label.digest)
        if label.kind != "skip":
            target = self.folder / label.kind / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_safely(target, photo, mode=0o600)
            _flush_names(target.parent)
        elif before is not None:
            before = self._set_aside(before)
        self._write(self._labels | {label.digest: label})
        self._paths.pop(label.digest, None)
        if label.kind != "skip":
            self._paths[label.digest] = target
        if before is not None and before != self._paths.get(label.digest):
            before.unlink(missing_ok=True)
        (self.folder / UNDECIDED / name).unlink(missing_ok=True)

    def take_back(self, digest: str) -> Label:
        """Take a label back; the photo stays, undecided.

        Raises:
            OSError: the disk does not take it; the label stays.
        """
        label = self._labels[digest]
        path = self._paths.get(digest)
        if path is not None:
            self._set_aside(path)
            del self._paths[digest]
        self._write({other: one for other, one in self._labels.items() if other != digest})
        return label

    def _set_aside(self, path: Path) -> Path:
        home = self.folder / UNDECIDED
        home.mkdir(exist_ok=True, mode=0o700)
        return path.replace(home / path.name)

    def _write(self, labels: Mapping[str, Label]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = io.StringIO()
        table = csv.DictWriter(text, [field.name for field in fields(Label)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(label) for label in labels.values())
        write_safely(self.folder / TABLE, text.getvalue().encode(), mode=0o600)
        self._labels = dict(sorted(labels.items(), key=lambda item: item[1].at))

    def take_in(self, folder: Path, at: float) -> tuple[int, int]:
        """Import a folder of labelled photos; return how many are new, and how many had a label already.

        Raises:
            DetectorConfigError: it is no such folder.
            OSError: the disk does not take them; those before stay.
        """
        found = read_photos(folder, one_will_do=True).photos
        new = [photo for photo in found if photo.digest not in self]
        for photo in new:
            kind = KINDS[0] if photo.label else KINDS[1]
            self.put(Label(photo.digest, kind, at, "import"), photo.path.read_bytes())
        return len(new), len(found) - len(new)


@contextmanager
def editing(folder: Path) -> Iterator[Labels]:
    """Have the labels of a folder to oneself.

    Raises:
        ConfigurationError: its table can't be read.
        CouldNotStart: another process labels there.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with held_alone(folder) as is_free:
        if not is_free:
            raise CouldNotStart(f"{folder}: another `label` has it open")
        yield Labels(folder)


def _read(table: Path) -> Iterator[Label]:
    """Yield the rows of a table; none where there is none.

    Raises:
        ConfigurationError: it is no such table.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield _label(row)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{table}: can't be read: {error}") from error


def _label(row: Mapping[str, str]) -> Label:
    kind, reason = row["kind"], row["reason"]
    if kind not in get_args(Kind) or reason not in get_args(Reason):
        raise ValueError(f"{kind!r}, {reason!r}: no label and no reason")
    prediction = float(row["prediction"]) if row["prediction"] else None
    return Label(row["digest"], kind, float(row["at"]), reason, prediction)  # type: ignore[arg-type]


def _photos(folder: Path) -> list[Path]:
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.suffix in SUFFIXES and DIGEST.fullmatch(path.stem)]


def _flush_names(folder: Path) -> None:
    """Have a folder's list of names reach the disk, before a table names what is in it."""
    flush(folder)
