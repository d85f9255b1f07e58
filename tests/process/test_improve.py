"""A night's improvement beside a real miner: killed wherever it may be, promoted, refused, undone, and reported."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from miner.feedback import Reason
from miner.feedback.labels import Label, editing
from tests.models import make_vit
from tests.photos import fill
from tests.process.browser import Browser
from tests.process.conftest import SHIPPED, StartDaemon
from tests.process.daemon import Daemon, clean_environment, eventually
from tests.process.graphs import write_model
from tests.process.test_page import FAINT, OUTSIDE
from tests.process.test_reload import Asking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # on a machine with other work
EACH = 40  # photos of a class
SECONDS = 600
REASONS: tuple[Reason, ...] = ("unlike", "unlike", "error", "unlike")
SHOTS = os.environ.get("ROADWORK_TEST_SHOTS")


def label(state: Path, photos: Path) -> None:
    with editing(state / "labels") as labels:
        for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
            data = path.read_bytes()
            digest, reason = hashlib.sha256(data).hexdigest(), REASONS[number % len(REASONS)]
            labels.put(Label(digest, path.parent.name, number, reason, 0.4), data)  # type: ignore[arg-type]


class Night:
    """`roadwork-miner improve` beside a miner whose settings file names a model that only knows what is bright."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.env_file, self.cache = folder, folder / "miner.env", folder / "cache"
        self.first = write_model(folder / "first")
        self.vit = make_vit(folder / "vit")
        chosen = f"IMAGE_DETECTOR_CONFIG='{self.first}'   # the bright one"
        self.text = f"# mine\r\n\r\n{chosen}\r\nHF_TOKEN=secret\r\nSHADOW_SAMPLE=1"
        self.env_file.write_bytes(self.text.encode())
        self.env_file.chmod(0o640)
        self.options = (
            "--model", str(self.vit), "--set", "views=0", "--set", "epochs=30", "--set", "threads=1", "--set",
            "workers=0", "--cache", str(self.cache),
        )  # fmt: skip
        self.environment: dict[str, str] = {}

    def beside(self, daemon: Daemon) -> None:
        self.environment = daemon.environment

    def start(self, *options: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "miner", "improve", "--env-file", str(self.env_file), "--priority", "normal",
             *options],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def call(self, *options: str, code: int = 0) -> str:
        with self.start(*options) as process:
            told, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == code, told
        assert "Traceback" not in told, told
        return told

    @property
    def run(self) -> Path:
        return max((self.state_dir / "improvements").glob("20*"))

    @property
    def state_dir(self) -> Path:
        return Path(self.environment["STATE_DIR"])

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "state.json").read_bytes())
        return found

    @property
    def lines(self) -> str:
        return self.env_file.read_bytes().decode()


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


@pytest.fixture
def daemon(night: Night, start_daemon: StartDaemon) -> Daemon:
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG="", env_file=night.env_file).ready()
    night.beside(daemon)
    label(daemon.state, fill(night.folder / "photos", EACH))
    return daemon


def test_killed_at_ten_points_it_goes_on_and_the_miner_never_stops_answering(
    night: Night, daemon: Daemon, street: bytes
) -> None:
    def has(name: str) -> Callable[[], bool]:
        return lambda: any((night.state_dir / "improvements").glob(f"20*/{name}"))

    def is_done(step: str) -> Callable[[], bool]:
        return lambda: has("state.json")() and step in night.state["steps"]

    points = {
        "a run is begun": has("state.json"),
        "a fold's training is begun": has("fold0/config.yaml"),
        "it learns": has("fold0/checkpoints/*"),
        "another is exported": has("fold1/served/manifest.json"),
        "all folds are done": is_done("folds"),
        "the candidate is done": is_done("train"),
        "models are asked": has("answers/*.partial"),
        "they are judged": is_done("judge"),
        "a report is there": has("report.html"),
        "the settings change": lambda: "SHADOW_DETECTOR_CONFIG" in night.lines,
    }
    labels = {path: path.read_bytes() for path in (daemon.state / "labels").rglob("*") if path.is_file()}
    reached = []
    with Asking(daemon, street, callers=1) as asking:
        for point, is_reached in points.items():
            with night.start(*(night.options if point == "a run is begun" else ())) as process:
                while process.poll() is None and not is_reached():
                    time.sleep(0.002)
                if process.poll() is None:
                    process.kill()
                    reached.append(point)
                told = process.communicate()[0]
            assert process.returncode in (0, -signal.SIGKILL), told
            assert "Traceback" not in told, told
        with night.start("--promote") as process:
            while process.poll() is None and f"IMAGE_DETECTOR_CONFIG={night.run}" not in night.lines:
                time.sleep(0.002)
            process.kill()  # between the settings file and the reload, or behind it
        done = night.call()
        told = asking.answers[200]
        eventually(lambda: asking.answers[200] > told + 5)
    assert set(asking.answers) == {200}
    assert len(reached) == len(points), reached
    assert len(list((night.state_dir / "improvements").glob("20*"))) == 1
    state = night.state
    assert state["verdict"] == "better", done
    assert state["promoted"] is True
    assert {path: path.read_bytes() for path in labels} == labels
    assert daemon.metric("model_info", name=f"improved-{night.run.name}") == 1
    served = f"IMAGE_DETECTOR_CONFIG={night.run / f'improved-{night.run.name}.yaml'}   # the bright one\r\n"
    assert served in night.lines
    assert night.env_file.stat().st_mode & 0o777 == 0o640

    # And back: every line as it was spelt, but for an end of line that the last one lacked.
    night.call("--undo")
    assert daemon.metric("model_info", name="first") == 1
    assert night.lines == night.text + "\r\n"
    night.call("--undo", code=3)

    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
        with Browser(night.folder) as browser:
            browser.look(width, 844, phone=width < 500, scheme=scheme)
            browser.open((night.run / "report.html").as_uri())
            assert browser.run("return document.documentElement.scrollWidth") <= width
            assert browser.run(OUTSIDE) == []
            assert browser.run(FAINT) == []
            assert browser.text("h1.better")
            assert "roadwork-miner train" in browser.text("ol")
            drawn = "return Promise.all([...document.images].map(one => one.decode())).then(all => all.length)"
            assert browser.run(drawn) > 0
            assert browser.complaints() == []
            if SHOTS:
                browser.photograph(Path(SHOTS) / f"report-{width}-{scheme}.png")
        shutil.rmtree(night.folder / "profile", ignore_errors=True)


def test_a_model_that_the_miner_does_not_take_is_not_promoted(night: Night, daemon: Daemon, street: bytes) -> None:
    told = night.call(*night.options)
    assert "improve --promote" in told.splitlines()[-1]
    eventually(lambda: daemon.metric("shadow_up") == 1)
    assert night.state["ended"] is not None
    before = night.lines
    assert f"SHADOW_DETECTOR_CONFIG={night.run}" in before

    manifest = night.run / f"improved-{night.run.name}" / "served" / "manifest.json"
    data = manifest.read_bytes()
    manifest.write_text(json.dumps(json.loads(data) | {"known_answer": 0.123}))
    night.call("--promote", code=3)
    assert night.lines == before
    assert daemon.metric("model_info", name="first") == 1
    assert daemon.ask(street).status_code == 200

    manifest.write_bytes(data)
    facts = json.loads(night.call("--promote", "--json").splitlines()[-1])
    assert facts["promoted"] is True
    assert f"SHADOW_DETECTOR_CONFIG={night.first}" in night.lines  # what served before


def test_too_few_labels_are_said_before_anything_long_begins(night: Night, tmp_path: Path) -> None:
    night.environment = clean_environment(STATE_DIR=str(tmp_path / "state"))
    label(tmp_path / "state", fill(tmp_path / "few", 5))
    told = night.call(*night.options, code=2)
    assert "'roadwork'" in told
    assert not list((tmp_path / "state" / "improvements").iterdir())


def test_a_signal_ends_it_in_order_and_its_training_with_it(night: Night, tmp_path: Path) -> None:
    night.environment = clean_environment(STATE_DIR=str(tmp_path / "state"))
    label(tmp_path / "state", fill(tmp_path / "photos", EACH))
    with night.start(*night.options) as process:
        eventually(lambda: list((tmp_path / "state" / "improvements").glob("20*/improved-*/progress.json")), SECONDS)
        second = night.call(code=3)
        assert "another" in second
        process.terminate()
        told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 3, told
    assert "goes on" in told
    assert set(night.state["steps"]) == {"collect", "folds"}
    assert night.call("--model", "starter", code=2)
    assert "better" in night.call().splitlines()[-1]
    night.call(*night.options, code=2)  # nothing was labelled since


def test_what_a_teacher_taught_is_dropped_where_the_random_tenth_does_not_ask_for_it(
    night: Night, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    night.environment = clean_environment(STATE_DIR=str(state))
    label(state, fill(tmp_path / "photos", EACH))
    images = state / "recorder" / "images"
    images.mkdir(parents=True)
    for path in fill(tmp_path / "seen", 12, first_seed=900).rglob("*.jpg"):
        shutil.copy(path, images / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.jpg")
    night.call("--self-train", code=2)  # what serves is no ensemble
    night.call(*night.options, "--self-train", "--teacher", str(SHIPPED.parent))
    teach = night.state["steps"]["teach"]
    unlabelled = night.state["steps"]["collect"]["facts"]["unlabelled"]
    assert 0 < teach["facts"]["teacher"]["unlabelled"] <= unlabelled < 24
    assert not teach["facts"]["kept"]
    assert "--teacher" in teach["commands"][0]
    name = f"improved-{night.run.name}"
    assert (night.run / f"{name}.yaml").read_text() == f"model_folder: {name}/served\n"
