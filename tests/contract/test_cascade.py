"""A cascade of the pair: its first model answers where it is sure, both where it is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from detectors.base import RunOptions, Way
from detectors.ensemble import Ensemble
from detectors.errors import DetectorConfigError
from detectors.load import is_prepared, load_detector
from detectors.models.calibration import Calibration
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder
from miner.cli import app
from tests.models import photo

PHOTOS = [photo(1280, 720, seed=2), photo(360, 640, seed=4), photo(224, 224, seed=5), photo(640, 480, seed=7)]
MEASURED = {"photos": 100, "accuracy": 0.85, "mcc": 0.7, "reward": 0.5, "reward_low": 0.4, "reward_high": 0.6}


def cascade(home: Path, folder: Path, band: list[float], threshold: float) -> DetectorConfig:
    """Return the pair with a cheap stage; what it says above the threshold is roadwork."""
    values: dict[str, Any] = yaml.safe_load((home / "pair.yaml").read_text())
    for branch in values["branches"].values():
        branch["hf_repo"] = str(home / "repository")
    values["stages"] = [{"branches": ["convnextv2"], "threshold": threshold, "band": band, "measured": MEASURED}]
    (folder / "pair.yaml").write_text(yaml.safe_dump(values))
    return read_config(str(folder / "pair.yaml"))


def load(config: DetectorConfig, home: Path, ways: dict[str, Way] | None = None) -> Ensemble:
    detector = load_detector("Ensemble", config, home / "models", "onnx", RunOptions(), "fp32", ways)
    assert isinstance(detector, Ensemble)
    return detector


def test_the_first_model_answers_where_it_is_sure_and_both_where_it_is_not(home: Path, tmp_path: Path) -> None:
    whole = load(read_config(str(home / "pair.yaml")), home)
    alone = sorted(whole.branches["convnextv2"].predict(data).probability for data in PHOTOS)
    assert alone[0] < alone[1] < alone[2]
    config = cascade(home, tmp_path, [0.5, 1.0], threshold=(alone[1] + alone[2]) / 2)  # below it is sure
    assert is_prepared(config, home / "models")  # stages need no export
    detector = load(config, home)
    assert detector.verify() == pytest.approx(sum(detector.paces))
    assert detector.stages == ("convnextv2", "convnextv2 + dinov2")
    depths = []
    for data in PHOTOS:
        prediction = detector.predict(data)
        depths.append(len(prediction.stages))
        is_sure = whole.branches["convnextv2"].predict(data).probability <= alone[1]
        assert len(prediction.stages) == (1 if is_sure else 2)
        if not is_sure:
            assert prediction.probability == pytest.approx(whole.predict(data).probability, abs=1e-6)
        assert is_sure is (detector.predict(data, budget=lambda _: False).probability <= 0.5)
    assert sorted(depths) == [1, 1, 2, 2]


def test_stages_run_one_after_the_other(home: Path, tmp_path: Path) -> None:
    config = cascade(home, tmp_path, [0.0, 1.0], threshold=0.5)
    beside = {name: Way("fp32", "onnx", threads=1) for name in ("convnextv2", "dinov2")}
    detector = load(config, home, beside)
    assert detector.predict(PHOTOS[0]).probability == pytest.approx(load(config, home).predict(PHOTOS[0]).probability)
    assert all(way.threads == 0 for way in detector.ways.values())


def test_the_spread_of_what_all_say_is_none_of_a_cascade(home: Path, tmp_path: Path) -> None:
    config = cascade(home, tmp_path, [0.1, 0.9], threshold=0.5)
    folder = model_folder(config, home / "models")
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"predictions": [0.1] * 10}).write(folder)
    try:
        assert load(config, home).manifest.predictions is None
        assert load(read_config(str(home / "pair.yaml")), home).manifest.predictions == [0.1] * 10
    finally:
        manifest.write(folder)


def test_models_show_has_its_stages(home: Path, tmp_path: Path) -> None:
    path = cascade(home, tmp_path, [0.1, 0.9], threshold=0.5).path
    flags = ["--detector", "Ensemble", "--config", str(path), "--set", f"MODELS_DIR={home / 'models'}"]
    shown = CliRunner().invoke(app, ["models", "show", "--json", *flags])
    first, second = json.loads(shown.stdout)[0]["stages"]
    assert all(word in first for word in ("convnextv2", "0.1 to 0.9", "0.500", "100 photos"))
    assert "convnextv2 + dinov2" in second
    shown = CliRunner().invoke(app, ["models", "show", *flags])
    assert "stage 2" in shown.stdout


def test_a_stored_calibration_is_refused_beside_stages(home: Path, tmp_path: Path) -> None:
    config = cascade(home, tmp_path, [0.1, 0.9], threshold=0.5)
    folder = model_folder(config, home / "models")
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"calibration": Calibration(threshold=0.6)}).write(folder)
    try:
        with pytest.raises(DetectorConfigError, match="calibrate --undo"):
            load(config, home)
    finally:
        manifest.write(folder)
