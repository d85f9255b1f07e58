"""Whether the check-up notices that the wrong class counts as roadwork."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detectors.models.manifest import Manifest
from miner.doctor.model import InferenceFacts, judge_class, judge_model, read_inference, read_model
from miner.settings.settings import Settings
from tests.reversed import copy_starter, labelled_photos

PATIENCE = 300.0
UNNAMED = ("LABEL_0", "LABEL_1")


def settings_for(folder: Path, index: int, labels: tuple[str, str], keys: str = "") -> Settings:
    copy_starter(folder / "model", index=index, labels=labels)
    (folder / "own.yaml").write_text(f"model_folder: model\n{keys}\n")
    return Settings(image_detector_config=str(folder / "own.yaml"), models_dir=folder / "models", state_dir=folder)


@pytest.mark.parametrize(
    ("index", "labels", "with_photos", "level"),
    [
        (1, ("None", "Roadwork"), False, None),
        (1, ("None", "Roadwork"), True, "ok"),
        (1, UNNAMED, False, None),
        (0, UNNAMED, False, "warning"),  # by drawings
        (0, UNNAMED, True, "problem"),
        (1, ("roadwork", "safe"), False, "problem"),  # by its names
        (1, ("roadwork", "safe"), True, "ok"),  # photos know better
    ],
)
def test_a_reversed_model_is_a_finding_that_names_its_class(
    tmp_path: Path, index: int, labels: tuple[str, str], with_photos: bool, level: str | None
) -> None:
    settings = settings_for(tmp_path, index, labels)
    photos = labelled_photos(tmp_path / "photos") if with_photos else None
    facts = read_model(settings)
    named = f"roadwork = class {index} {labels[index]!r}"
    assert named in judge_model(facts, "finney").words
    finding = judge_class(facts, asyncio.run(read_inference(settings, PATIENCE, photos)))
    assert (finding.level if finding is not None else None) == level
    if finding is not None:
        assert finding.words.startswith(named)
        assert ("looks reversed" in finding.words) is (level != "ok")
        assert bool(finding.todo) is (level != "ok")


def test_what_the_photos_of_the_export_said_is_remembered(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, 0, UNNAMED)
    photos = labelled_photos(tmp_path / "photos")
    run(settings, "export", "--pictures", str(photos))
    judged = Manifest.read(tmp_path / "model").judged
    assert judged is not None
    assert (judged.photos, judged.auc, judged.reversed) == (12, 0.0, True)
    finding = judge_class(read_model(settings), InferenceFacts())
    assert finding is not None
    assert finding.level == "problem"


@pytest.mark.parametrize("index", [0, 1])
def test_export_and_evaluate_say_which_class_counts_and_whether_it_looks_reversed(tmp_path: Path, index: int) -> None:
    settings = settings_for(tmp_path, index, UNNAMED)
    photos = str(labelled_photos(tmp_path / "photos"))
    named = f"roadwork = class {index} 'LABEL_{index}'"
    told = run(settings, "export", "--pictures", photos)
    assert named in told.stderr
    assert ("warning: AUC 0.000 on 12 labelled photos" in told.stderr) is (index == 0)
    told = run(settings, "evaluate", photos)
    assert named in told.stdout
    assert ("reversed?" in told.stdout) is (index == 0)
    figures = json.loads(run(settings, "evaluate", photos, "--json").stdout)
    assert figures["views"]["as it is"]["own"]["reversed"] is (index == 0)


def test_a_key_that_an_exported_folder_can_not_follow_is_a_problem(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, 0, UNNAMED, "roadwork_class_index: 1")
    finding = judge_model(read_model(settings), "finney")
    assert finding.level == "problem"
    assert "LABEL_1" in finding.words


def run(settings: Settings, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "IMAGE_DETECTOR_CONFIG": settings.image_detector_config, "MODELS_DIR": str(settings.models_dir),
        "STATE_DIR": str(settings.state_dir), "COLUMNS": "300",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "miner", *command], capture_output=True, text=True, env=environment, timeout=PATIENCE,
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize("photos", [[], [(True, 0.9)]])
def test_photos_that_tell_nothing_are_told(tmp_path: Path, photos: list[tuple[bool, float]]) -> None:
    facts = read_model(settings_for(tmp_path, 1, UNNAMED))
    asked = InferenceFacts(photos=photos, folder="/some/photos", unread=["a.jpg: the image can't be decoded"])
    finding = judge_class(facts, asked)
    assert finding is not None
    assert finding.level == "warning"
    assert all(part in finding.words for part in (f"{len(photos)} roadwork", "0 no_roadwork", "/some/photos", "a.jpg"))


def test_photos_of_one_class_are_asked_and_what_is_no_photo_is_named(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, 1, UNNAMED)
    photos = labelled_photos(tmp_path / "photos")
    for path in (photos / "no_roadwork").iterdir():
        path.unlink()
    (photos / "roadwork" / "broken.jpg").write_bytes(b"no photo")
    (photos / "roadwork" / "._hidden.jpg").write_bytes(b"of another system")
    asked = asyncio.run(read_inference(settings, PATIENCE, photos))
    assert {label for label, _ in asked.photos} == {True}
    assert [one.partition(":")[0] for one in asked.unread] == ["broken.jpg"]
