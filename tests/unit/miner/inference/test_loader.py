"""The model's first load, and those that follow."""

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from detectors.base import Detector
from detectors.load import PreparedModel
from detectors.machine import allowed_cores
from detectors.models.config import read_config
from detectors.models.manifest import MAKE_ANEW, PLAIN_VIT_BUILDER, Manifest
from detectors.models.sources import variant_folder
from miner.errors import ConfigurationError, CouldNotStart
from miner.inference.loader import LoadedModel, ModelLoader, _why_it_failed, _write
from miner.inference.plan import Plan, key_of, write_plan
from miner.settings.settings import Settings

STARTER = Path(__file__).resolve().parents[4] / "detectors" / "starter"


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


def test_a_start_says_once_what_makes_an_old_graph_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(STARTER, tmp_path / "own")
    (tmp_path / "own.yaml").write_text("model_folder: own\n")
    caplog.set_level(logging.INFO)
    for made_with, count in (({}, 0), ({PLAIN_VIT_BUILDER: "1"}, 1)):
        made = Manifest.read(STARTER)
        made.model_copy(update={"made_with": made.made_with | made_with}).write(folder)
        caplog.clear()
        settings = Settings.load(image_detector_config=str(tmp_path / "own.yaml"), state_dir=str(tmp_path / "state"))
        asyncio.run(ModelLoader(settings).load()).detector.close()
        assert caplog.text.count(MAKE_ANEW) == count


READS = """
import asyncio, collections, json, sys
from pathlib import Path
opened = collections.Counter()
def note(event, arguments):
    path = Path(str(arguments[0]) if event == "open" else "")
    if path.suffix not in (".yaml", ".json") or path.parent.name == "plans":
        return
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("sha256", "cached_graph"):  # sums, not what the file says
            return
        frame = frame.f_back
    opened["/".join(path.parts[-2:])] += 1
sys.addaudithook(note)
from miner.inference.loader import ModelLoader
from miner.settings.settings import Settings
loader = ModelLoader(Settings.load())
loader.begin()
loaded = asyncio.run(loader.load())
assert loaded.detector.manifest.precision == sys.argv[1], loaded.detector.manifest.precision
print(json.dumps(opened))
"""


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", {}),
        ("fp32", {"TUNE_ON_START": "true"}),
        ("int8", {}),
        ("int8", {"IMAGE_DETECTOR_PRECISION": "int8"}),
    ],
)
def test_a_start_reads_each_file_of_the_model_once(tmp_path: Path, precision: str, flags: dict[str, str]) -> None:
    manifest = Manifest.read(STARTER)
    variant = variant_folder(manifest, tmp_path, "int8", "onnx")
    shutil.copytree(STARTER, variant, ignore=shutil.ignore_patterns("optimized"))
    manifest.model_copy(update={"precision": "int8", "backend": "onnx"}).write(variant)
    if "IMAGE_DETECTOR_PRECISION" not in flags:
        key = key_of(PreparedModel.find(read_config("starter.yaml"), tmp_path), allowed_cores())
        write_plan(tmp_path / "plans", key, Plan("onnx", precision, 1, 1, None, "tuned"))
    environment = {"PATH": os.environ["PATH"], "MODELS_DIR": str(tmp_path), "STATE_DIR": str(tmp_path), **flags}
    done = subprocess.run(
        [sys.executable, "-c", READS, precision], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    serves = STARTER if precision == "fp32" else variant
    files = ("configs/starter.yaml", "starter/manifest.json", f"{variant.name}/manifest.json")
    own = (f"{serves.name}/preprocessor_config.json", f"{serves.name}/config.json")
    assert json.loads(done.stdout) == dict.fromkeys((*files, *own), 1)


def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return {"models_dir": str(tmp_path / "models"), "state_dir": str(tmp_path / "state")}


def test_a_stage_that_will_never_be_begun_is_said_with_what_it_may_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the margin that the queue takes: by its pace alone it would seem to fit."""
    loader, paces = ModelLoader(Settings.load(state_dir=str(tmp_path))), (1.0, 6.5)
    detector = SimpleNamespace(stages=("small", "small + large"))
    loader._check_pace(LoadedModel(cast("Detector", detector), paces, 0.0, 0.0))
    (said,) = caplog.messages
    takes, left = map(float, re.findall(r"\d+\.\d", said))
    assert sum(paces) < left < takes


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
