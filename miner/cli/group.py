"""The command group: its settings file, and the flags that take settings' places."""

import os
import sys
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from miner.cli.common import chosen_file
from miner.cli.flags import by_setting, given_by, hints, in_words, options_of, refuse_contradictions, translated
from miner.errors import ConfigurationError

NO_ENV_FILE = "no_env_file"
FLAGS_GIVEN = "miner.cli.flags"  # of a context: which flag gave which setting


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
    """A command; one that reads settings has `--no-env-file` and flags in settings' places, and is given the rest."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        names = {parameter.name for parameter in self.params}
        self._flags: list[Any] = []
        self._takes_settings = names >= {"env_file", "set_"}
        if "env_file" in names:
            self.params.append(_refusal())
        if self._takes_settings:
            self._flags = options_of(self.name, _names_of(self))
            self.params += self._flags

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, choose the settings file, and add what flags set to what `--set` does.

        Raises:
            ConfigurationError: a flag of another program that means nothing here, flags that contradict each other,
                or both flags of the settings file.
        """
        if not self._takes_settings:
            refuse_foreign(self, args)
            rest = super().parse_args(ctx, args)
        else:
            args, foreign = translated(args, _names_of(self))
            rest = super().parse_args(ctx, args)
            given = [*given_by(self._flags, ctx.params), *foreign]
            refuse_contradictions(given)
            if foreign:
                print(f"flags of StreetVision's miner: {in_words(foreign)}", file=sys.stderr)
            ctx.params["set_"] = [*(ctx.params["set_"] or []), *(one.assignment for one in given)]
            ctx.meta[FLAGS_GIVEN] = by_setting(given)
        if NO_ENV_FILE in ctx.params:
            refused = ctx.params.pop(NO_ENV_FILE)
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
    lines = list(hints(args, _names_of(command)))
    if lines:
        raise ConfigurationError("\n".join(lines))


def _names_of(command: TyperCommand | TyperGroup) -> list[str]:
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]


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
