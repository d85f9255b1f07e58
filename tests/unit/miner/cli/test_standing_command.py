"""`standing` on labels of every number and kind: never an error, never a figure that pretends."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.models.manifest import ExportFigures, Manifest
from detectors.models.store import write_manifest
from miner.cli import app
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback import FOLDER
from miner.feedback.figures import LEAST
from miner.feedback.labels import TABLE, Labels
from miner.feedback.standing import FILE, StandingView
from tests.labels import label, record

STARTER = Path(__file__).parents[4] / "detectors" / "starter"
HAS_SCIKIT_LEARN = importlib.util.find_spec("sklearn") is not None


def call(state: Path, *arguments: object, **settings: object) -> Result:
    given = {"STATE_DIR": state, "MODELS_DIR": state / "models"} | settings
    assigned = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    command, *rest = map(str, arguments)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [command, *rest, *assigned, "--no-env-file"])


def told(state: Path, *arguments: object, **settings: object) -> dict[str, Any]:
    done = call(state, "standing", "--json", *arguments, **settings)
    assert done.exception is None, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines(state: Path, *arguments: object, **settings: object) -> str:
    done = call(state, "standing", *arguments, **settings)
    assert done.exception is None, done.output
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "nan" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if line and not line.strip()]  # a row of nothing
    return " ".join(done.stdout.split())


def own_model(folder: Path, judged: ExportFigures | None = None, name: str = "mine") -> Path:
    """Return a copy of the starter that is one's own."""
    shutil.copytree(STARTER, folder / name)
    manifest = Manifest.read(folder / name)
    write_manifest(manifest.model_copy(update={"name": name, "judged": judged}), folder / name)
    yaml = folder / f"{name}.yaml"
    yaml.write_text(f"model_folder: {name}\n")
    return yaml


def test_nothing_at_all_is_said_in_words_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert "RECORDER=images" in lines(tmp_path)
    assert told(tmp_path)["models"] == {}
    assert list(tmp_path.iterdir()) == []


def test_what_was_recorded_waits_for_labels(tmp_path: Path) -> None:
    record(tmp_path, 3, first=0)
    assert "roadwork-miner label" in lines(tmp_path)
    assert told(tmp_path)["photos"]["waiting"] == 3


def test_labels_outside_of_the_tenth_are_counted_and_say_nothing(tmp_path: Path) -> None:
    label(tmp_path, 8, sampled=False, reason="unsure")
    found = told(tmp_path)
    assert found["models"] == {}
    assert (found["photos"]["outside"], found["photos"]["surprises_outside"]) == (16, 8)
    assert "not representative" in lines(tmp_path)
    view = StandingView.read(tmp_path)
    assert view is not None
    assert view.model is None


@pytest.mark.parametrize("count", [1, 4])
def test_a_handful_is_counted_without_a_figure(tmp_path: Path, count: int) -> None:
    label(tmp_path, count)
    (one,) = told(tmp_path)["models"].values()
    assert (one["photos"], one["accuracy"], one["reward"]) == (2 * count, None, None)
    shown = lines(tmp_path)
    assert "%" not in shown
    assert str(LEAST - 2 * count) in shown


@pytest.mark.parametrize("kind", ["roadwork", "no_roadwork"])
def test_one_class_alone_has_no_reward(tmp_path: Path, kind: Any) -> None:
    label(tmp_path, 8, kind=kind)
    found = told(tmp_path)
    (one,) = found["models"].values()
    assert one["accuracy"] is not None
    assert (one["mcc"], one["auc"], one["reward"]) == (None, None, None)
    assert "left_out" in found["threshold"]
    assert "accuracy" in lines(tmp_path)


def test_the_figures_are_of_what_the_model_says_of_these_very_files(tmp_path: Path) -> None:
    digests = label(tmp_path, 10)
    label(tmp_path, 4, first=100, sampled=False, reason="unsure")
    found = told(tmp_path)
    detector = load_detector("ViT", read_config("starter.yaml"), tmp_path, "onnx", RunOptions())
    labels = Labels(tmp_path / FOLDER)
    right = 0
    for digest in digests:
        said, known = detector.predict(labels.path_of(digest).read_bytes()).probability, labels.get(digest)
        assert known is not None
        right += (said > 0.5) == known.is_roadwork
        (shown,) = [row for row in found["answers"] if row["photo"] == digest]
        assert shown == {"photo": digest, "roadwork": known.is_roadwork, "said": {"starter": pytest.approx(said)}}
    one = found["models"]["starter"]
    assert (one["photos"], one["right"]) == (20, right)
    assert one["accuracy"]["value"] == pytest.approx(right / 20)
    assert one["accuracy"]["low"] < right / 20 < one["accuracy"]["high"]
    assert found["narrower"]["more"] > 0
    view = StandingView.read(tmp_path)
    assert view is not None
    assert view.model is not None
    assert view.model.accuracy is not None
    assert view.model.name == "starter"
    assert view.model.accuracy.value == pytest.approx(right / 20)
    assert view.photos.sampled == 20
    shown_lines = lines(tmp_path)
    assert "20 labels" in shown_lines
    assert ("left out" in shown_lines) is not HAS_SCIKIT_LEARN


def test_a_photo_is_asked_about_once(tmp_path: Path) -> None:
    """The model is loaded no more once it has said all: a file of it may even be gone."""
    yaml = own_model(tmp_path)
    label(tmp_path / "state", 6)
    first = told(tmp_path / "state", IMAGE_DETECTOR_CONFIG=yaml)
    (tmp_path / "mine" / "preprocessor_config.json").unlink()
    again = told(tmp_path / "state", IMAGE_DETECTOR_CONFIG=yaml)
    assert again["models"] == first["models"]
    label(tmp_path / "state", 1, first=50)
    assert isinstance(call(tmp_path / "state", "standing", IMAGE_DETECTOR_CONFIG=yaml).exception, CouldNotStart)


def test_what_was_promised_stands_beside_it(tmp_path: Path) -> None:
    promise = ExportFigures(photos=80, auc=1.0, reversed=False, sensitivity=1.0, specificity=0.98)
    yaml = own_model(tmp_path, promise)
    label(tmp_path / "state", 10, kind="roadwork")  # half of them wrongly
    (one,) = told(tmp_path / "state", IMAGE_DETECTOR_CONFIG=yaml)["models"].values()
    assert (one["promised"], one["promised_photos"], one["below_promise"]) == (pytest.approx(0.99), 80, True)
    assert "99.0 %" in lines(tmp_path / "state", IMAGE_DETECTOR_CONFIG=yaml)


def test_another_model_stands_beside_what_serves(tmp_path: Path) -> None:
    yaml = own_model(tmp_path)
    yaml.write_text("model_folder: mine\nthreshold: 0.05\n")
    label(tmp_path / "state", 10)
    found = told(tmp_path / "state", "--model", yaml)
    assert list(found["models"]) == ["starter", "mine"]
    beside = found["beside"]["mine"]
    changed = sum((row["said"]["starter"] > 0.5) != (row["said"]["mine"] > 0.5) for row in found["answers"])
    assert beside["better"] + beside["worse"] == changed > 0
    assert beside["gain"] is not None
    view = StandingView.read(tmp_path / "state")
    assert view is not None
    assert view.model is not None
    assert view.model.name == "starter"
    assert "mine" in lines(tmp_path / "state", "--model", yaml)


def test_a_shadow_is_asked_as_well(tmp_path: Path) -> None:
    yaml = own_model(tmp_path)
    label(tmp_path / "state", 6)
    found = told(tmp_path / "state", SHADOW_DETECTOR_CONFIG=yaml)
    assert {name: one["shadow"] for name, one in found["models"].items()} == {"starter": False, "mine": True}
    assert (found["beside"]["mine"]["better"], found["beside"]["mine"]["more"]) == (0, None)


def test_a_photo_that_can_not_be_judged_is_named_and_left_out(tmp_path: Path) -> None:
    digest, *_ = label(tmp_path, 6)
    Labels(tmp_path / FOLDER).path_of(digest).write_bytes(b"\xff\xd8\xff no photo")
    done = call(tmp_path, "standing", "--json")
    assert digest in done.stderr
    (one,) = json.loads(done.stdout)["models"].values()
    assert one["photos"] == 11


def test_figures_of_before_stay_where_nothing_can_be_judged_any_more(tmp_path: Path) -> None:
    label(tmp_path, 6)
    told(tmp_path)
    before = StandingView.read(tmp_path)
    for kind in ("roadwork", "no_roadwork"):
        shutil.rmtree(tmp_path / FOLDER / kind)
    told(tmp_path)
    after = StandingView.read(tmp_path)
    assert before is not None
    assert after is not None
    assert after.model == before.model
    assert after.photos.sampled == 0


def test_a_folder_that_takes_no_file_is_said_and_the_figures_too(tmp_path: Path) -> None:
    label(tmp_path, 6)
    told(tmp_path)
    (tmp_path / FOLDER / FILE).unlink()
    (tmp_path / FOLDER / FILE).mkdir()
    shutil.rmtree(tmp_path / FOLDER / "answers")
    (tmp_path / FOLDER / "answers").touch()
    done = call(tmp_path, "standing", "--json")
    assert done.exception is None
    assert str(tmp_path / FOLDER) in done.stderr
    assert json.loads(done.stdout)["models"]["starter"]["photos"] == 12


def test_a_damaged_table_is_an_operators_fault_in_one_line(tmp_path: Path) -> None:
    label(tmp_path, 1)
    (tmp_path / FOLDER / TABLE).write_text("digest,kind\nx,what\n")
    error = call(tmp_path, "standing").exception
    assert isinstance(error, ConfigurationError)
    assert TABLE in str(error)


def test_evaluate_takes_the_same_photos(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    label(tmp_path, 8)
    label(tmp_path, 2, first=50, sampled=False, reason="unsure")
    one = told(tmp_path)["models"]["starter"]
    done = call(tmp_path, "evaluate", "--recorded", "--json")
    assert done.exception is None, done.output
    found = json.loads(done.stdout)
    figures = found["views"]["as it is"]["starter"]
    assert found["photos"] == 16
    for name in ("mcc", "auc", "recall"):
        assert figures[name] == pytest.approx(one[name])
    assert figures["accuracy"] == pytest.approx(one["accuracy"])


def test_calibrate_takes_the_same_photos_and_says_what_standing_does(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    yaml = own_model(tmp_path)
    yaml.write_text("model_folder: mine\nthreshold: 0.9\n")  # it says no to nearly everything
    label(tmp_path / "state", 12)
    promised = told(tmp_path / "state", IMAGE_DETECTOR_CONFIG=yaml)["threshold"]
    yaml.write_text("model_folder: mine\n")
    arguments = ("calibrate", "--recorded", "--dry-run", "--json")
    done = call(tmp_path / "state", *arguments, IMAGE_DETECTOR_CONFIG=yaml)
    found = json.loads(done.stdout)
    assert found["calibration"]["evidence"]["photos"] == 24
    assert 0 < found["calibration"]["evidence"]["accuracy"] <= 1
    assert promised["worth_it"]


def test_real_traffic_is_not_held_against_a_promise_that_was_measured_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    from detectors.evaluation.combine import calibrate as found
    from detectors.evaluation.estimates import Estimate

    monkeypatch.setattr("miner.cli.calibrate.find", lambda *given: (found(*given)[0], Estimate(0.2, 0.1, 0.3)))
    figures = ExportFigures(photos=50, auc=1.0, reversed=False, sensitivity=1.0, specificity=0.98)
    yaml, state = own_model(tmp_path, figures), tmp_path / "state"
    label(state, 12)
    before = told(state, IMAGE_DETECTOR_CONFIG=yaml)["models"]["mine"]
    done = call(state, "calibrate", "--recorded", "--json", IMAGE_DETECTOR_CONFIG=yaml)
    assert json.loads(done.stdout)["written"], done.output
    after = told(state, IMAGE_DETECTOR_CONFIG=yaml)["models"]["mine"]
    assert after["fingerprint"] != before["fingerprint"]
    assert (after["promised"], after["promised_photos"]) == (before["promised"], 50)


@pytest.mark.parametrize("command", [("evaluate", "--recorded"), ("calibrate", "--recorded", "--dry-run")])
def test_without_a_label_nothing_can_be_evaluated_or_calibrated(tmp_path: Path, command: tuple[str, ...]) -> None:
    pytest.importorskip("sklearn")
    error = call(tmp_path, *command).exception
    assert isinstance(error, ConfigurationError)
    assert "roadwork-miner label" in str(error)


@pytest.mark.parametrize(
    "arguments",
    [("evaluate",), ("evaluate", "photos", "--recorded"), ("evaluate", "--recorded", "--era", "native"),
     ("evaluate", "--recorded", "--views", "whole"), ("calibrate", "photos", "--recorded"),
     ("calibrate", "--recorded", "--undo"), ("calibrate", "--recorded", "--era", "native")],
)  # fmt: skip
def test_what_goes_not_together_with_recorded_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert isinstance(call(tmp_path, *arguments).exception, ConfigurationError)
