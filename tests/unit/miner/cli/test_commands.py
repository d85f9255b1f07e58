"""The table of commands that `--help` reads."""

import inspect

import pytest

from miner import cli

TABLE = {name: line for commands in cli.COMMANDS.values() for name, line in commands.items()}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_says_what_the_command_itself_says(name: str) -> None:
    command = cli.load(name)
    assert inspect.cleandoc(command.help).split("\n\n")[0].replace("\n", " ") == TABLE[name]
