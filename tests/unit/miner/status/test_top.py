"""`top` on a screen of 80 × 24: what can be reached, and what ends it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from html import unescape

import pytest
from textual.pilot import Pilot

from miner.errors import CouldNotStart
from miner.status.cards import cards
from miner.status.overview import Overview, ShadowView
from miner.status.terminal import Frame, frame_of
from miner.status.top import Top
from tests.overviews import HOTKEY, entry, overview

pytestmark = pytest.mark.slow  # a whole screen for each key

SCREEN = (80, 24)
FULL = overview(
    *[entry(uid=uid) for uid in range(100, 119)],
    entry("refused", reason="no answer in time is possible"),
    shadow=ShadowView(name="other@1", config="o.yaml", compared=1234, agreement=0.974, failed=5, seconds=0.0612),
)


def shown(app: Top) -> str:
    """Return what is on the screen, of its picture: a line of text for each line."""
    lines: dict[str, list[str]] = {}
    for y, text in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>(.*?)</text>', app.export_screenshot()):
        lines.setdefault(y, []).append(unescape(text).replace("\xa0", " "))
    return "\n".join(" ".join(parts) for parts in lines.values())


def on_screen(
    scene: Callable[[Top, Pilot[None]], Awaitable[None]], answers: Callable[[], Overview] | None = None
) -> Top:
    """Play a scene on a small screen."""

    async def fetch() -> Frame:
        assert answers is not None
        return frame_of(answers())

    async def play() -> Top:
        app = Top(frame_of(FULL), fetch, interval=0.1 if answers else 3600.0)
        async with app.run_test(size=SCREEN) as pilot:
            await scene(app, pilot)
        return app

    return asyncio.run(play())


async def until(app: Top, pilot: Pilot[None], text: str, *, gone: bool = False) -> None:
    """Wait for a text to come, or to go; the test's own limit ends what never happens."""
    while (text in shown(app)) == gone:
        await pilot.pause(0.01)


@pytest.mark.parametrize("key", ["pagedown", "down"])
def test_everything_can_be_reached_on_a_small_screen(key: str) -> None:
    views: list[str] = []

    async def scene(app: Top, pilot: Pilot[None]) -> None:
        await pilot.pause()
        views.append(shown(app))
        between = app.query_one("#between")
        while between.scroll_offset.y < between.max_scroll_y:
            await pilot.press(key)
            views.append(shown(app))

    on_screen(scene)
    assert len(views) > 2
    every = "\n".join(views)
    for card in cards(FULL):
        for text in (card.title, *(row.name for row in card.rows), *(row.value for row in card.rows)):
            assert text in every
    for request in FULL.recent:
        assert f" {request.uid} " in every
    assert "0.8454" in every
    for view in views:  # who it is, and how to leave, are always there
        assert "Ready" in view
        assert HOTKEY in view
        assert "q quit" in " ".join(view.split())


def test_keys_lead_to_both_ends() -> None:
    async def scene(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("end")
        assert "Last hour" not in shown(app)
        await pilot.press("home")
        assert "Last hour" in shown(app)

    on_screen(scene)


@pytest.mark.parametrize(
    ("there", "back"), [("down", "up"), ("j", "k"), ("space", "b"), ("pagedown", "pageup"), ("G", "g")]
)
def test_keys_lead_there_and_back(there: str, back: str) -> None:
    async def scene(app: Top, pilot: Pilot[None]) -> None:
        between = app.query_one("#between")
        await pilot.press(there)
        assert between.scroll_offset.y > 0
        await pilot.press(back)
        assert between.scroll_offset.y == 0

    on_screen(scene)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_a_key_ends_it(key: str) -> None:
    async def scene(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        await pilot.pause()
        assert not app.is_running

    assert on_screen(scene).return_code == 0


def test_a_frame_that_comes_while_it_is_closed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its widgets are gone by then."""
    close = Top._close_all

    async def slowly(app: Top) -> None:
        await close(app)
        await asyncio.sleep(0.3)  # a few frames long

    async def scene(app: Top, pilot: Pilot[None]) -> None:
        await pilot.pause()

    monkeypatch.setattr(Top, "_close_all", slowly)
    on_screen(scene, lambda: FULL)


def test_a_new_frame_leaves_the_place_that_is_looked_at() -> None:
    async def scene(app: Top, pilot: Pilot[None]) -> None:
        await until(app, pilot, "uid 143")
        await pilot.press("pagedown")
        place = app.query_one("#between").scroll_offset.y
        assert FULL.chain is not None
        later.append(FULL.model_copy(update={"chain": FULL.chain.model_copy(update={"uid": 99})}))
        await until(app, pilot, "uid 99")
        assert app.query_one("#between").scroll_offset.y == place > 0

    later: list[Overview] = []
    on_screen(scene, lambda: later[-1] if later else FULL)


def test_a_miner_that_is_gone_leaves_its_last_frame_until_it_is_back() -> None:
    gone: list[str] = []

    def answer() -> Overview:
        if gone:
            raise CouldNotStart(gone[0])
        return FULL

    async def scene(app: Top, pilot: Pilot[None]) -> None:
        await until(app, pilot, "uid 143")
        gone.append("no miner answers at [red]home[/red]")
        await until(app, pilot, gone[0])
        assert "22:13:20 UTC" in shown(app)
        assert "0.2813 TAO" in shown(app)
        reason = gone.pop()
        await until(app, pilot, reason, gone=True)
        assert "0.2813 TAO" in shown(app)

    on_screen(scene, answer)
