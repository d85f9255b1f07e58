"""The console of a training: lines, and a progress bar with loss, accuracy and the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Screen:
    """Lines and bars on a console; where that is no terminal, only the lines are seen."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, words: str) -> None:
        """Print a line."""
        self._console.print(words, markup=False, highlight=False)

    def warn(self, words: str) -> None:
        """Print a line that asks for attention."""
        self._console.print(f"warning: {words}", markup=False, highlight=False, style="yellow")

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Show a bar; what is yielded takes how much is done and words beside it."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            task = progress.add_task(what, total=total, words="")

            def update(done: int, words: str = "") -> None:
                progress.update(task, completed=done, words=words)

            yield update


def duration(seconds: float) -> str:
    """Return a time in words, such as `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
