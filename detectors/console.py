"""The console of a long command: lines and steps, and progress bars with the share that is done and the time left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, overload

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Thing = TypeVar("Thing")


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


class Steps:
    """The steps of a long command: each is told, and a bar shows how far the one at work is.

    Without a bar they are told alone, as where nobody looks.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None, bar: Progress | None = None) -> None:
        self._tell = tell
        self._bar = bar
        self._step = ""

    def __call__(self, step: str) -> None:
        """Tell a step that begins."""
        self._step = step
        self._tell(step)
        self._show(None)

    def each(self, things: Sequence[Thing]) -> Sequence[Thing]:
        """Return what the step goes through; each time somebody does, the bar shows how far."""
        return _Counted(things, self)

    def count(self, things: Sequence[Thing]) -> Iterator[Thing]:
        """Yield one after the other, and move the bar."""
        task = self._show(len(things))
        try:
            for thing in things:
                yield thing
                if self._bar is not None and task in self._bar.task_ids:
                    self._bar.advance(task)
        finally:
            self._show(None)  # what comes behind it takes its time too

    def _show(self, total: int | None) -> TaskID:
        """Begin the bar anew; None: nobody knows how long."""
        if self._bar is None:
            return TaskID(0)
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        return self._bar.add_task(self._step, total=total)


NO_STEPS = Steps()  # nobody looks


class _Counted(Sequence[Thing]):
    """A sequence whose iteration is counted."""

    def __init__(self, things: Sequence[Thing], steps: Steps) -> None:
        self._things, self._steps = things, steps

    def __len__(self) -> int:
        return len(self._things)

    @overload
    def __getitem__(self, number: int) -> Thing: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Thing]: ...
    def __getitem__(self, number: int | slice) -> Thing | Sequence[Thing]:
        return self._things[number]

    def __iter__(self) -> Iterator[Thing]:
        return self._steps.count(self._things)


def bar_on(console: Console) -> Progress:
    """Return a bar with the share that is done and the time that is left; nothing where that is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def duration(seconds: float) -> str:
    """Return a time in words, such as `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
