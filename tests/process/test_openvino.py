"""OpenVINO beside signals: its CPU plugin gives a thread a stack for them, and takes it away again."""

import signal
import subprocess
import sys

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
