"""The command group: its settings file, and hints for flags of StreetVision's neurons."""

import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from detectors.redact import shown_within
from miner.cli.common import chosen_file
from miner.errors import ConfigurationError

# By flag: the setting that takes its value.
VALUE_FLAGS: dict[str, str] = {
    "--netuid": "NETUID",
    "--subtensor.network": "SUBTENSOR_NETWORK",
    "--subtensor.chain_endpoint": "SUBTENSOR_CHAIN_ENDPOINT",
    "--wallet.name": "WALLET_NAME",
    "--wallet.hotkey": "WALLET_HOTKEY",
    "--wallet.path": "WALLET_PATH",
    "--axon.port": "MINER_AXON_PORT",
    "--axon.ip": "MINER_AXON_HOST",
    "--axon.external_ip": "AXON_EXTERNAL_IP",
    "--axon.external_port": "AXON_EXTERNAL_PORT",
    "--neuron.image_detector": "IMAGE_DETECTOR",
    "--neuron.image_detector_config": "IMAGE_DETECTOR_CONFIG",
    "--neuron.image_detector_device": "IMAGE_DETECTOR_DEVICE",
    "--model_url": "MODEL_URL",
}
# By flag without a value: the setting as it is then.
SWITCH_FLAGS: dict[str, str] = {
    "--blacklist.force_validator_permit": "BLACKLIST_FORCE_VALIDATOR_PERMIT=true",
    "--blacklist.allow_non_registered": "BLACKLIST_ALLOW_NON_REGISTERED=true",
    "--logging.debug": "LOG_LEVEL=DEBUG",
    "--logging.trace": "LOG_LEVEL=DEBUG",
    "--logging.info": "LOG_LEVEL=INFO",
}
# Whole families of flags that have no counterpart, and why not.
UNUSED_FLAGS: dict[str, str] = {
    "--neuron.": "there is nothing to set for it; leave it out",
    "--axon.": "there is nothing to set for it; leave it out",
    "--wallet.": "there is nothing to set for it; leave it out",
    "--subtensor.": "there is nothing to set for it; leave it out",
    "--blacklist.": "there is nothing to set for it; the BLACKLIST_… settings are in env/README.md",
    "--logging.": "lines go to stderr or the journal; --set LOG_FORMAT=json changes their form",
    "--priority.": "the queue goes by stake; leave it out",
    "--proxy.": "this miner calls no proxy; leave it out",
    "--wandb.": "there is no wandb here: /metrics is for Prometheus; leave it out",
}

NO_ENV_FILE = "no_env_file"


def hints(arguments: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Yield a line for each foreign flag among a command's arguments: the flag, and our word for it.

    Args:
        arguments: as they were typed; those behind `--` are none of ours.
        known: the command's own flags.
    """
    for number, argument in enumerate(arguments):
        if argument == "--":
            return
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or flag in known:
            continue
        following = arguments[number + 1 : number + 2]
        given = value if equals else next((word for word in following if not word.startswith("-")), "")
        said = _said_here(flag, given)
        if said:
            yield f"{flag}: {said}"


def _said_here(flag: str, value: str) -> str | None:
    if flag in VALUE_FLAGS:
        return f"here it is --set {VALUE_FLAGS[flag]}={shown_within(value) or 'VALUE'}"
    if flag in SWITCH_FLAGS:
        key = SWITCH_FLAGS[flag].partition("=")[0]
        is_switch = value.lower() in ("true", "false")
        return f"here it is --set {f'{key}={value.lower()}' if is_switch else SWITCH_FLAGS[flag]}"
    return next((why for family, why in UNUSED_FLAGS.items() if flag.startswith(family)), None)


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
