"""One training: where it happens, what it may take, and what came out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectors.console import Screen
from detectors.errors import DetectorConfigError
from detectors.files import write_safely
from detectors.training.budget import Machine, Probe
from detectors.training.config import CONFIG_FILE, TrainConfig
from detectors.training.schedule import UNFINISHED

CHOSEN_FILE, HISTORY_FILE, RESULTS_FILE = "chosen.json", "history.json", "results.json"


@dataclass(frozen=True, slots=True)
class Job:
    """What a training is given.

    Attributes:
        config: what to train.
        run: its folder.
        cache: holds the features of frozen networks, for all runs.
        machine: what it may take.
        probe: what the machine says at a moment.
        screen: who is told.
        resume: go on where the run was killed.
    """

    config: TrainConfig
    run: Path
    cache: Path
    machine: Machine
    probe: Probe
    screen: Screen
    resume: bool = False

    @property
    def threads(self) -> int:
        """Threads of a network's operators."""
        return self.config.threads or self.machine.cores


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the machine and the data decided at the first start; a resumed run does not decide again."""

    micro_batch: int
    precision: str
    workers: int
    seconds_per_photo: float
    photos: str  # sum over all photos and their parts
    views: int | None = None  # changed copies of each photo that have features

    def write(self, run: Path) -> None:
        """Save it in the run's folder."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        write_safely(run / CHOSEN_FILE, json.dumps(facts, indent=2).encode())

    @classmethod
    def read(cls, run: Path, photos: str) -> "Chosen | None":
        """Read it, if the run got that far.

        Raises:
            DetectorConfigError: the photos are others than then, so that the run could not go on as it was.
        """
        path = run / CHOSEN_FILE
        if not path.is_file():
            return None
        chosen = cls(**json.loads(path.read_bytes()))
        if chosen.photos != photos:
            raise DetectorConfigError(f"{run}: the photos have changed since this run was started; start another one")
        return chosen


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a training.

    Attributes:
        original: the trained weights: a Hugging Face folder, or an Ultralytics `.pt` file.
        history: the log of losses and validations, as transformers' Trainer writes it.
        epochs: how many were trained.
        why: it ended, in words.
        facts: what else the model card should say.
    """

    original: Path
    history: Sequence[Mapping[str, float]]
    epochs: int
    why: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def open_run(run: Path, config: TrainConfig | None) -> TrainConfig:
    """Make a run's folder and save the configuration there; or, without one, read that of the run to be resumed.

    What is saved means the same from any working folder.

    Raises:
        DetectorConfigError: the folder holds a run already, or none to resume; or the photos are not there.
    """
    path = run / CONFIG_FILE
    if config is None:
        if not path.is_file():
            raise DetectorConfigError(f"--resume={run}: no {CONFIG_FILE} in there, so no run to resume")
        if _has_ended(run / RESULTS_FILE):
            raise DetectorConfigError(f"--resume={run}: this run has ended; {RESULTS_FILE} says how")
        config = TrainConfig.read(path)
        config.check_places()
        return config
    if path.is_file():
        raise DetectorConfigError(
            f"--out={run}: holds a run already; continue it with --resume, or give another folder"
        )
    config.check_places()
    run.mkdir(parents=True, exist_ok=True)
    config = config.anchored()
    config.write(run)
    return config


def _has_ended(results: Path) -> bool:
    """Return whether a run came to its end; one that time or a signal ended has results, and may go on."""
    return results.is_file() and json.loads(results.read_bytes()).get("ended") not in UNFINISHED
