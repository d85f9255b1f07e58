"""The progress of a run, in its folder: what its screen shows goes into a file, and who watches reads it there."""

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from detectors.console import BarState, Screen
from detectors.errors import DetectorConfigError
from detectors.files import FolderLocks, is_in_use, write_safely
from detectors.models.documents import shown
from detectors.training.budget import COLUMNS
from detectors.training.config import CONFIG_FILE, TrainConfig
from detectors.training.job import (
    CHOSEN_FILE,
    HISTORY_FILE,
    PROGRESS_FILE,
    RESOURCES_FILE,
    RESULTS_FILE,
    RESUMABLE,
    StoppedEarly,
)

WRITE_SECONDS = 1.0  # between two writes of what moves
HISTORY_SECONDS = 2.0  # between two writes of the curves, which grow
KEPT_LINES = 8
History = Sequence[Mapping[str, float]]
RunState = Literal["running", "finished", "stopped", "failed", "killed"]


class ProgressFile:
    """Writes what a run's screen shows into its folder, from entry to exit; meanwhile the folder is locked.

    The lock says that the run goes on: the kernel takes it away however the process ends.
    """

    def __init__(self, run: Path, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._screen, self._clock = run, screen, clock
        self._lines: list[str] = []
        self._state: BarState | None = None
        self._started, self._written = time.time(), -WRITE_SECONDS

    def __enter__(self) -> Self:
        self._lock = FolderLocks(self._run)
        self._screen.listener = self
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._screen.listener = None
        self._state = None
        self._write(None if kind is None else str(error) or kind.__name__, stopped=isinstance(error, StoppedEarly))
        self._lock.close()

    def line_said(self, words: str) -> None:
        """Keep the last lines."""
        self._lines = [*self._lines, words][-KEPT_LINES:]
        self._write()

    def bar_moved(self, state: BarState | None) -> None:
        """Keep the bar; a step that begins or ends is written at once."""
        is_new = self._state is None or state is None or self._state.what != state.what
        self._state = state
        if is_new or self._clock() - self._written >= WRITE_SECONDS:
            self._write()

    def _write(self, error: str | None = None, *, stopped: bool = False) -> None:
        self._written = self._clock()
        state = None if self._state is None else asdict(self._state)
        facts = {
            "started": self._started, "at": time.time(), "bar": state, "lines": self._lines, "error": error,
            "stopped": stopped,
        }  # fmt: skip
        path = self._run / PROGRESS_FILE
        partial = path.with_suffix(".partial")
        with suppress(OSError):  # a full disk is told of by what has to be kept
            partial.write_text(json.dumps(facts), encoding="utf-8")  # not flushed: nobody needs it after a power cut
            partial.replace(path)


class HistoryFile:
    """Writes the log of losses and validations while it grows."""

    def __init__(self, run: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock, self._written = run / HISTORY_FILE, clock, -HISTORY_SECONDS

    def write(self, history: History) -> None:
        """Write it, unless that was just done."""
        now = self._clock()
        if now - self._written >= HISTORY_SECONDS:
            self._written = now
            write_safely(self._path, json.dumps(list(history), indent=1).encode())


@dataclass(frozen=True, slots=True)
class ResourceRow:
    """A row of the resource log: cores in use, bytes, and the share of the time spent waiting for photos."""

    cores: float
    resident: float
    available: float
    waiting: float


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its folder shows it.

    Attributes:
        run: the folder.
        state: whether it goes on, and how it ended.
        words: why it ended.
        model: what is trained, in words.
        epochs: at most.
        started: seconds since 1970, of the last start; None: not known.
        at: of what is shown, likewise.
        bar: how far the step at work is.
        lines: the last ones that were said.
        history: the log of losses and validations, as transformers' Trainer writes it.
        resources: the resource log.
    """

    run: Path
    state: RunState
    words: str
    model: str
    epochs: int
    started: float | None
    at: float
    bar: BarState | None
    lines: Sequence[str] = ()
    history: History = ()
    resources: Sequence[ResourceRow] = field(default=())

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return the epochs and values of a kind of figure in the log."""
        return [(entry["epoch"], entry[key]) for entry in self.history if key in entry]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON takes it; of the resources the last row."""
        last = asdict(self.resources[-1]) if self.resources else None
        return asdict(self) | {"run": str(self.run), "resources": last}


def read_run(run: Path) -> RunView:
    """Read a run's folder: one that goes on, has ended, or was killed.

    Raises:
        DetectorConfigError: it holds no run, or a file of it is damaged.
    """
    path = run / CONFIG_FILE
    if not path.is_file():
        raise DetectorConfigError(f"--watch={run}: no {CONFIG_FILE} in there, so no run to watch")
    is_running = is_in_use(run)  # before the files: a run that ends meanwhile is read as ended the next time
    config = TrainConfig.read(path)
    progress = _read(run / PROGRESS_FILE, dict) or {}
    results, error = _results(run / RESULTS_FILE, progress.get("started", 0.0)), progress.get("error")
    ended = "" if results is None else str(results["ended"])
    state: RunState
    if is_running:
        state, words = "running", ""
    elif error is not None:
        state, words = "stopped" if progress.get("stopped") else "failed", str(error)
    elif results is not None:
        state, words = "stopped" if ended in RESUMABLE else "finished", ended
    else:
        begun = (run / CHOSEN_FILE).is_file()
        state, words = "killed", f"--resume {run} goes on from the last checkpoint" if begun else "before it trained"
    bar = progress.get("bar") if is_running else None
    return RunView(
        run, state, words, config.words,
        config.most_epochs, progress.get("started"), progress.get("at", path.stat().st_mtime),
        BarState(**bar) if bar is not None else None, progress.get("lines", []), _read(run / HISTORY_FILE, list) or [],
        _resources(run / RESOURCES_FILE),
    )  # fmt: skip


def _results(path: Path, started: float) -> Any:
    """Return the results of the last start, if it has come to any: a resumed run has those of the one before."""
    with suppress(FileNotFoundError):
        return _read(path, dict) if path.stat().st_mtime >= started else None
    return None


def _read(path: Path, kind: type) -> Any:
    """Return what a JSON file holds, a list of objects or an object; None: it is not there."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DetectorConfigError(f"{path}: is damaged: {error}") from error
    entries = found if kind is list and isinstance(found, list) else []
    if not isinstance(found, kind) or not all(isinstance(entry, dict) for entry in entries):
        raise DetectorConfigError(f"{path}: is damaged: {shown(found)} was not written by a training")
    return found


def _resources(path: Path) -> list[ResourceRow]:
    # The last row may be on its way; a damaged file of what only the eye looks at is none.
    with suppress(FileNotFoundError, ValueError), path.open(newline="", encoding="ascii") as file:
        rows = [row for row in csv.DictReader(file) if len(row) == len(COLUMNS) and row[COLUMNS[-1]]]
        return [
            ResourceRow(
                float(row["cpu_share"]), float(row["resident_mb"]) * 1e6, float(row["available_mb"]) * 1e6,
                float(row["waiting_share"]),
            )
            for row in rows
        ]  # fmt: skip
    return []
