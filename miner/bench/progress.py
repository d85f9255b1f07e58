"""What `roadwork-miner bench` prints: a bar while it measures, and the tables."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from miner.bench.measure import Progress
    from miner.bench.subject import Subject

WIDTH = 200  # of a table that goes into a file


def print_all(subject: "Subject", *parts: object) -> None:
    """Print what a bench is of, and then its tables and words."""
    from rich.console import Console

    facts = subject.facts()
    out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    out.print(f"{facts['model']}: {subject.split} on {facts['cpu']}; {', '.join(facts['libraries'])}")
    out.print(f"roadwork = {facts['roadwork']}", markup=False)
    for part in parts:
        out.print(part)


def line_printer(*, to_stderr: bool) -> "Callable[[Console, str], None]":
    """Return what prints a line while the bar moves: above it, or into the file or pipe that stdout is, at once.

    Called before there is a bar, which takes what is written to stdout for its own console.
    """
    out = sys.stdout

    def say(console: "Console", line: str) -> None:
        if to_stderr or out.isatty():
            console.print(line, highlight=False, markup=False)
        else:
            print(line, file=out, flush=True)

    return say


@contextmanager
def progress_bar() -> "Iterator[tuple[Console, Progress]]":
    """Give a console on stderr, and a function that is told each step and the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, soft_wrap=True)
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("…", total=1.0)
        yield console, lambda text, share: bar.update(task, description=text, completed=share)
