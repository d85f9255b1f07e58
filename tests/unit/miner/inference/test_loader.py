"""The model's first load, and those that follow."""

import asyncio
import logging
import os
import re
from contextlib import redirect_stderr, suppress
from pathlib import Path

import pytest

from miner.errors import ConfigurationError, CouldNotStart
from miner.inference.loader import ModelLoader, _why_it_failed, _write
from miner.settings.settings import Settings


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
    assert "(not tuned" in caplog.text
    caplog.clear()
    asyncio.run(loader.beside(settings).load()).detector.close()
    loaded.detector.close()
    assert "serving with onnx fp32" in caplog.text
    assert "tun" not in caplog.text.replace("not tuned", "").replace("roadwork-miner tune", "")


def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return {"models_dir": str(tmp_path / "models"), "state_dir": str(tmp_path / "state")}


def test_why_a_model_can_not_be_prepared_is_the_loaders_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    yaml = tmp_path / "gone.yaml"
    yaml.write_text(f"hf_repo: you/gone\nrevision: {'a' * 40}\n", encoding="utf-8")
    settings = Settings.load(image_detector_config=str(yaml), **offline(monkeypatch, tmp_path))
    with pytest.raises(CouldNotStart) as caught:
        asyncio.run(ModelLoader(settings).load())
    said = str(caught.value)
    assert said.startswith(f"IMAGE_DETECTOR_CONFIG={yaml}: `roadwork-miner models download` failed: you/gone at rev")
    assert "\n" not in said
    told = capfd.readouterr().err
    assert "error: you/gone at revision" in told, "nothing of its output is lost"
    assert "· finding you/gone" in told


def test_a_child_that_ends_with_2_names_a_wrong_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = ModelLoader(Settings.load(**offline(monkeypatch, tmp_path)))
    with pytest.raises(ConfigurationError, match=r"`roadwork-miner query nowhere\.jpg` failed: .*nowhere\.jpg"):
        asyncio.run(loader._run_child("query", "nowhere.jpg"))


def test_a_log_that_nobody_reads_holds_up_no_child() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(2**16))
    os.set_blocking(writing, True)
    with os.fdopen(writing, "w", encoding="utf-8") as stream, redirect_stderr(stream):
        _write(bytes(2**18))  # and comes back
        os.read(reading, 2**17)
        _write(b"later")
    assert os.read(reading, 2**20).endswith(b"later")
    os.close(reading)


@pytest.mark.parametrize(
    ("output", "code", "reason"),
    [
        ("· finding\nerror: A=1: no\nerror: B=2: no\n", 2, "A=1: no; B=2: no"),
        ("error: early\nerror: late\nand a word\n", 3, "early; late"),
        ("Traceback (most recent call last):\n  File\nKeyError: 'odd'\n\n", 1, "KeyError: 'odd'"),
        (" 40%|####\r 80%|########\r", -9, ".*SIGKILL; .*"),
        ("", -15, ".*SIGTERM"),
        ("", 7, "exit code 7"),
    ],
)
def test_the_reason_is_what_a_child_said_last(output: str, code: int, reason: str) -> None:
    assert re.fullmatch(reason, _why_it_failed(output, code))


def test_a_wrong_configuration_is_named_by_a_start_that_tunes(tmp_path: Path) -> None:
    settings = Settings.load(image_detector_config="nowhere.yaml", state_dir=str(tmp_path), tune_on_start="true")
    with pytest.raises(ConfigurationError, match=r"IMAGE_DETECTOR_CONFIG=nowhere\.yaml: "):
        asyncio.run(ModelLoader(settings).load())
