"""The commands we tell people to type are those of the installed bittensor's own btcli."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from miner.chain.sync import register_command
from miner.chain.wallet import load_hotkey
from miner.errors import ConfigurationError

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"btcli(?: [a-z][a-z-]+){2}(?:\s+--[a-z-]+\s+\S+)+")
# In a process of its own: it restyles every help text at its import.
HELP = """if True:
    import contextlib, sys
    from bittensor.cli.main import main
    for command in sys.argv[1:]:
        sys.argv = ["btcli", *command.split(), "--help"]
        with contextlib.suppress(SystemExit):
            main()
        print("\\f")
"""


def said(tmp_path: Path) -> set[str]:
    """Return every command of the README and of our messages."""
    with pytest.raises(ConfigurationError) as missing:
        load_hotkey(tmp_path, "name", "hot")
    texts = [README, str(missing.value), register_command(323, "name", "5F", "test")]
    return {" ".join(command.split()) for text in texts for command in COMMAND.findall(text)}


def test_every_command_and_flag_that_we_name_is_there(tmp_path: Path) -> None:
    flags: dict[str, set[str]] = {}
    for command in said(tmp_path):
        name = " ".join(command.split()[1:3])
        flags.setdefault(name, set()).update(re.findall(r"--[a-z-]+", command))
    assert flags.keys() == {"wallet new-coldkey", "wallet new-hotkey", "subnet register"}
    done = subprocess.run([sys.executable, "-c", HELP, *flags], capture_output=True, text=True, timeout=120, check=True)
    for (name, named), shown in zip(flags.items(), done.stdout.split("\f"), strict=False):
        assert f"Usage: btcli {name} " in shown
        assert named <= set(re.findall(r"--[a-z-]+", shown)), name
