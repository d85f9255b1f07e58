"""The threshold of a YAML file: the same map as a calibration's, without another export."""

from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.errors import DetectorConfigError
from detectors.export.export import prepare
from detectors.load import PreparedModel, load_detector
from detectors.models.calibration import Calibration
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder
from detectors.models.store import store_calibration
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture, parity_pictures
from tests.onnx_files import YAML, make_onnx

DATA = parity_pictures()[0]


def write(folder: Path, key: str = "") -> str:
    (folder / "mine.yaml").write_text(f"onnx_path: mine.onnx\n{YAML}{key}")
    return str(folder / "mine.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_onnx(tmp_path / "mine.onnx")
    prepare("ViT", read_config(write(tmp_path)), tmp_path / "models")
    return tmp_path


@pytest.mark.parametrize("threshold", [0.05, 0.35, 0.5, 0.999])
def test_it_is_moved_to_one_half_and_the_known_answer_stays(home: Path, threshold: float) -> None:
    config = read_config(write(home, f"threshold: {threshold}\n"))
    detector = load_detector("ViT", config, home / "models", "onnx", RunOptions())
    detector.verify()
    raw = detector.judge(decode(DATA)).probability
    assert detector.predict(DATA).probability == Calibration(threshold=threshold)(raw)
    assert detector.judge(decode(known_picture())).probability == pytest.approx(detector.manifest.known_answer)
    assert Manifest.read(model_folder(config, home / "models")).calibration is None


def test_it_goes_before_a_stored_calibration_and_forgets_what_was_counted_at_that(home: Path) -> None:
    config = read_config(write(home))
    store_calibration(model_folder(config, home / "models"), Calibration(threshold=0.8, temperature=2.0), [0.1] * 10)
    assert PreparedModel.find(config, home / "models").manifest.predictions is not None
    manifest = PreparedModel.find(read_config(write(home, "threshold: 0.35\n")), home / "models").manifest
    assert manifest.calibration == Calibration(threshold=0.35)
    assert manifest.predictions is None


@pytest.mark.parametrize("value", ["35%", "0", "1", "35", "'0,35'", "yes", ".nan", "[0.3]", "-0.1"])
def test_what_is_no_threshold_is_refused(home: Path, value: str) -> None:
    with pytest.raises(DetectorConfigError, match=r"threshold=.*above 0 and below 1"):
        read_config(write(home, f"threshold: {value}\n"))


def test_an_ensemble_has_one_for_all_branches_together(home: Path) -> None:
    own, both = write(home, "threshold: 0.3\n"), home / "both.yaml"
    branches = "branches:\n  one: {config: mine.yaml, threshold: null}\n  two: {config: mine.yaml, threshold: null}\n"
    both.write_text(branches + "threshold: 0.3\n")
    config = read_config(str(both))
    prepare("Ensemble", config, home / "models")
    together = load_detector("Ensemble", config, home / "models", "onnx", RunOptions())
    alone = load_detector("ViT", read_config(own), home / "models", "onnx", RunOptions())
    together.verify()
    assert together.predict(DATA).probability == pytest.approx(alone.predict(DATA).probability, abs=1e-6)
    both.write_text(branches.replace(", threshold: null}\n  two", "}\n  two"))
    with pytest.raises(DetectorConfigError, match=r"threshold=0\.3.*beside `branches`"):
        read_config(str(both))
    both.write_text(f"{branches}threshold: 0.3\nfusion: {{branches: [one, two], threshold: 0.4}}\n")
    with pytest.raises(DetectorConfigError, match=r"fusion\.threshold=0\.4"):
        read_config(str(both))
