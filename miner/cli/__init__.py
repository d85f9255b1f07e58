"""The command line: a table of the commands, each in a module of its own that is loaded when it is called."""

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from miner.cli.common import errors_told
from miner.cli.group import Command, Group, open_closed_streams, print_any_character

# What `--help` says of each, so that it need not load them all; a test holds them to their docstrings.
COMMANDS: dict[str, dict[str, str]] = {
    "Serve": {
        "run": "Answer validators until SIGTERM. SIGHUP reloads the model.",
        "reload": "Load the model again in the running miner; the old one serves until the new one is checked.",
        "register": "Register the hotkey with NATIX, once it has a uid on chain, and wait for the outcome.",
        "top": "Show the running miner: state, latency, outcomes, queue, memory, chain, the last requests.",
        "query": "Ask a miner about photos as a validator would.",
        "doctor": "Look at everything that keeps requests or rewards away, and say what to do.",
        "config": "Show every setting: its value, where that comes from, and its default.",
        "report": "Bundle settings, findings, metrics, versions, requests and the log; no secret, no photo.",
    },
    "Models": {
        "models": "Fetch, export, list, show and remove models.",
        "publish": "Publish a trained model on Hugging Face with the card that NATIX asks for, and name its MODEL_URL.",
        "export": "Export the configured model to ONNX.",
        "tune": "Measure backends, prepared precisions and splits of the cores; store the best as the plan.",
        "bench": "Measure the configured model: all competitors in turn, on the same number of threads.",
    },
    "Train and judge": {
        "label": "Label recorded photos in a browser, those that teach most first.",
        "train": "Train a detector, judge it on photos kept back, and export it to a folder that `run` serves.",
        "labels": "Find photos that may lie in the wrong folder, near-duplicates and hard negatives, on one sheet.",
        "evaluate": "Measure models on the same photos: figures, expected reward with its interval, time.",
        "standing": "Say how right the model is on what validators send, by the labelled photos of the random tenth.",
        "calibrate": "Find the threshold that earns most, and store it, so that 0.5 is the best decision.",
        "fuse": "Judge every combination of the branches by cross-validation, and write the best down.",
        "precompute": "Calculate once, in a file, what training and fusing need.",
        "improve": "Make a better model of labelled photos, put it beside what serves, and say whether to promote it.",
        "simulate": "Play a subnet's validators against a miner, and say what it would earn.",
    },
}


class LazyGroup(Group):
    """The commands, known by their names alone until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Load the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


def load(name: str) -> Any:
    """Return a command as click has it: that of its module's `app`, or of the function of its name."""
    module = import_module(f"{__name__}.{name}")
    commands = getattr(module, "app", None)
    if commands is None:
        commands = typer.Typer(add_completion=False)
        commands.command(name, cls=Command)(getattr(module, name))
    return get_command(commands)


app = typer.Typer(
    cls=LazyGroup,
    name="roadwork-miner",
    help="A CPU miner for NATIX StreetVision: answers validators on time, or refuses at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("roadwork-miner"))
        raise typer.Exit


@app.callback()
def _root(
    is_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


for _panel, _commands in COMMANDS.items():
    for _name, _help in _commands.items():
        app.command(_name, cls=TyperCommand, help=_help, rich_help_panel=_panel)(lambda: None)


def main() -> None:
    """Run a command."""
    open_closed_streams()
    print_any_character()
    with errors_told():
        app()
