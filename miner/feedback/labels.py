"""The operator's labels: a folder for each class and a CSV file, written so that no crash loses one.

A photo's label is the folder it lies in, under its content's SHA-256: it can be moved by hand, and `train` and
`evaluate` read the folder as it is. `labels.csv` says when and why each was labelled, and what was skipped.
"""

import csv
import hashlib
import io
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, NamedTuple, get_args

from detectors.files import as_owner, flush, held_alone, write_safely
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


class Intake(NamedTuple):
    """What became of the photos of a folder that was imported.

    Attributes:
        new: how many got a label.
        known: how many had one.
        others: how many of those have the other label here, which stands.
        left_out: a line for each that could not be used, with the reason.
    """

    new: int
    known: int
    others: int
    left_out: list[str]


class Labels:
    """The labels of a folder, by digest, the oldest first; whoever changes them has the folder to himself.

    A label counts from the moment its photo lies in the folder of its class: the table is written before that, and a
    row without a photo means nothing. So whatever a kill or a full disk comes between, the label is the old or the new.
    All is written as the folder's owner.
    """

    def __init__(self, folder: Path) -> None:
        """Read a folder, if it is there: files moved by hand count as they lie.

        Of a photo in both classes the row counts, and without a row it is undecided.

        Raises:
            ConfigurationError: its table can't be read.
        """
        self.folder = folder
        self._paths: dict[str, Path] = {}
        self._strays: list[Path] = []  # in another class than the row says
        self._doubtful: dict[str, Path] = {}
        rows = {label.digest: label for label in _read(folder / TABLE)}
        kinds: dict[str, Kind] = {digest: "skip" for digest, label in rows.items() if label.kind == "skip"}
        found: dict[str, dict[Kind, Path]] = {}
        for kind in KINDS:
            for path in _photos(folder / kind):
                found.setdefault(path.stem, {})[kind] = path
        for digest, paths in found.items():
            said = rows[digest].kind if digest in rows else None
            if len(paths) == 1:
                kinds[digest], self._paths[digest] = next(iter(paths.items()))
            elif said in paths:
                kinds[digest], self._paths[digest] = said, paths[said]
                self._strays += [path for kind, path in paths.items() if kind != said]
            else:
                kinds.pop(digest, None)
                self._doubtful[digest] = paths["roadwork"]
                self._strays.append(paths["no_roadwork"])
        now = {digest: rows.get(digest) or Label(digest, kind, 0.0, "import") for digest, kind in kinds.items()}
        self._labels = _in_order({digest: replace(label, kind=kinds[digest]) for digest, label in now.items()})

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

    def kept(self, digest: str) -> Path | None:
        """Return where a photo lies here, whatever its label is; None: it was never labelled."""
        return self._paths.get(digest) or self._aside().get(digest)

    def undecided(self) -> dict[str, Path]:
        """Return the photos whose label was taken back, by digest."""
        return {digest: path for digest, path in self._aside().items() if digest not in self}

    def put(self, label: Label, photo: bytes = b"") -> None:
        """Label a photo, or label it anew; on the disk when this returns.

        Args:
            label: what is said of it.
            photo: its file's content; it is not looked at where the photo is here already.

        Raises:
            OSError: the disk does not take it; the label before stays.
        """
        before, old = self._labels, self._labels.get(label.digest)
        # A row means something without a file only where it says skipped: then the file goes first.
        is_file_first = old is not None and old.kind == "skip" and label.kind != "skip"
        with as_owner(self.folder):
            try:
                if is_file_first:
                    self._place(label, photo)
                self._write(_in_order(before | {label.digest: label}))
                if not is_file_first:
                    self._place(label, photo)
            except OSError:
                with suppress(OSError):
                    if is_file_first and old is not None:
                        self._place(old, b"")
                self._restore(before)
                raise

    def take_back(self, digest: str) -> Label:
        """Take a label back; the photo stays, undecided.

        Raises:
            OSError: the disk does not take it; the label stays.
        """
        before, label, path = self._labels, self._labels[digest], self._paths.get(digest)
        path = path if path is not None and path.exists() else None  # somebody may have removed it by hand
        with as_owner(self.folder):
            aside = self._move(path, UNDECIDED) if path is not None else None
            try:
                self._write({other: one for other, one in before.items() if other != digest})
            except OSError:
                if path is not None and aside is not None:
                    self._move(aside, path.parent.name)
                self._restore(before)
                raise
        self._paths.pop(digest, None)
        return label

    def take_in(self, folder: Path, at: float, tell: Callable[[str, int, int], None] = lambda *_: None) -> Intake:
        """Import a folder of labelled photos; a photo that has a label keeps it. What a kill leaves is kept.

        Args:
            folder: with a folder for each class, or for one of them.
            at: seconds since 1970, for the table.
            tell: is told what is done, how many, and of how many.

        Raises:
            DetectorConfigError: it is no such folder.
            OSError: the disk does not take them; those before stay.
        """
        read = read_photos(folder, lambda done, of: tell("reading", done, of), one_will_do=True)
        left_out = list(read.skipped)
        found = {photo.digest: photo for photo in read.photos}
        new = [photo for digest, photo in found.items() if digest not in self]
        others = sum(_is_otherwise(self._labels.get(digest), photo.label == 1) for digest, photo in found.items())
        rows = [Label(photo.digest, KINDS[0] if photo.label else KINDS[1], at, "import") for photo in new]
        before, taken = self._labels, dict[str, Label]()
        if rows:
            with as_owner(self.folder):
                self._write(_in_order(before | {row.digest: row for row in rows}))
        try:
            for number, (row, photo) in enumerate(zip(rows, new, strict=True), 1):
                data = photo.path.read_bytes()
                if hashlib.sha256(data).hexdigest() != photo.digest:
                    left_out.append(f"{photo.name}: changed while it was read")
                    continue
                with as_owner(self.folder):
                    self._place(row, data)
                taken[row.digest] = row
                tell("importing", number, len(rows))
        finally:
            self._labels = _in_order(before | taken)
        return Intake(len(taken), len(found) - len(new), others, left_out)

    def tidy(self) -> None:
        """Delete what a kill has left: halves of files, and copies in a class that is not the label's."""
        with as_owner(self.folder):
            halves = [path for name in ("", *KINDS, UNDECIDED) for path in (self.folder / name).glob("*.partial")]
            for path in (*halves, *self._strays):
                path.unlink(missing_ok=True)
            for path in self._doubtful.values():
                self._move(path, UNDECIDED)
            self._strays, self._doubtful = [], {}

    def _aside(self) -> dict[str, Path]:
        return {path.stem: path for path in _photos(self.folder / UNDECIDED)} | self._doubtful

    def _place(self, label: Label, photo: bytes) -> None:
        """Have a photo lie where its label says, on the disk."""
        here = self.kept(label.digest)
        if label.kind == "skip":
            if here is not None and here.parent.name != UNDECIDED:
                self._move(here, UNDECIDED)
            self._paths.pop(label.digest, None)
            return
        if here is not None:
            self._paths[label.digest] = self._move(here, label.kind)
            return
        target = self.folder / label.kind / image_name(label.digest, photo)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        write_safely(target, photo, mode=0o600)
        try:
            flush(target.parent)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        self._paths[label.digest] = target

    def _move(self, path: Path, name: str) -> Path:
        home = self.folder / name
        home.mkdir(exist_ok=True, mode=0o700)
        moved = path.replace(home / path.name)
        try:
            for folder in {home, path.parent}:
                flush(folder)
        except OSError:
            moved.replace(path)
            raise
        return moved

    def _restore(self, before: dict[str, Label]) -> None:
        """Have the table say what it said; where the disk does not take that either, it says what means nothing."""
        with suppress(OSError):
            self._write(before)
        self._labels = before

    def _write(self, labels: Mapping[str, Label]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_safely(self.folder / TABLE, _table(labels.values()), mode=0o600)
        flush(self.folder)
        self._labels = dict(labels)


def _table(labels: Iterable[Label]) -> bytes:
    text = io.StringIO()
    table, names = csv.writer(text, lineterminator="\n"), [field.name for field in fields(Label)]
    table.writerow(names)
    table.writerows([getattr(label, name) for name in names] for label in labels)  # thousands, with each label
    return text.getvalue().encode()


def _in_order(labels: Mapping[str, Label]) -> dict[str, Label]:
    return {label.digest: label for label in sorted(labels.values(), key=lambda label: (label.at, label.digest))}


def _is_otherwise(label: Label | None, is_roadwork: bool) -> bool:
    return label is not None and label.kind != "skip" and label.is_roadwork != is_roadwork


def write_copy(labels: Labels, folder: Path, tell: Callable[[int, int], None] = lambda *_: None) -> int:
    """Export the labels: the photos in a folder for each class, and the table; all of it or nothing.

    Args:
        labels: that are to be copied.
        folder: that is not there yet, or empty.
        tell: is told how many are done, and of how many.

    Returns:
        How many photos.

    Raises:
        ConfigurationError: something is in the folder.
        OSError: it can't be written, or a photo not be read.
    """
    target = folder.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"--export={folder}: it is not empty; a folder that is new or empty is needed")
    decided = labels.decided
    with as_owner(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        for number, label in enumerate(decided, 1):
            source = labels.path_of(label.digest)
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != label.digest:  # root may export for a service, whose user may link
                raise FileNotFoundError(f"{source.name}: not the photo of its name")
            with as_owner(target):
                (partial / label.kind).mkdir(exist_ok=True)
                write_safely(partial / label.kind / source.name, data)
            tell(number, len(decided))
        with as_owner(target):
            write_safely(partial / TABLE, _table(labels))
            partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return len(decided)


@contextmanager
def editing(folder: Path) -> Iterator[Labels]:
    """Have the labels of a folder to oneself; what a kill has left there is cleared away.

    Raises:
        ConfigurationError: its table can't be read.
        CouldNotStart: another process labels there, or the folder can't be made or read.
    """
    with ExitStack() as stack:
        try:
            with as_owner(folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            is_free = stack.enter_context(held_alone(folder))
            labels = Labels(folder) if is_free else None
            if labels is not None:
                labels.tidy()
        except OSError as error:
            raise CouldNotStart(f"{folder}: can't be used: {error.strerror or error}") from error
        if labels is None:
            raise CouldNotStart(f"{folder}: another `label` has it open")
        yield labels


def _read(table: Path) -> Iterator[Label]:
    """Yield the rows of a table, of another version too: a column more or less is none of a fault.

    Raises:
        ConfigurationError: it is no such table.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # a spreadsheet puts a mark in front
            yield from (_label(row) for row in csv.DictReader(file) if any(row.values()))  # it leaves blank rows, too
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ConfigurationError(f"{table}: can't be read: {error}") from error


def _label(row: Mapping[str, str]) -> Label:
    digest, kind = row["digest"], row["kind"]
    if not DIGEST.fullmatch(digest) or kind not in get_args(Kind):
        raise ValueError(f"{digest!r}, {kind!r}: no photo and no label")
    reason, said = row.get("reason"), row.get("prediction")
    at, prediction = float(row.get("at") or 0), float(said) if said else None
    if not math.isfinite(at) or not math.isfinite(prediction or 0.0):
        raise ValueError(f"{digest}: its numbers are none")
    return Label(digest, kind, at, reason if reason in get_args(Reason) else "import", prediction)  # type: ignore[arg-type]


def _photos(folder: Path) -> list[Path]:
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.suffix in SUFFIXES and DIGEST.fullmatch(path.stem)]
