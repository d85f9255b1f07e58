"""The configuration of a training, and the folder of its run."""

import json
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from detectors.console import Screen
from detectors.errors import DetectorConfigError, DetectorError
from detectors.training.config import NAMED_MODELS, TrainConfig
from detectors.training.job import RESULTS_FILE, SIGNALLED, TIME_OVER, JobPlan, StoppedEarly, open_run
from detectors.training.progress import ProgressFile


def test_what_is_printed_is_read_again(tmp_path: Path) -> None:
    config = TrainConfig.make({"data": "photos", "augment": {"blur": 0}, "epochs": 3})
    config.write(tmp_path)
    assert TrainConfig.read(tmp_path / "config.yaml") == config


def test_every_wrong_value_is_named() -> None:
    with pytest.raises(DetectorConfigError) as caught:
        TrainConfig.make({"data": "photos", "epochs": 0, "augment": {"blur": 2}, "epoch": 3})
    for fault in ("epochs=0: ", "augment.blur=2: ", "epoch=3: "):
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("values", "smoothing"),
    [
        ({}, 0),
        ({"method": "full"}, 0.05),
        ({"method": "full", "label_smoothing": 0}, 0),
        ({"label_smoothing": 0.1}, 0.1),
    ],
)
def test_a_heads_labels_are_not_smoothed(values: dict[str, object], smoothing: float) -> None:
    assert TrainConfig.make({"data": "photos"} | values).smoothing == smoothing


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ({}, 100),
        ({"method": "lora"}, 15),
        ({"epochs": 7}, 7),
        ({"quick": True}, 100),
        ({"quick": True, "method": "full"}, 3),
        ({"quick": True, "method": "full", "epochs": 2}, 2),
    ],
)
def test_epochs_follow_from_the_method(values: dict[str, object], epochs: int) -> None:
    assert TrainConfig.make({"data": "photos"} | values).most_epochs == epochs


@pytest.mark.parametrize(
    ("values", "hours"),
    [
        ({}, None),
        ({"quick": True}, None),  # a head's features are limited by the photos
        ({"quick": True, "method": "lora"}, 2 / 60),
        ({"quick": True, "method": "lora", "max_hours": 1.0}, 1.0),
        ({"method": "lora"}, None),
    ],
)
def test_a_quick_run_of_a_whole_network_has_two_minutes(values: dict[str, object], hours: float | None) -> None:
    assert TrainConfig.make({"data": "photos"} | values).hours == hours


@pytest.mark.parametrize(
    ("values", "convolutional", "rate"),
    [
        ({}, True, 1e-3),  # of a head, whatever is below it
        ({"method": "full"}, False, 5e-5),
        ({"method": "full"}, True, 3e-4),
        ({"method": "full", "learning_rate": 1e-5}, True, 1e-5),
        ({"method": "lora"}, True, 5e-4),
        ({"detector": "YOLOClassifier"}, True, 1e-3),
    ],
)
def test_the_rate_follows_from_method_and_network(values: dict[str, object], convolutional: bool, rate: float) -> None:
    assert TrainConfig.make({"data": "photos"} | values).rate(convolutional=convolutional) == rate


@pytest.mark.parametrize("name", NAMED_MODELS)
def test_a_folder_that_is_called_as_a_model_is_not_taken_for_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / name).mkdir()
    values = {"data": "photos", "model": name}
    assert open_run(tmp_path / "run", TrainConfig.make(values)).model == name
    assert open_run(tmp_path / "other", TrainConfig.make({**values, "model": f"./{name}"})).model == str(
        tmp_path / name
    )


def test_every_model_with_a_name_is_known() -> None:
    hf_model = pytest.importorskip("detectors.training.hf_model", exc_type=ImportError)
    yolo = pytest.importorskip("detectors.training.yolo", exc_type=ImportError)
    assert set(NAMED_MODELS) == {*hf_model.OFFLINE, *hf_model.SIZE_MODELS} >= set(yolo.SIZE_MODELS)


@pytest.mark.parametrize("key", ["frozen", "average"])
@pytest.mark.parametrize("values", [{"method": "head"}, {"method": "lora"}, {"detector": "YOLOClassifier"}])
def test_what_only_a_full_training_can_is_refused_elsewhere(key: str, values: dict[str, object]) -> None:
    with pytest.raises(DetectorConfigError, match=rf"{key}=0\.5"):
        TrainConfig.make({"data": "photos", **values, key: 0.5})
    TrainConfig.make({"data": "photos", "method": "full", key: 0.5})


def test_a_run_that_goes_on_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run = tmp_path / "run"
    open_run(run, TrainConfig.make({"data": str(tmp_path / "photos")}))
    with ProgressFile(run, Screen(Console(file=StringIO()))), pytest.raises(DetectorConfigError, match="--watch"):
        open_run(run, None)
    open_run(run, None)


def test_only_a_run_that_was_refused_may_be_begun_again(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run, config = tmp_path / "run", TrainConfig.make({"data": str(tmp_path / "photos")})
    open_run(run, config)
    for error in (StoppedEarly("the time is over"), None, DetectorConfigError("no photos")):
        with suppress(DetectorError), ProgressFile(run, Screen(Console(file=StringIO()))):
            if error is not None:
                raise error
        if isinstance(error, DetectorConfigError):
            assert open_run(run, config) == config
        else:
            with pytest.raises(DetectorConfigError, match="a run already"):
                open_run(run, config)
    (run / "chosen.json").write_text("{}")
    with pytest.raises(DetectorConfigError, match="a run already"):
        open_run(run, config)


def test_yolo_is_judged_after_each_epoch() -> None:
    with pytest.raises(DetectorConfigError, match="validate_every=3: "):
        TrainConfig.make({"data": "photos", "detector": "YOLOClassifier", "validate_every": 3})


def test_a_run_is_started_once_and_resumed_until_it_has_ended(tmp_path: Path) -> None:
    config, run = TrainConfig.make({"data": str(tmp_path / "photos")}), tmp_path / "run"
    with pytest.raises(DetectorConfigError, match="run to resume"):
        open_run(run, None)
    with pytest.raises(DetectorConfigError, match=r"data=.*photos: "):
        open_run(run, config)
    assert not run.exists()
    (tmp_path / "photos").mkdir()
    assert open_run(run, config) == config
    with pytest.raises(DetectorConfigError, match="a run already"):
        open_run(run, config)
    assert open_run(run, None) == config
    (run / RESULTS_FILE).write_text("{}")
    with pytest.raises(DetectorConfigError, match="has ended"):
        open_run(run, None)


@pytest.mark.parametrize("reason", [TIME_OVER, SIGNALLED])
def test_a_run_that_was_stopped_may_go_on(tmp_path: Path, reason: str) -> None:
    (tmp_path / "photos").mkdir()
    config = open_run(tmp_path, TrainConfig.make({"data": str(tmp_path / "photos")}))
    (tmp_path / RESULTS_FILE).write_text(json.dumps({"ended": reason}))
    assert open_run(tmp_path, None) == config


def test_what_a_run_saves_means_the_same_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("photos", "net", "set"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    saved = open_run(Path("run"), TrainConfig.make({"data": "photos", "model": "net", "cache": "../cache"}))
    assert (saved.data, saved.model) == (str(tmp_path / "photos"), str(tmp_path / "net"))
    assert saved.cache == str(tmp_path.parent / "cache")
    monkeypatch.chdir("/")
    assert open_run(tmp_path / "run", None) == saved
    monkeypatch.chdir(tmp_path)
    assert TrainConfig.make({"data": "hf:set"}).anchored().data == f"hf:{tmp_path / 'set'}"
    hub = TrainConfig.make({"data": "hf:me/photos", "model": "small"})
    assert hub.anchored() == hub


def test_a_run_is_not_resumed_with_other_photos(tmp_path: Path) -> None:
    chosen = JobPlan(8, "fp32", 1, 0.1, "these")
    assert JobPlan.read(tmp_path, "these") is None
    chosen.write(tmp_path)
    assert JobPlan.read(tmp_path, "these") == chosen
    with pytest.raises(DetectorConfigError, match="photos have changed"):
        JobPlan.read(tmp_path, "others")


@pytest.mark.parametrize("place", ["~nobody-of-this-name/p", "x" * 5000, "/" + "x" * 5000])
@pytest.mark.parametrize("key", ["data", "model"])
def test_a_place_that_can_be_none_is_named(tmp_path: Path, key: str, place: str) -> None:
    values = {"data": str(tmp_path), "model": "tiny"} | {key: place}
    if key == "model" and place.startswith("x"):  # a name of the hub's
        TrainConfig.make(values).check_places()
        return
    with pytest.raises(DetectorConfigError, match=f"{key}="):
        TrainConfig.make(values).check_places()
    TrainConfig.make({"data": f"hf:{place}"}).check_places()  # one of the hub's names may be anything
