"""An operator's ONNX file with a threshold, to a validator's answer; and another threshold by a reload."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.calibration import Calibration
from detectors.models.config import read_config
from detectors.photos.image import decode
from tests.onnx_files import YAML, make_onnx
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, clean_environment, eventually


def test_it_is_prepared_shown_and_served_and_a_reload_takes_another_threshold(
    start_daemon: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    make_onnx(tmp_path / "mine.onnx", separate="mine.onnx.data")
    yaml, models = tmp_path / "mine.yaml", tmp_path / "models"
    yaml.write_text(f"onnx_path: mine.onnx\n{YAML}threshold: 0.35\n")
    more = {"IMAGE_DETECTOR_CONFIG": str(yaml), "MODELS_DIR": str(models), "STATE_DIR": str(tmp_path), "COLUMNS": "200"}
    for command, said in (
        ("download", "no library to compare with"),
        ("show", "0.350, temperature 1.00: threshold in"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "miner", "models", command, "--no-env-file"], env=clean_environment(**more),
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert said in done.stdout + done.stderr
    detector = load_detector("ViT", read_config(str(yaml)), models, "onnx", RunOptions())
    raw = detector.judge(decode(street)).probability
    daemon = start_daemon(IMAGE_DETECTOR_CONFIG=yaml, MODELS_DIR=models).ready()
    assert daemon.ask(street).json()["prediction"] == pytest.approx(Calibration(threshold=0.35)(raw), abs=1e-4)
    assert daemon.page("/status").json()["model"]["threshold"] == 0.35
    yaml.write_text(f"onnx_path: mine.onnx\n{YAML}threshold: 0.8\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.page("/status").json()["reload"])
    assert daemon.ask(street).json()["prediction"] == pytest.approx(Calibration(threshold=0.8)(raw), abs=1e-4)
