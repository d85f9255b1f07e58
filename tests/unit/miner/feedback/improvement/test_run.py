"""A run's end: what serves by now counts, a half-done promotion can be taken back, and no model in use is pruned."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast, get_args

import pytest

from detectors.errors import DetectorError
from detectors.evaluation.branch_file import BranchFile
from detectors.photos.labelled import CLASSES
from miner.cli.improve import _undo
from miner.cli.training import make_screen
from miner.errors import CouldNotStart
from miner.feedback.improvement.partition import TABLE, PartPhoto, Source
from miner.feedback.improvement.promotion import ChosenModel, SettingsPlace, serving
from miner.feedback.improvement.run import ImprovementRun, Workplace
from miner.feedback.improvement.state import (
    ANSWERS,
    KEPT,
    PHOTOS,
    Improvement,
    ImprovementOptions,
    Step,
    StepRecord,
    prune,
    runs_in,
    yaml_of,
)
from miner.feedback.improvement.worker import Children
from miner.settings.settings import Settings
from tests.process.graphs import write_model


class Place:
    """A state folder with a run whose candidate is better, and the settings file of a miner that does not run."""

    def __init__(self, folder: Path) -> None:
        self.first, self.file = write_model(folder / "first"), folder / "miner.env"
        self.home = folder / "state" / "improvements"
        self.folder = self.make("2026-11-30-1716")
        self.file.write_text(f"STATE_DIR={folder / 'state'}\nIMAGE_DETECTOR_CONFIG={self.first}\n")

    def make(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir(parents=True)
        (folder / "model").mkdir()
        write_model(folder / "model" / "served")
        yaml_of(folder).write_text("model_folder: model/served\n")
        steps: dict[Step, StepRecord] = {
            step: StepRecord(ended=1, seconds=1) for step in ImprovementRun.steps if step != "promote"
        }
        steps["train"].facts["detector"] = "ViT"
        serves = ["ViT", str(self.first)]
        state = Improvement(
            options=ImprovementOptions(), started=1, ended=1, verdict="better", steps=steps, serves=serves
        )
        state.write(folder)
        return folder

    def run(self, folder: Path | None = None) -> ImprovementRun:
        folder = folder or self.folder
        return ImprovementRun(folder, Improvement.read(folder), self.work)

    @property
    def work(self) -> Workplace:
        place, children = SettingsPlace(self.file, "", lambda: None), cast(Children, Idle())
        return Workplace(
            self.settings,
            self.file,
            place,
            children,
            make_screen(),
            None,
            lambda *_: None,
            lambda: serving(self.settings),
        )

    @property
    def settings(self) -> Settings:
        return Settings.load(self.file)


class Idle:
    """No command runs."""

    def refuse_stopped(self) -> None:
        return

    def run(self, arguments: Sequence[str], out: Path) -> int:
        return 2

    def compute(self, function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_somebody_made_serve_meanwhile_is_not_replaced(place: Place, tmp_path: Path) -> None:
    run = place.run()
    other = write_model(tmp_path / "other")
    place.file.write_text(text := place.file.read_text().replace(str(place.first), str(other)))
    with pytest.raises(CouldNotStart):
        run.run(promotes=True)
    assert place.file.read_text() == text


def test_a_promotion_that_a_kill_has_halved_is_undone(place: Place) -> None:
    text = place.file.read_text()
    run = place.run()
    run.run(promotes=True)
    run.state.promoted, run.state.promoting = False, True  # as it was before the reload
    run.state.steps.pop("promote")
    run.state.write(place.folder)
    assert str(place.folder) in place.file.read_text()
    _undo(place.work)
    assert place.file.read_text() == text
    state = Improvement.read(place.folder)
    assert state.undone
    assert not state.promoting


def test_neither_the_tenth_nor_what_models_chose_moves_the_threshold(place: Place) -> None:
    sources = get_args(Source)
    photos = [
        PartPhoto(f"{number:064}", CLASSES[number % 2], sources[number // 12], "", 0, number, is_known=number % 3 == 0)
        for number in range(12 * len(sources))
    ]
    said = [
        {"picture": f"{one.digest}.jpg", "said": {"as it is": {"now": 0.2, "new": number / 100}}}
        for number, one in enumerate(photos)
    ]
    for name in (ANSWERS, PHOTOS):
        (place.folder / name).mkdir()
    (place.folder / PHOTOS / TABLE).write_text(json.dumps([asdict(one) for one in photos]))
    (place.folder / ANSWERS / "own-0.json").write_text(json.dumps({"answers": said}))
    run = place.run()
    assert run._calibrate()["written"] is False
    fitted = BranchFile.read(place.folder / "answers.npz").branches["candidate"]
    judges = [number / 100 for number, one in enumerate(photos) if one.source in {"labelled", "own"}]
    assert sorted(fitted.tolist()) == judges


def test_what_is_gone_is_not_made_to_serve_again(place: Place) -> None:
    place.run().run(promotes=True)
    text = place.file.read_text()
    shutil.rmtree(place.first.with_suffix(""))
    with pytest.raises(DetectorError):
        _undo(place.work)
    assert place.file.read_text() == text
    assert Improvement.read(place.folder).promoted


def test_a_branch_of_what_serves_is_not_pruned(place: Place, tmp_path: Path) -> None:
    for number in range(1, KEPT + 2):
        place.make(f"2026-12-0{number}-0000")
    both = tmp_path / "both.yaml"
    both.write_text(f"branches:\n  one: {{config: {place.first}}}\n  two: {{config: {yaml_of(place.folder)}}}\n")
    place.file.write_text(f"STATE_DIR={tmp_path / 'state'}\nIMAGE_DETECTOR=Ensemble\nIMAGE_DETECTOR_CONFIG={both}\n")
    assert prune(place.home, place.settings, place.folder) == ["2026-12-01-0000"]
    link = tmp_path / "link.yaml"
    link.symlink_to(yaml_of(place.folder))
    for config in (both, link):
        place.file.write_text(place.file.read_text() + f"IMAGE_DETECTOR_CONFIG={config}\n")
        assert prune(place.home, place.settings, place.home / "2026-12-06-0000") == []
    place.file.write_text(f"STATE_DIR={tmp_path / 'state'}\n")
    assert prune(place.home, place.settings, place.home / "2026-12-06-0000") == [place.folder.name]


def test_a_run_that_can_not_be_removed_ends_no_night(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, KEPT + 2):
        place.make(f"2026-12-0{number}-0000")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert prune(place.home, place.settings, place.home / "2026-12-06-0000") == []
    assert len(runs_in(place.home)) == KEPT + 2


def test_the_candidate_of_a_run_is_what_its_promotion_sets(place: Place) -> None:
    run = place.run()
    run.run(promotes=True)
    assert serving(place.settings) == run.candidate == ChosenModel("ViT", str(yaml_of(place.folder)))
