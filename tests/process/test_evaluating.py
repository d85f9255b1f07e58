"""What judges models needs scikit-learn and matplotlib (`make setup-eval`), and no torch: commands without some."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors.evaluation.branch_file import BranchFile
from detectors.models.manifest import Manifest
from tests.photos import fill
from tests.process.daemon import PATIENCE, clean_environment
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
