"""The model's first load, and those that follow."""

import asyncio
import logging
from pathlib import Path

import pytest

from miner.errors import ConfigurationError
from miner.model import ModelLoader
from miner.settings import Settings


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_tuning_that_fails_is_a_warning_and_a_reload_tunes_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("models", "state"):
        (tmp_path / name).write_text("no folder: a plan can't be stored")
    flags = {"models_dir": str(tmp_path / "models"), "state_dir": str(tmp_path / "state"), "tune_on_start": "true"}
    settings = Settings.load(**flags)
    caplog.set_level(logging.INFO)
    loader = ModelLoader(settings)
    loaded = asyncio.run(loader.load())
    assert loaded.detector.manifest.detector == "ViT"
    assert "serving untuned: IMAGE_DETECTOR_CONFIG=starter.yaml: `roadwork-miner tune` failed" in caplog.text
    assert "(not tuned for this machine" in caplog.text
    caplog.clear()
    asyncio.run(loader.beside(settings).load()).detector.close()
    loaded.detector.close()
    assert "serving with onnx fp32" in caplog.text
    assert "tun" not in caplog.text.replace("not tuned for this machine: `roadwork-miner tune` measures", "")


def test_a_wrong_configuration_is_named_by_a_start_that_tunes(tmp_path: Path) -> None:
    settings = Settings.load(image_detector_config="nowhere.yaml", state_dir=str(tmp_path), tune_on_start="true")
    with pytest.raises(ConfigurationError, match=r"IMAGE_DETECTOR_CONFIG=nowhere\.yaml: no detector configuration"):
        asyncio.run(ModelLoader(settings).load())
