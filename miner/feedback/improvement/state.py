"""The state of a run of `improve`: what it was asked for, which steps are done, and what came of them.

It lies as `state.json` in the run's folder, and is written as a whole, so that a kill loses the step at work alone.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from detectors.errors import DetectorConfigError
from detectors.files import held_alone, is_in_use, write_safely
from detectors.models.config import read_config
from miner.errors import ConfigurationError, CouldNotStart
from miner.settings.settings import Settings

Step = Literal["collect", "folds", "train", "teach", "ask", "calibrate", "judge", "report", "shadow", "promote"]
STATE = "state.json"
PHOTOS, ANSWERS = "photos", "answers"  # folders of a run
SERVED = "served"  # the model folder of a run of `train`
NAMES = "%Y-%m-%d-%H%M"  # of the folders of runs, by their start
KEPT = 5  # runs, besides those that are served


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImprovementOptions(_Part):
    """What a run was asked for; a resumed one keeps to it."""

    data: list[str] = []
    model: str | None = None
    settings: list[str] = []
    cache: str | None = None
    self_train: bool = False
    teacher: str | None = None


class StepRecord(_Part):
    """A step that has ended: when, after how long, the command lines that did it, and what came of it."""

    ended: float
    seconds: float
    commands: list[str] = []
    facts: dict[str, Any] = {}


class GainFigures(_Part):
    """The reward that a candidate earns more than what serves, with its interval, on the photos that decide."""

    value: float
    low: float
    high: float


class Improvement(_Part):
    """A run's state, as it lies in its folder.

    Attributes:
        options: what it was asked for.
        started: in seconds since 1970.
        steps: those that have ended.
        commands: the command lines of the step at work.
        serves: what served when the candidate was judged.
        ended: when all steps had ended; None: it goes on.
        verdict: on the candidate.
        gain: of reward.
        before: lines of the settings file, before this run changed them.
        shadowed: whether the candidate was put beside what serves.
        promoting: whether that has begun, and a kill may have come between the settings file and the reload.
        promoted: whether it was made to serve, and still is.
        undone: whether that was undone.
    """

    options: ImprovementOptions
    started: float
    steps: dict[Step, StepRecord] = {}
    commands: list[str] = []
    serves: list[str] = []
    ended: float | None = None
    verdict: Literal["better", "not better", "worse"] | None = None
    gain: GainFigures | None = None
    before: dict[str, str | None] = {}
    shadowed: bool = False
    promoting: bool = False
    promoted: bool = False
    undone: bool = False

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read that of a folder.

        Raises:
            ConfigurationError: it can't be read.
        """
        try:
            return cls.model_validate_json((folder / STATE).read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigurationError(f"{folder / STATE}: can't be read: {str(error).splitlines()[0]}") from error

    def write(self, folder: Path) -> None:
        """Write it into a folder, as a whole."""
        write_safely(folder / STATE, self.model_dump_json(indent=1).encode())

    @property
    def may_be_promoted(self) -> bool:
        """Whether its candidate is better, and waits."""
        return self.ended is not None and self.verdict == "better" and not (self.promoted or self.undone)


def candidate_name(folder: Path) -> str:
    """Return the name of a run's candidate, by which pages, metrics and figures know it."""
    return f"improved-{folder.name}"


def yaml_of(folder: Path) -> Path:
    """Return the YAML file of a run's candidate."""
    return folder / f"{candidate_name(folder)}.yaml"


def runs_in(home: Path) -> dict[Path, Improvement]:
    """Return the runs of a folder, the latest first; what can't be read is none."""
    found: dict[Path, Improvement] = {}
    for folder in sorted(home.iterdir(), reverse=True) if home.is_dir() else ():
        with suppress(ConfigurationError):
            if (folder / STATE).is_file():
                found[folder] = Improvement.read(folder)
    return found


@contextmanager
def improving(home: Path) -> Iterator[None]:
    """Have the folder of all runs to oneself.

    Raises:
        CouldNotStart: another process improves.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    if home.is_symlink():
        raise CouldNotStart(f"{home}: is a link, and a folder is needed")
    with held_alone(home) as is_free:
        if not is_free:
            raise CouldNotStart(f"{home}: another `improve` is at work")
        yield


def prune(home: Path, settings: Settings, current: Path) -> list[str]:
    """Remove old runs, but for the last few, those that are served or shadowed, and what an undo goes back to.

    An ensemble's file may lie elsewhere and name a run's model as a branch. What another user has made stays.
    """
    runs = runs_in(home)
    named = [settings.image_detector_config, settings.shadow_detector_config]
    for state in runs.values():
        if state.promoted or state.promoting:
            named += [value for value in state.before.values() if value]
            break
    used = {part for name in named for path in _files_of(name.strip("'\"")) for part in path.parts}
    kept = {current, *list(runs)[:KEPT]}
    removed: list[str] = []
    for folder in runs:
        if folder in kept or folder.name in used or any(map(is_in_use, folder.glob(f"*/{SERVED}"))):
            continue
        with suppress(OSError):
            shutil.rmtree(folder)
            removed.append(folder.name)
    return removed


def _files_of(name: str) -> Iterator[Path]:
    """Yield a model's file, where links lead, and the files and folders that it names itself."""
    yield from (Path(name), Path(name).resolve())
    with suppress(DetectorConfigError, OSError):
        config = read_config(name)
        for one in (config, *(config.branches or {}).values()):
            for path in (one.path, one.model_folder, one.onnx_path, one.weights_path, one.hf_repo):
                if path is not None:
                    yield from (Path(path), Path(path).resolve())
