"""`roadwork-miner config`: each setting, its value, and where that comes from."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from detectors.machine import allowed_cores
from detectors.redact import HIDDEN
from miner import cli
from miner.cli.config import rows_of, table_of
from miner.errors import ConfigurationError
from miner.settings.origins import Origin, origins
from miner.settings.settings import Settings

FILE = """\
# My miner

NETUID=72   # mainnet


export SUBTENSOR_NETWORK=finney
SUBTENSOR_CHAIN_ENDPOINT=wss://me:hunter2pw@node.example/apikey123
REQUEST_DEADLINE=9
QUEUE_DEPTH=
netuid=72
MODEL_URL=https://hub.example/me/roadwork
HF_TOKEN=hf_secret123456
HF_HOME=/hub
"""


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HF_HOME", *(name for name in os.environ if name.startswith("HF_"))):
        monkeypatch.setenv(name, "")  # what the command lends to the hub ends with the test
        monkeypatch.delenv(name)
    file = tmp_path / "mine.env"
    file.write_text(FILE)
    return file


def told(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(cli.app, ["config", "--json", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_setting_is_there_with_its_default() -> None:
    settings = told()["settings"]
    assert list(settings) == [name.upper() for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        row = settings[name.upper()]
        default = field.default if isinstance(field.default, (int, float, type(None))) else str(field.default)
        assert row["default"] == default, name
        assert row["from"] == {"kind": "default"}
        assert row["changed"] is False


def test_where_each_comes_from(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("LOG_FORMAT", "")
    found = told("--env-file", env_file, "--changed", "--set", "QUEUE_SHARE=1", "--wallet", "mine", "--axon.port=8099")
    assert {key: row["from"] for key, row in found["settings"].items()} == {
        "NETUID": {"kind": "file", "name": "NETUID", "line": 10},  # the later one holds
        "SUBTENSOR_NETWORK": {"kind": "file", "name": "SUBTENSOR_NETWORK", "line": 6},
        "SUBTENSOR_CHAIN_ENDPOINT": {"kind": "file", "name": "SUBTENSOR_CHAIN_ENDPOINT", "line": 7},
        "WALLET_NAME": {"kind": "flag", "name": "--wallet"},
        "MINER_AXON_PORT": {"kind": "flag", "name": "--axon.port"},
        "MODEL_URL": {"kind": "file", "name": "MODEL_URL", "line": 11},
        "QUEUE_SHARE": {"kind": "flag", "name": "--set"},
        "DEADLINE_CAP_SECONDS": {"kind": "file", "name": "REQUEST_DEADLINE", "line": 8},
        "LOG_LEVEL": {"kind": "environment"},
    }
    assert found["file"] == str(env_file)
    assert found["hub"] == {
        "HF_HOME": {"value": "/hub", "from": {"kind": "file", "name": "HF_HOME", "line": 13}},
        "HF_TOKEN": {"value": HIDDEN, "from": {"kind": "file", "name": "HF_TOKEN", "line": 12}},
    }


def test_no_secret_is_shown_in_any_form(env_file: Path) -> None:
    arguments = ["--set", "REMOTE_ENDPOINTS=http://me:hunter2pw@box:8000", "--set", "MODEL_URL=https://x/y?token=t0k"]
    for form in ([], ["--json"]):
        done = CliRunner().invoke(cli.app, ["config", "--env-file", str(env_file), *arguments, *form])
        assert done.exit_code == 0, done.output
        assert not [word for word in ("hunter2pw", "apikey123", "t0k", "hf_secret") if word in done.stdout]
        assert "wss://node.example" in done.stdout
    assert told("--env-file", env_file)["settings"]["MODEL_URL"]["value"] == "https://hub.example/me/roadwork"


def test_what_is_set_to_its_default_counts_as_set() -> None:
    found = told("--changed", "--set", "NETUID=323")["settings"]
    assert list(found) == ["NETUID"]
    assert found["NETUID"]["value"] == found["NETUID"]["default"]


def test_open_values_say_what_they_come_to(tmp_path: Path) -> None:
    cores = allowed_cores()
    found = told("--set", f"STATE_DIR={tmp_path}", "--port", "8095")["settings"]
    settled = {key: row["settled"] for key, row in found.items() if "settled" in row}
    assert settled == {
        "IMAGE_DETECTOR_CONFIG": "starter.yaml", "IMAGE_DETECTOR_BACKEND": "onnx", "IMAGE_DETECTOR_PRECISION": "fp32",
        "INFERENCE_SLOTS": 1, "INFERENCE_THREADS": cores, "AXON_EXTERNAL_PORT": 8095,
        "STANDALONE_FILE": str(tmp_path / "standalone.yaml"),
    }  # fmt: skip
    alone = told("--set", "INFERENCE_THREADS=1", "--config", "/nowhere/model.yaml")["settings"]
    assert alone["INFERENCE_SLOTS"]["settled"] == cores, "settings of a model that is not there are shown too"
    assert "settled" not in alone["INFERENCE_THREADS"]


def test_some_are_asked_for_by_name(env_file: Path) -> None:
    assert list(told("request_deadline", "NETUID", "--env-file", env_file)["settings"]) == [
        "NETUID", "DEADLINE_CAP_SECONDS",
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"NETUDI: .*NETUID"):
        told("NETUDI")


def test_a_fault_is_told_as_run_tells_it(env_file: Path) -> None:
    env_file.write_text("NETUID=here\nSTATUS_PORT=0\n")
    said = []
    for command in ("config", "run"):
        with pytest.raises(ConfigurationError) as caught:
            CliRunner().invoke(cli.app, [command, "--env-file", str(env_file)], catch_exceptions=False)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert [line.partition("=")[0] for line in said[0].splitlines()] == ["NETUID", "STATUS_PORT"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits(width: int, env_file: Path) -> None:
    long = "first:8091,second:8092,third:8093,fourth:8094"
    settings = Settings.load(env_file, wallet_hotkeys=long)
    found = origins(env_file, {"wallet_hotkeys": "--set"}, unit=["state_dir"])
    assert found["state_dir"] == Origin("unit")
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table_of(list(rows_of(settings, found)), env_file))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    text = "".join("".join(line.split()) for line in lines)
    for name in Settings.model_fields:
        assert name.upper() in text, f"{name} is cut"
    assert "mine.env:7" in text


def test_a_services_unit_wins_over_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from miner.cli import common

    root = tmp_path / "root"
    (root / "etc/roadwork-miner").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[4] / "env" / "testnet.env", root / "etc/roadwork-miner/testnet.env")
    unit = common.unit_settings("testnet", root)
    settings = Settings.load(common.settings_file("testnet", root), **unit)
    found = origins(common.settings_file("testnet", root), {}, unit)
    assert {name for name, origin in found.items() if origin.kind == "unit"} == {*unit}
    assert found["netuid"].kind == "file"
    assert str(settings.state_dir) == unit["state_dir"]


@pytest.mark.parametrize("command", ["HF_ENDPOINT=alice:hunter2pw@hub.example", "HF_ENDPOINT=https://a:hunter2pw@hub"])
def test_no_password_of_the_hubs_address_is_shown(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    name, _, value = command.partition("=")
    monkeypatch.setenv(name, value)
    shown = told()["hub"][name]["value"]
    assert "hunter2pw" not in shown
    assert shown != value


@pytest.mark.parametrize(
    "assignment", ["STATUS_ALLOWED_HOSTS=alice:hunter2pw@host", "WALLET_HOTKEYS=hot:http://alice:hunter2pw@host"]
)
def test_no_password_is_in_what_is_said_of_a_wrong_value(assignment: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        CliRunner().invoke(cli.app, ["config", "--set", assignment], catch_exceptions=False, standalone_mode=False)
    assert assignment.partition("=")[0] in str(refused.value)
    assert "hunter2pw" not in str(refused.value)
