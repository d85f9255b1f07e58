"""The progress of a run: written as its screen moves, read by who watches, whatever has become of it."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from detectors.console import Screen
from detectors.errors import DetectorConfigError
from detectors.training.budget import COLUMNS
from detectors.training.config import TrainConfig
from detectors.training.job import CHOSEN_FILE, HISTORY_FILE, RESOURCES_FILE, RESULTS_FILE, TIME_OVER, StoppedEarly
from detectors.training.progress import PROGRESS_FILE, HistoryFile, ProgressFile, read_run

HISTORY = [{"epoch": 1.0, "loss": 0.5}, {"epoch": 1.0, "eval_loss": 0.4, "eval_accuracy": 0.8, "eval_reward": 0.3}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    TrainConfig(data="photos", epochs=4).write(tmp_path)
    return tmp_path


def screen() -> Screen:
    return Screen(Console(file=io.StringIO()))


def test_who_watches_sees_what_the_screen_shows(run: Path) -> None:
    shown = screen()
    with ProgressFile(run, shown, clock=lambda: 0.0):
        shown.say("2 threads")
        with shown.bar("training", 40) as bar:
            bar(10, "loss 0.412, accuracy 91%", what="validating")
            view = read_run(run)
            assert (view.state, view.model, view.epochs, view.lines) == ("running", "ViT lite2, head", 4, ["2 threads"])
            assert view.bar is not None
            assert (view.bar.what, view.bar.done, view.bar.total) == ("validating", 10, 40)
            bar(11)  # no second has passed: not worth a write
            assert read_run(run).bar == view.bar
        assert read_run(run).bar is None
        shown.warn("short")
        assert read_run(run).lines == ["2 threads", "warning: short"]
    assert shown.listener is None


def test_a_run_that_was_killed_has_neither_a_lock_nor_an_end(run: Path) -> None:
    view = read_run(run)
    assert (view.state, view.started) == ("killed", None)
    (run / PROGRESS_FILE).write_text(json.dumps({"started": 1.0, "at": 2.0, "bar": {"what": "training", "done": 3}}))
    view = read_run(run)
    assert (view.state, view.bar, view.at) == ("killed", None, 2.0)
    assert "--resume" not in view.words
    (run / CHOSEN_FILE).write_text("{}")
    assert f"--resume {run}" in read_run(run).words


@pytest.mark.parametrize(("ended", "state"), [("all epochs are done", "finished"), (TIME_OVER, "stopped")])
def test_a_run_says_why_it_ended(run: Path, ended: str, state: str) -> None:
    with ProgressFile(run, screen()):
        (run / RESULTS_FILE).write_text(json.dumps({"ended": ended}))
        assert read_run(run).state == "running", "a resumed one has the results of its first end"
    view = read_run(run)
    assert (view.state, view.words) == (state, ended)


def test_a_run_that_was_stopped_with_nothing_to_serve_did_not_fail(run: Path) -> None:
    with pytest.raises(StoppedEarly), ProgressFile(run, screen()):
        raise StoppedEarly("the time is over")
    assert (read_run(run).state, read_run(run).words) == ("stopped", "the time is over")


def test_a_resumed_run_that_was_killed_has_not_the_end_of_its_first_start(run: Path) -> None:
    (run / RESULTS_FILE).write_text(json.dumps({"ended": TIME_OVER}))
    os.utime(run / RESULTS_FILE, (1000, 1000))
    (run / PROGRESS_FILE).write_text(json.dumps({"started": 999.0, "at": 1001.0}))
    assert read_run(run).state == "stopped"
    (run / PROGRESS_FILE).write_text(json.dumps({"started": 1001.0, "at": 1002.0}))
    assert read_run(run).state == "killed"


def test_a_run_that_failed_says_how(run: Path) -> None:
    with pytest.raises(DetectorConfigError), ProgressFile(run, screen()):
        raise DetectorConfigError("no photos")
    assert (read_run(run).state, read_run(run).words) == ("failed", "no photos")
    with ProgressFile(run, screen()):
        pass
    assert read_run(run).state == "killed", "what an earlier start failed of is over"


def test_curves_and_resources_are_read_while_they_grow(run: Path) -> None:
    seconds = iter((0.0, 1.0, 3.0))
    file = HistoryFile(run, clock=lambda: next(seconds))
    file.write(HISTORY[:1])
    file.write(HISTORY)  # a second later: the next time
    assert read_run(run).history == HISTORY[:1]
    file.write(HISTORY)
    whole = "5.0,1.50,2000,8000,0.00,0,0.25"
    (run / RESOURCES_FILE).write_text("\n".join([",".join(COLUMNS), whole, "10.0,1.2"]))
    view = read_run(run)
    assert view.points("eval_accuracy") == [(1.0, 0.8)]
    (row,) = view.resources
    assert (row.cores, row.resident, row.available, row.waiting) == (1.5, 2e9, 8e9, 0.25)
    found = json.loads(json.dumps(view.plain()))
    assert found["history"] == HISTORY
    assert found["resources"]["cores"] == 1.5


def test_what_is_no_run_or_damaged_is_named(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DetectorConfigError, match="--watch="):
        read_run(tmp_path_factory.mktemp("none"))
    (run / RESOURCES_FILE).write_bytes(b"seconds,cpu_share\n\xff")
    assert read_run(run).resources == []
    for name, text in ((HISTORY_FILE, "["), (HISTORY_FILE, "[1]"), (PROGRESS_FILE, "[]"), (RESULTS_FILE, "[]")):
        (run / name).write_text(text)
        with pytest.raises(DetectorConfigError, match=name):
            read_run(run)
        (run / name).unlink()


def test_a_disk_that_is_full_does_not_end_a_run(run: Path) -> None:
    (run / PROGRESS_FILE).with_suffix(".partial").mkdir()  # nothing can be written there
    shown = screen()
    with ProgressFile(run, shown):
        shown.say("going on")
    assert read_run(run).lines == []
