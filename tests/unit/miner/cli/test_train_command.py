"""`roadwork-miner train`: what it takes from the command line."""

import errno
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from detectors.errors import DetectorConfigError
from detectors.training.budget import GB, MachineReading
from detectors.training.config import TrainConfig
from miner.cli.train import last_lines
from miner.cli.training import parse, patient, training_errors
from miner.errors import ConfigurationError, CouldNotStart
from tests.photos import fill
from tests.process.daemon import clean_environment


def train(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "miner", "train", *arguments],
        capture_output=True, text=True, env=clean_environment(), cwd=folder,
    )  # fmt: skip


def test_settings_of_a_file_are_overruled_one_by_one_and_printed(tmp_path: Path) -> None:
    TrainConfig.make({"data": "there", "epochs": 7, "augment": {"noise": 0.9}}).write(tmp_path)
    done = train(
        tmp_path, "here", "--config", str(tmp_path / "config.yaml"), "--set", "augment.blur=0", "--set", "views=3",
        "--batch-size", "16", "--print-config",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = yaml.safe_load(done.stdout)
    assert (values["data"], values["epochs"], values["views"], values["batch_size"]) == ("here", 7, 3, 16)
    assert (values["augment"]["blur"], values["augment"]["noise"]) == (0, 0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["nowhere", "--out", "run"], "data=nowhere: there is no", id="no folder of photos"),
        pytest.param(["./nowhere", "--out", "run"], "data=./nowhere: there is no", id="a relative one"),
        pytest.param([".", "--model", "./mine", "--out", "run"], "model=./mine: there is no", id="no model"),
        pytest.param([], "no photos", id="no photos"),
        pytest.param(["photos"], "--out: ", id="no run"),
        pytest.param(["photos", "--out", "run", "--set", "augment=3"], "augment=3: ", id="no mapping"),
        pytest.param(["photos", "--out", "run", "--model", ""], "model='': ", id="a model without a name"),
        pytest.param(["--watch", "."], "--watch=.: no ", id="no run to watch"),
        pytest.param(["--watch", ".", "--epochs", "3"], "--watch=.: ", id="a run that is watched is not set"),
        pytest.param(["--resume", ".", "--probe"], "--resume=.: ", id="a run that goes on compares nothing"),
        pytest.param(["nowhere", "--probe"], "data=nowhere: there is no", id="nothing to compare with"),
        pytest.param(["photos", "--out", "run", "--epochs", "0"], "epochs=0: ", id="a wrong value"),
        pytest.param(["photos", "--set", "epoch=1", "--out", "run"], "epoch=1: ", id="an unknown key"),
        pytest.param(
            ["photos", "--views", "whole,tiles:9x9", "--out", "run"], "--views=whole,tiles:9x9: ", id="no such views"
        ),
        pytest.param(
            ["photos", "--views", "whole,flip", "--method", "lora", "--out", "run"], "method=head", id="not of a head"
        ),
        pytest.param(["--resume", "nowhere"], "no config.yaml in there", id="nothing to resume"),
        pytest.param(["--resume", "run", "--epochs", "3"], "--resume", id="resumed with settings"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = train(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "assignments", [["views=["], ["views=2024-13-45"], ["views=!!int x"], ["augment=1", "augment.blur=0"]]
)
def test_a_setting_that_is_no_yaml_or_has_no_inner_ones_is_refused(assignments: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=f"--set {re.escape(assignments[-1])}: "):
        parse(assignments, {})


def test_inner_settings_keep_their_neighbours() -> None:
    assert parse(["augment.blur=0", "augment.flip=0.1", "views=2"], {"seed": 1, "model": None}) == {
        "augment": {"blur": 0, "flip": 0.1},
        "views": 2,
        "seed": 1,
    }
    with pytest.raises(ConfigurationError, match="key=value is needed"):
        parse(["views"], {})


def test_the_command_that_serves_is_told_of_a_better_model_alone() -> None:
    def told(recommended: bool) -> list[str]:
        verdict = {"recommended": recommended, "words": "so it is"}
        return last_lines(Path("run"), {"verdict": verdict, "detector": "ViT", "yaml": "run/detector.yaml"})

    assert told(False) == ["run: so it is"]
    first, last = told(True)
    assert first.startswith("run: so it is")
    assert last == "roadwork-miner run --set IMAGE_DETECTOR=ViT --set IMAGE_DETECTOR_CONFIG=run/detector.yaml"


def test_memory_that_is_free_but_not_given_back_yet_is_not_short() -> None:
    readings = [MachineReading(resident=GB, available=available * GB, memory=16 * GB) for available in (8, 1, 9)]
    released = []
    probe = patient(lambda: readings.pop(0), lambda: released.append(len(readings)))
    assert (probe().available, released) == (8 * GB, [])
    assert (probe().available, released) == (9 * GB, [1])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), "memory is full"),
        (OSError(errno.ENOSPC, "No space left on device", "run/a"), ": 'run/a'"),
    ],
)
def test_a_machine_that_has_too_little_is_told_in_one_line(error: Exception, words: str) -> None:
    with warnings.catch_warnings(), pytest.raises(CouldNotStart) as raised, training_errors(lambda: "do this"):
        raise error
    assert words in str(raised.value)
    assert str(raised.value).endswith("; do this")
    assert "\n" not in str(raised.value)


def test_a_run_that_could_not_begin_may_be_begun_again(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 8)
    (tmp_path / "empty").mkdir()
    arguments = ["photos", "--out", "run", "--cache", "cache", "--set", "threads=1", "--set", "workers=0"]
    refused = train(tmp_path, *arguments, "--model", "./empty")
    assert refused.returncode == 3
    assert "--resume" not in refused.stderr
    assert (tmp_path / "run" / "config.yaml").is_file()
    done = train(tmp_path, *arguments, "--model", "lite0", "--epochs", "1", "--set", "views=0", "--json")
    assert done.returncode == 0, done.stderr
    again = train(tmp_path, *arguments, "--model", "lite0")
    assert again.returncode == 2
    assert "holds a run already" in again.stderr


@pytest.mark.parametrize("values", [{"detector": "Foo"}, {"detector": "Foo", "augment": {"blur": 2}}])
def test_a_default_that_could_not_be_had_is_no_fault(values: dict[str, object]) -> None:
    with pytest.raises(DetectorConfigError) as raised:
        TrainConfig.make({"data": "photos", **values})
    assert "detector='Foo'" in str(raised.value)
    assert "model=" not in str(raised.value)


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="shapes differ"), training_errors():
        raise RuntimeError("shapes differ")
