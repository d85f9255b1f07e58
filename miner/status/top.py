"""Frames in a terminal, one after the other, that one can scroll through: `top`, and `train --watch`.

Textual is large, and only this module imports it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static

from miner.errors import CouldNotStart
from miner.formats import clock
from miner.status.terminal import Frame

LOOK_SECONDS = 1.0  # between two looks whether there still is a terminal


class Top(App[None]):
    """The screen: the head and the keys stay where they are, what is between them scrolls.

    What does not answer leaves its last frame, below a line that says so, until it answers again.
    """

    CSS = """
    #head, #lost { height: auto; }
    #lost { padding: 0 1; }
    #between { scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("down,j", "scroll('down')", "scroll", key_display="↑ ↓ PgUp PgDn Home End"),
        Binding("up,k", "scroll('up')", show=False),
        Binding("pagedown,space", "scroll('page_down')", show=False),
        Binding("pageup,b", "scroll('page_up')", show=False),
        Binding("home,g", "scroll('home')", show=False),
        Binding("end,G", "scroll('end')", show=False),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, first: Frame, fetch: Callable[[], Awaitable[Frame]], interval: float) -> None:
        """Begin with a frame; the next ones are fetched, with so many seconds between them.

        Args:
            first: the first frame.
            fetch: returns the next one; raises CouldNotStart where nothing answers.
            interval: seconds.
        """
        super().__init__(ansi_color=True)  # the terminal's own colours, light or dark
        self.theme = "textual-ansi"
        self.frame = first
        self.fetch = fetch
        self.interval = interval

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="lost")
        yield Static(self.frame.head, id="head")
        with VerticalScroll(id="between", can_focus=False):
            yield Static(self.frame.content, id="content")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask."""
        self.query_one("#lost").display = False
        self.run_worker(self._follow())
        self.set_interval(LOOK_SECONDS, self._end_without_a_terminal)

    def _end_without_a_terminal(self) -> None:
        """End once the terminal is gone: Textual would go on reading its end, on a core of the miner's."""
        if not (self.is_headless or os.isatty(0)):
            self.exit()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            reason = ""
            try:
                self.frame = await self.fetch()
            except CouldNotStart as error:
                reason = f"{error} (last seen {clock(self.frame.now)} UTC)"
            if not self.is_running:  # it is being closed, and its widgets are gone
                return
            self._say(reason)
            self.query_one("#head", Static).update(self.frame.head)
            self.query_one("#content", Static).update(self.frame.content)

    def _say(self, reason: str) -> None:
        line = self.query_one("#lost", Static)
        line.update(Text(reason, style="bold red"))
        line.display = bool(reason)

    def action_scroll(self, way: str) -> None:
        """Move what is between head and keys: up, down, page_up, page_down, home or end."""
        getattr(self.query_one("#between"), f"scroll_{way}")(animate=False)
