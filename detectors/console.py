"""The console of a long command: lines and steps, and progress bars with the share that is done and the time left."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

Thing = TypeVar("Thing")


LINE_SECONDS = 60.0  # between two lines of a bar where there is no terminal: a log that is silent looks dead


@dataclass(frozen=True, slots=True)
class BarState:
    """What a bar shows: the step, how much of how much is done (0: nobody knows), words, and seconds left."""

    what: str
    done: int
    total: int
    words: str = ""
    left: float | None = None  # None: nothing is done yet

    def __str__(self) -> str:
        """Return it as a line."""
        count = f"{self.done} of {self.total}" if self.total else f"{self.done}"
        return f"{self.what}: " + ", ".join(part for part in (count, self.words, self.left_words) if part)

    @property
    def left_words(self) -> str:
        """The time left, in words."""
        return "" if self.left is None else f"{duration(self.left)} left"


class BarUpdate(Protocol):
    """Moves a bar; what is not given stays as it was."""

    def __call__(self, done: int, words: str | None = None, *, total: int = 0, what: str = "") -> None:
        """Show so much done."""


class ScreenListener(Protocol):
    """Gets what a screen shows, as it shows it."""

    def line_said(self, words: str) -> None:
        """Take a line in."""

    def bar_moved(self, state: BarState | None) -> None:
        """Take a bar's state in; None: it has ended."""


class Screen:
    """Lines and bars on a console; where that is no terminal, a bar is a line every minute.

    Args:
        console: where to.
        clock: seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self.listener: ScreenListener | None = None

    def say(self, words: str) -> None:
        """Print a line."""
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)
        if self.listener is not None:
            self.listener.line_said(words)

    def warn(self, words: str) -> None:
        """Print a line that asks for attention."""
        line = f"warning: {words}"
        self._console.print(line, markup=False, highlight=False, style="yellow", soft_wrap=True)
        if self.listener is not None:
            self.listener.line_said(line)

    @contextmanager
    def bar(self, what: str, total: int = 0, done: int = 0) -> Iterator[BarUpdate]:
        """Show a bar; what is yielded moves it. Where a terminal is narrow, the bar itself gives way to the words.

        Args:
            what: the step.
            total: at its end; 0: nobody knows yet.
            done: of that already, which no time left is judged by.
        """
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(None), MofNCompleteColumn(),
            TextColumn("{task.fields[words]}", markup=False), TextColumn("{task.fields[left]}", markup=False),
        )  # fmt: skip
        terminal = self._console.is_terminal
        first, began = done, self._clock()
        state, told = BarState(what, done, total), began
        with Progress(*columns, console=self._console, transient=True, expand=True, disable=not terminal) as progress:
            task = progress.add_task(what, total=total or None, words="", left="")

            def update(done: int, words: str | None = None, *, total: int = 0, what: str = "") -> None:
                nonlocal state, told
                now, total = self._clock(), total or state.total
                # By the whole time since the bar began: steps may be longer than what rich looks back on.
                left = (total - done) * (now - began) / (done - first) if done > first and total else None
                state = BarState(what or state.what, done, total, state.words if words is None else words, left)
                progress.update(
                    task, completed=done, total=total or None, description=state.what, words=state.words,
                    left=state.left_words,
                )  # fmt: skip
                if not terminal and now - told >= LINE_SECONDS:
                    told = now
                    self._console.print(str(state), markup=False, highlight=False, soft_wrap=True)
                if self.listener is not None:
                    self.listener.bar_moved(state)

            update(done)
            try:
                yield update
            finally:
                if self.listener is not None:
                    self.listener.bar_moved(None)


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


def counted(number: int, what: str, plural: str = "s") -> str:
    """Return a number of things in words."""
    return f"{number} {what}" + plural * (number != 1)


def duration(seconds: float) -> str:
    """Return a time in words, such as `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
