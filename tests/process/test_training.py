"""Whole trainings in processes of their own, with tiny networks and a few made photos; killed, starved and resumed."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("ultralytics")

from miner.cli import app
from miner.natix.publication import find_model
from tests.models import make_vit
from tests.photos import fill
from tests.process.conftest import StartDaemon
from tests.process.daemon import clean_environment
from tests.process.terminal import COLUMNS, Terminal

pytestmark = pytest.mark.timeout(900)  # on a machine with other work

EACH = 16  # photos of a class
PAGE = resource.getpagesize()
SECONDS = 400  # generous: the machine may be busy
STEADY = ("--set", "precision=fp32", "--set", "threads=1", "--set", "workers=0", "--seed", "3")


class Training:
    """`roadwork-miner train` in a process, with what it says in a file."""

    def __init__(self, folder: Path, *arguments: object, prefix: Sequence[str] = ()) -> None:
        self.run, self.log_file = folder / "run", folder / "log"
        self._prefix = prefix
        self._cache = folder.parent / "cache"  # shared by the runs of a test
        self._arguments = [str(argument) for argument in arguments]
        self.process = self._start("--out", str(self.run), "--cache", str(self._cache), *self._arguments)

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        self.run.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "miner", "train", *arguments],
                stdout=log, stderr=log, env=clean_environment(),
            )  # fmt: skip

    def resume(self) -> "Training":
        self.log_file = self.log_file.with_name("log-resumed")  # the killed one's workers may still complain there
        self.process = self._start("--resume", str(self.run))
        return self

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def finish(self) -> "Training":
        assert self.wait() == 0, self.log
        assert "Traceback" not in self.log, self.log
        return self

    def until(self, condition: str) -> None:
        """Wait for a line of the log."""
        end = time.monotonic() + SECONDS
        while condition not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(SECONDS) == -signal.SIGKILL, self.log

    def steps(self) -> list[int]:
        """Return the checkpoints that are whole."""
        return sorted(int(path.parent.name.rpartition("-")[2]) for path in self.run.glob("checkpoints/*/complete"))

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "results.json").read_bytes())
        return found

    def losses(self) -> list[tuple[float, float, float]]:
        """Return epoch, loss and validation loss of every line of the history, where they are."""
        history = json.loads((self.run / "history.json").read_bytes())
        return [(line["epoch"], line.get("loss", 0.0), line.get("eval_loss", 0.0)) for line in history]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos") / "photos", EACH)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vit(tmp_path_factory.mktemp("vit") / "tiny-vit")


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    assert not children.is_file() or b"train" not in b"".join(
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()
    )


def stop_within_an_epoch(training: Training, epoch: int) -> int:
    """Freeze the process where its latest checkpoint lies within an epoch; return that step."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert training.process.poll() is None, training.log
        steps = training.steps()
        if steps and steps[-1] > epoch and steps[-1] % epoch:
            training.process.send_signal(signal.SIGSTOP)
            steps = training.steps()
            if steps and steps[-1] % epoch:
                return steps[-1]
            training.process.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError(training.log)


def test_a_head_is_trained_from_precomputed_features_and_serves(
    vit: Path, tmp_path: Path, start_daemon: StartDaemon, street: bytes
) -> None:
    photos, cache = fill(tmp_path / "photos", EACH), tmp_path / "cache"
    (photos / "roadwork" / "damaged.jpg").write_bytes(street[:2000])
    settings = ("--model", str(vit), "--seed", "3", "--set", "views=2")
    command = ["precompute", "features", str(photos), *settings, "--cache", str(cache), "--json"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert "left out: roadwork/damaged.jpg: " in done.stderr
    facts = json.loads(done.stdout)
    assert facts["rows"] == facts["new"] > 2 * EACH
    assert f"for {facts['rows']} features, about " in done.stderr

    training = Training(tmp_path / "head", photos, *settings, "--epochs", 20).finish()
    assert "left out: roadwork/damaged.jpg: " in training.log
    assert f"features: {facts['rows']} of {facts['rows']} are cached" in training.log
    made = {path.name for path in training.run.iterdir()}
    assert made >= {"config.yaml", "resources.csv", "tensorboard", "plots", "README.md", "served", "detector.yaml"}
    assert list((training.run / "tensorboard").rglob("events*"))
    assert len(list((training.run / "plots").glob("*.png"))) == 5
    assert (training.run / "resources.csv").read_text().startswith("seconds,cpu_share,resident_mb")
    published = find_model(training.run)
    assert {*published.documents, *published.weights} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }
    assert published.figures == training.results["figures"]
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG=training.run / "detector.yaml").ready()
    assert 0 <= daemon.ask(street).json()["prediction"] <= 1


def test_killed_within_an_epoch_and_resumed_it_learns_the_same(photos: Path, vit: Path, tmp_path: Path) -> None:
    options = (
        photos, "--model", vit, "--method", "full", "--epochs", 4, "--batch-size", 5, "--micro-batch", 2, *STEADY,
        "--set", "average=0.9",
    )  # fmt: skip
    whole = Training(tmp_path / "whole", *options).finish()
    killed = Training(tmp_path / "killed", *options, "--set", "checkpoint_minutes=0", "--set", "workers=1")
    step = stop_within_an_epoch(killed, epoch=5)
    killed.kill()
    # A checkpoint that was being written when the power went.
    (killed.run / "checkpoints" / "checkpoint-999").mkdir()
    killed.resume().finish()
    assert f"resuming at step {step} of 20" in killed.log
    assert killed.losses() == whole.losses()
    assert killed.results["figures"] == whole.results["figures"]


def test_a_second_terminal_follows_a_run_until_it_is_killed(photos: Path, vit: Path, tmp_path: Path) -> None:
    run, miner = tmp_path / "run", (sys.executable, "-m", "miner", "train")
    options = ("--model", vit, "--method", "full", "--epochs", 500, "--batch-size", 4, *STEADY)
    training = Terminal(*miner, str(photos), "--out", str(run), *map(str, options), "--set", "patience=500")
    training.says("% ")  # of the accuracy, and behind it the time left
    training.says(" left")
    screen = Terminal(*miner, "--watch", str(run))
    screen.says("Running")
    screen.says("epoch 0")
    training.close()
    screen.says("Killed")
    screen.type(b"q")
    assert screen.ended() == 0
    screen.close()
    done = subprocess.run([*miner, "--watch", str(run)], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "Killed" in done.stdout
    assert "\x1b" not in done.stdout
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", training.written.decode()).replace("\r", "\n").splitlines()
    bars = [line for line in lines if line.startswith(("training ", "validating ")) and "left" in line]
    assert bars
    assert all(
        len(line) == COLUMNS and re.search(r"/\d+ loss \d+\.\d{3}, accuracy \d+% .+ left", line) for line in bars
    )


def test_a_yolo_killed_within_an_epoch_and_resumed_learns_the_same(photos: Path, tmp_path: Path) -> None:
    options = (
        photos, "--detector", "YOLOClassifier", "--model", "yolo11n-cls.yaml", "--epochs", 3, "--batch-size", 8,
        "--micro-batch", 4, *STEADY,
    )  # fmt: skip
    whole = Training(tmp_path / "whole", *options).finish()
    killed = Training(tmp_path / "killed", *options, "--set", "workers=1")
    killed.until("epoch 1 of 3")
    time.sleep(0.1)
    killed.kill()
    killed.resume().until("exporting to ONNX")
    killed.kill()
    killed.resume().finish()
    assert killed.log.count("epoch 3 of 3") == 1
    assert killed.losses() == whole.losses()
    assert killed.results["figures"] == whole.results["figures"]
    assert (killed.run / "served" / "model.onnx").is_file()
    published = find_model(killed.run)  # which no path of this machine is in
    assert set(published.weights) == {"model.pt"}
    assert published.figures == killed.results["figures"]


def test_where_memory_runs_short_the_micro_batch_is_halved_and_the_training_goes_on(
    photos: Path, tmp_path: Path
) -> None:
    wide = make_vit(tmp_path / "wide", num_hidden_layers=1, intermediate_size=8192)  # 6 MB a photo in one layer alone
    options = (photos, "--model", wide, "--method", "lora", "--epochs", 1000, "--batch-size", 20, "--micro-batch", 20)
    training = Training(tmp_path / "starved", *options, *STEADY, "--set", "patience=1000")
    pid = training.process.pid
    training.until("epoch 1 of 1000")
    # As much address space as it has in the calm moments of a step, and half of what a step takes.
    most, least = most_and_least(lambda: int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * PAGE)
    resource.prlimit(pid, resource.RLIMIT_AS, ((most + least) // 2, resource.RLIM_INFINITY))
    training.until("allocation failed: micro-batch")
    lines = training.log.count(" of 1000: loss")
    training.until(f"epoch {lines + 2} of 1000")  # still under the limit
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    training.process.terminate()
    training.finish()
    assert "by a signal" in training.log
    assert training.results["figures"]["test"]["photos"] > 0


def most_and_least(read: Callable[[], int]) -> tuple[int, int]:
    """Watch what steps take of the memory."""
    sizes: list[int] = []
    end = time.monotonic() + SECONDS
    while len(sizes) < 1000 or max(sizes) - min(sizes) < 60e6:
        sizes.append(read())
        assert time.monotonic() < end, "the steps take no memory"
        time.sleep(0.002)
    return max(sizes), min(sizes)
