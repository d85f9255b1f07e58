"""What every command has in common: where its settings file comes from, and what is said of flags that are not ours."""

import os
import sys
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from miner.cli.common import chosen_file
from miner.cli.foreign import hints
from miner.errors import ConfigurationError

REFUSE = "no_env_file"


@cache
def _refusal() -> Any:
    """Return the option `--no-env-file`, made by Typer as it makes those of a command."""

    def options(
        no_env_file: Annotated[
            bool, typer.Option("--no-env-file", help="Read no settings file, not even a miner.env of this folder.")
        ] = False,
    ) -> None: ...

    app = typer.Typer(add_completion=False)
    app.command()(options)
    (option,) = get_command(app).params
    return option


class Command(TyperCommand):
    """A command; one with `--env-file` also has `--no-env-file`, and is given the file that is read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if any(parameter.name == "env_file" for parameter in self.params):
            self.params.append(_refusal())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and choose the settings file.

        Raises:
            ConfigurationError: a flag of another program, or both flags of the settings file.
        """
        refuse_foreign(self, args)
        rest = super().parse_args(ctx, args)
        if REFUSE in ctx.params:
            refused = ctx.params.pop(REFUSE)
            ctx.params["env_file"] = chosen_file(ctx.params["env_file"], ctx.params.get("service"), refused=refused)
        return rest


class Group(TyperGroup):
    """The commands; flags before the command's name are looked at too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse.

        Raises:
            ConfigurationError: a flag of another program.
        """
        if args and args[0].startswith("-"):
            refuse_foreign(self, args)
        return super().parse_args(ctx, args)


def refuse_foreign(command: TyperCommand | TyperGroup, args: list[str]) -> None:
    """Name each flag of StreetVision's neurons, with our word for it.

    Raises:
        ConfigurationError: there is one.
    """
    known = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    lines = list(hints(args, known))
    if lines:
        raise ConfigurationError("\n".join(lines))


def open_closed_streams() -> None:
    """Put /dev/null in the place of standard streams that are closed.

    The first file or socket that is opened would otherwise get the number of one, and what is printed would go there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def print_any_character() -> None:
    """Have characters that a stream's encoding lacks printed as `?`, rather than end the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a stream put there by a caller may be of another kind
        if reconfigure is not None:
            reconfigure(errors="replace")
