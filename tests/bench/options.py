"""What the benches that are called as modules share: their options, how they end, and how they print."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

WIDTH = 120  # of a table that goes into a file


def parser_of(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m MODULE`; the first line of its docstring says what for."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(doc or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    return parser


def add_env_file(parser: argparse.ArgumentParser) -> None:
    """Let it be given the settings of the model that is measured."""
    parser.add_argument("--env-file", type=Path, help="of the model that is measured; default: the starter")


def print_figures(as_json: bool, figures: object, show: Callable[[], None]) -> None:
    """Print figures as JSON, or have them shown to people."""
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        show()


def print_table(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table for people."""
    table = Table(*heads, box=None, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True, width=WIDTH).print(table)
