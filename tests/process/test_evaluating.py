"""What judges models needs scikit-learn and matplotlib (`make setup-eval`), and no torch: commands without some."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detectors.evaluation.branch_file import BranchFile
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from detectors.photos.transforms import ERAS, Era, encoded, prepare
from tests.photos import fill
from tests.process.daemon import PATIENCE, clean_environment
from tests.process.terminal import COLUMNS, Terminal
from tests.process.test_model_removal import GATE

pytestmark = pytest.mark.slow
# As where they are not installed: nothing finds them.
SCRIPT = """
import sys

class Hiding:
    def __init__(self, finder):
        self.find = finder.find_spec

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {without} else self.find(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
from miner.cli import main
main()
"""
TORCH = ("torch", "torchvision", "transformers")


def miner(folder: Path, *arguments: object, without: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(without=without), *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        env=clean_environment(
            PYTHONPATH=str(Path(__file__).parents[2]),
            MODELS_DIR=str(folder / "models"), STATE_DIR=str(folder / "state"), COLUMNS="200",
        ),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos, and what two models said of a hundred others."""
    fill(tmp_path / "photos", 6)
    random = np.random.default_rng(0)
    labels = np.arange(100) % 2 == 1
    said = {name: np.clip(labels * 0.4 + random.random(100) * 0.6, 0, 1) for name in ("one", "two")}
    BranchFile(labels, said, {"one": {"hf_repo": "a/b"}, "two": {"hf_repo": "c/d"}}).write(tmp_path / "said.npz")
    return tmp_path


COMMANDS = {
    "evaluate": ("evaluate", "photos", "--plot", "plot.png", "--json"),
    "calibrate": ("calibrate", "said.npz", "--branch", "one", "--json"),
    "fuse": ("fuse", "said.npz", "--folds", "2", "--json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_torch_is_needed(command: str, folder: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    done = miner(folder, *COMMANDS[command], without=TORCH)
    assert done.returncode in (0, 1) if command == "calibrate" else done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert (folder / "plot.png").is_file() == (command == "evaluate")


def test_a_file_that_names_no_models_gives_the_table_and_then_says_that_no_yaml_can_be_written(folder: Path) -> None:
    pytest.importorskip("sklearn")
    found = BranchFile.read(folder / "said.npz")
    np.savez(folder / "bare.npz", labels=found.labels.astype(int), **found.branches)
    done = miner(folder, "fuse", "bare.npz", "--folds", "2", "--out", "both.yaml", without=TORCH)
    assert done.returncode == 2
    assert "mean of one + two" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "both.yaml" in line
    assert "'one'" in line
    assert not (folder / "both.yaml").exists()


def test_a_cascade_is_written_that_an_ensemble_reads(folder: Path) -> None:
    pytest.importorskip("sklearn")
    arguments = ("--folds", "3", "--out", "both.yaml", "--stages", "--order", "two,one", "--json")
    done = miner(folder, "fuse", "said.npz", *arguments, without=TORCH)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    config = read_config(str(folder / "both.yaml"))
    assert config.fusion is not None
    assert config.fusion.branches == ["one", "two"]
    assert [stage.branches for stage in config.stages] == [["two"]]
    assert [stage.model_dump(mode="json") for stage in config.stages] == told["stages"]
    assert told["cascade"]["seconds"] <= told["cascade"]["stages"][-1]["seconds"]


def test_photos_are_asked_about_as_they_were_recorded_and_a_file_keeps_it(folder: Path) -> None:
    pytest.importorskip("sklearn")
    precompute = ("precompute", "branches", "photos", "--out", "eras.npz", "--model", "starter.yaml")
    done = miner(folder, *precompute, "--era", "recorded", without=TORCH)
    assert done.returncode == 2
    assert "RECORDER=images" in done.stderr
    images = folder / "state" / "recorder" / "images"
    images.mkdir(parents=True)
    for number in range(2):
        picture = Image.new("RGB", (640, 480), (90, 140, 60 + number))
        era: Era = ERAS[number]
        (images / f"{number}.jpg").write_bytes(prepare(encoded(picture, 90), era, np.random.default_rng(0)))
    done = miner(folder, *precompute, "--era", "recorded", "--era", "letterbox", without=TORCH)
    assert done.returncode == 0, done.stderr
    found = BranchFile.read(folder / "eras.npz")
    assert found.eras is not None
    assert found.groups is not None
    assert found.seconds["starter"] > 0
    photos = len(list((folder / "photos").rglob("*.*")))
    assert (found.eras == "letterbox").sum() == photos  # those that the mix had sent so too count once
    assert photos < len(found.eras) < 2 * photos
    assert set(found.eras.tolist()) == set(ERAS[:2])
    done = miner(folder, "calibrate", "eras.npz", "--era", "letterbox", "--folds", "2", "--json", without=TORCH)
    assert done.returncode in (0, 1), done.stderr
    shown = json.loads(done.stdout)["calibration"]["evidence"]["photos"]
    assert shown == (found.eras == "letterbox").sum()
    done = miner(folder, "fuse", "said.npz", "--era", "letterbox", without=TORCH)
    assert done.returncode == 2
    assert "precompute branches --era" in done.stderr


def recorded(picture: Image.Image, era: Era) -> bytes:
    """Return a photo as a validator of an era sends it."""
    return prepare(encoded(picture, 90), era, np.random.default_rng(0))


def test_a_folder_of_one_class_gives_its_mistakes_and_nothing_undefined(folder: Path) -> None:
    pytest.importorskip("sklearn")
    shutil.rmtree(folder / "photos" / "roadwork")
    for where in ("photos", "photos/no_roadwork"):
        done = miner(folder, "evaluate", where, "--augment", without=TORCH)
        assert done.returncode == 0, done.stderr
        assert "nan" not in done.stdout
        assert "false alarms" in done.stdout
        assert done.stdout.count("MCC") == 1  # why it is left out
        assert done.stdout.index("MCC") > done.stdout.index("no_roadwork alone")
    told = json.loads(miner(folder, "evaluate", "photos", "--json", without=TORCH).stdout)
    assert told["only"] == "no_roadwork"
    assert told["warnings"] == []
    assert told["views"]["as it is"]["starter"]["photos"] == 6
    done = miner(folder, "evaluate", "photos", "--plot", "plot.png", without=TORCH)
    assert done.returncode == 2
    assert not (folder / "plot.png").exists()


def test_a_terminal_of_80_columns_shows_every_figure(folder: Path) -> None:
    pytest.importorskip("sklearn")
    command = ("-m", "miner", "evaluate", str(folder / "photos"), "--model", "starter.yaml", "--no-env-file")
    shown = Terminal(sys.executable, *command, "--set", f"MODELS_DIR={folder / 'models'}", stderr=subprocess.DEVNULL)
    assert shown.ended() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.written.decode()).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert "…" not in "".join(lines)
    for name in ("accuracy", "Brier", "MCC", "precision", "recall", "AUC", "expected reward"):
        assert sum(name in line for line in lines) == 1


def test_recorded_photos_are_judged_by_the_era_they_were_sent_in(folder: Path) -> None:
    pytest.importorskip("sklearn")
    for kind, eras in {"roadwork": ERAS[:2], "no_roadwork": (*ERAS[:2], ERAS[0])}.items():
        (folder / "own" / kind).mkdir(parents=True)
        for number, era in enumerate(eras):
            picture = Image.new("RGB", (640, 480), (90, 140, 60 + number + 20 * (kind == "roadwork")))
            (folder / "own" / kind / f"{number}.jpg").write_bytes(recorded(picture, era))
    done = miner(folder, "evaluate", "own", "--json", without=TORCH)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["eras"]
    assert {era: rows["starter"]["photos"] for era, rows in told.items()} == {"letterbox": 3, "native": 2}
    plain = json.loads(miner(folder, "evaluate", "photos", "--json", without=TORCH).stdout)
    assert plain["eras"] == {}


def test_photos_are_sent_in_the_mix_of_eras_that_was_recorded(folder: Path) -> None:
    pytest.importorskip("sklearn")
    images = folder / "state" / "recorder" / "images"
    images.mkdir(parents=True)
    for number in range(2):
        picture = Image.new("RGB", (640, 480), (90, 140, 60 + number))
        (images / f"{number}.jpg").write_bytes(recorded(picture, ERAS[number]))
    done = miner(folder, "evaluate", "photos", "--era", "recorded", "--json", without=TORCH)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told["views"]) == ["recorded"]
    assert sum(rows["starter"]["photos"] for rows in told["eras"].values()) == 12
    assert set(told["eras"]) == set(ERAS[:2])
    done = miner(folder, "evaluate", "photos", "--era", "recorded", "--views", "whole, flip; mean", without=TORCH)
    assert done.returncode == 2


def test_a_precision_is_judged_on_the_backend_that_serves_it(folder: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("openvino")
    starter = Path(__file__).parents[2] / "detectors" / "starter"
    fp32 = Path(shutil.copytree(starter, folder / "models" / "you--own" / "main"))
    made = Manifest.read(fp32).model_copy(update={"name": "you--own", "revision": "main"})
    made.write(fp32)
    variant = Path(shutil.copytree(fp32, fp32.with_name("main.int8-openvino")))
    update = {"precision": "int8", "backend": "openvino", "gate": GATE}  # onnxruntime's did not pass its gate
    made.model_copy(update=update).write(variant)
    (folder / "own.yaml").write_text("hf_repo: you/own\n")
    done = miner(folder, "evaluate", "photos", "--model", "own.yaml", "--precision", "int8", "--json", without=TORCH)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_without_scikit_learn_the_smaller_target_is_named_before_anything_is_read(command: str, folder: Path) -> None:
    done = miner(folder, *COMMANDS[command], without=("sklearn",))
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "'scikit-learn'" in line
    assert "`make setup-eval`" in line
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [("evaluate", "photos"), ("simulate",), ("bench",)], ids=lambda given: given[0])
def test_without_matplotlib_a_plot_is_refused_before_anything_is_measured(
    arguments: tuple[str, ...], folder: Path
) -> None:
    done = miner(folder, *arguments, "--plot", "plot.png", without=("matplotlib",))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --plot=plot.png: ")
    assert "`make setup-eval`" in line
