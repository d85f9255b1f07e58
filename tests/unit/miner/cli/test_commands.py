"""The table of commands that `--help` reads."""

import inspect
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from miner import cli
from miner.errors import CouldNotStart
from miner.settings.settings import Settings

TABLE = {name: line for commands in cli.COMMANDS.values() for name, line in commands.items()}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_says_what_the_command_itself_says(name: str) -> None:
    command = cli.load(name)
    assert inspect.cleandoc(command.help).split("\n\n")[0].replace("\n", " ") == TABLE[name]


def options(name: str) -> Iterator[Any]:
    command = cli.load(name)
    for each in getattr(command, "commands", {"": command}).values():
        yield from each.params


@pytest.mark.parametrize("name", TABLE)
def test_every_option_says_what_it_is_for(name: str) -> None:
    for option in options(name):
        assert option.help, f"{name} {option.name}"


def test_the_options_of_run_name_the_settings_they_take_the_place_of() -> None:
    named = {key for key in Settings.model_fields for option in options("run") if f"({key.upper()}" in option.help}
    assert named >= {"subtensor_network", "netuid", "miner_axon_port", "status_port", "image_detector", "log_level"}
    assert any("default 8091" in option.help for option in options("run"))


def test_no_commands_help_loads_what_is_heavy() -> None:
    code = f"import sys; from miner import cli; [cli.load(name) for name in {list(TABLE)}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "onnxruntime", "bittensor", "transformers", "sklearn"} & set(done.stdout.split())


def test_a_second_sigterm_does_not_break_the_unwinding_off() -> None:
    """Make hands the signal on to a command that has got it already, as one of its group."""
    script = (
        "import os, signal\n"
        "from miner.cli.common import end_in_order_on_sigterm\n"
        "end_in_order_on_sigterm()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "finally:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('unwound')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "unwound\n", "")


@pytest.mark.parametrize("module", ["sklearn", "torch"])
def test_what_a_night_can_not_do_without_is_said_before_it_begins(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it of what can't be imported
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(CouldNotStart, match="needs the package"):
        CliRunner().invoke(cli.app, ["improve", "--no-env-file"], catch_exceptions=False)
    assert not (tmp_path / "state").exists()
