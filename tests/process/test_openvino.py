"""OpenVINO in a process of its own: signals beside it, which cores it takes, and what it keeps in memory."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.daemon import PATIENCE, clean_environment

# A model is loaded by the main thread and dropped by another, as a reload does; then comes a signal.
PROGRAM = """
import signal, threading
from pathlib import Path
from detectors.base import RunOptions
from detectors.models.config import read_config
from detectors.load import load_detector

config = read_config("starter.yaml")
held = [load_detector("ViT", config, Path("models"), "openvino", RunOptions())]
held[0].verify()
dropping = threading.Thread(target=held.clear)
dropping.start()
dropping.join()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
print("alive")
"""


def test_a_signal_after_a_model_was_dropped_by_another_thread_is_handled() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE, env=clean_environment()
    )
    assert run.returncode != -signal.SIGSEGV
    assert run.stdout.split() == ["handled", "alive"], run.stderr


# The threads of a model are started by its first answer.
AFFINITIES = """
import os
from pathlib import Path
from detectors.base import RunOptions
from detectors.models.config import read_config
from detectors.load import load_detector

allowed = os.sched_getaffinity(0)
detector = load_detector("ViT", read_config("starter.yaml"), Path("models"), "openvino", RunOptions(1, len(allowed)))
detector.verify()
print(all(os.sched_getaffinity(int(thread)) == allowed for thread in os.listdir("/proc/self/task")))
"""


# A graph with its weights in a file of their own, as large models have them.
MAPPED = """
import sys
from pathlib import Path
import onnx, psutil
from detectors.base import ModelFiles, RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from detectors.backends.openvino import OpenVINOBackend
import numpy as np

config = read_config("starter.yaml")
graph, folder = onnx.load(config.model_folder / "model.onnx"), Path(sys.argv[1])
onnx.save(graph, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")
files = ModelFiles(folder, Manifest.read(config.model_folder))
shape = tuple(size.dim_value for size in graph.graph.input[0].type.tensor_type.shape.dim)
backend = OpenVINOBackend(files, shape, RunOptions())
backend.run(np.zeros(shape, np.float32))
mapped = [found for found in psutil.Process().memory_maps(grouped=True) if found.path.endswith("model.onnx.data")]
print(*(found.rss < found.size / 2 for found in mapped))
"""


@pytest.mark.parametrize("name", ["models", "my \x0c\u2028 models"])
def test_weights_that_the_compiled_model_has_of_its_own_are_not_resident_twice(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", MAPPED, folder],
        capture_output=True, text=True, timeout=PATIENCE, env=clean_environment(),
    )  # fmt: skip
    assert run.stdout.split() == ["True"], run.stderr


def test_no_thread_of_a_model_keeps_to_one_core_as_another_model_would_choose_the_same() -> None:
    run = subprocess.run(
        [sys.executable, "-c", AFFINITIES], capture_output=True, text=True, timeout=PATIENCE, env=clean_environment()
    )
    assert run.stdout.split() == ["True"], run.stderr
