"""One frame of `top`, and the words that page and terminal share."""

import re
from html import unescape

import pytest
from rich.console import Console

from miner import __version__, formats
from miner.settings.settings import Settings
from miner.status.cards import cards, headline
from miner.status.overview import KeyView, NatixView, ShadowView
from miner.status.page import render
from miner.status.terminal import head, screen
from tests.overviews import CALLER, HOTKEY, NOW, TRAFFIC, entry, overview


def frame(renderable: object, width: int = 152) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize("width", [80, 152])
def test_a_frame_has_everything_and_fits(width: int) -> None:
    shown = frame(screen(overview(entry(), entry("forbidden", reason="no permit", uid=None))), width)
    for part in ("Ready", HOTKEY, "uid 143", "Queue", "3 of 32", "812 MiB", "vit-base", "forbidden", "no permit"):
        assert part in shown
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines()) <= width


def test_the_head_has_two_lines_on_a_terminal_of_80_columns() -> None:
    first, second = frame(head(overview()), 80).splitlines()
    assert first.split()[:2] == ["●", "Ready"]
    assert second.split() == [HOTKEY, formats.clock(NOW), "UTC", "version", __version__]


def test_a_frame_begins_with_the_headline_and_an_obstacle_stands_once() -> None:
    shown = overview(entry())
    assert str(headline(shown)) in frame(screen(shown), 152)
    assert frame(screen(overview(ready=False, obstacle="loading the model"))).count("loading the model") == 1


def test_a_frame_before_anything_is_there() -> None:
    shown = frame(screen(overview(ready=False, obstacle="loading the model", model=None, queue=None, chain=None)))
    for part in ("Not ready", "loading the model", "not there yet"):
        assert part in shown


@pytest.mark.parametrize("width", [80, 152])
def test_the_shadows_predictions_are_shown_beside_those_of_the_model_that_serves(width: int) -> None:
    view = ShadowView(
        name="other@1", config="other.yaml", compared=11, agreement=0.9, failed=0, seconds=0.1,
        tenths=[1, 0, 0, 0, 0, 0, 0, 0, 2, 8], tenths_served=[8, 0, 0, 0, 0, 0, 0, 0, 0, 3],
    )  # fmt: skip
    shown = frame(screen(overview(shadow=view)), width)
    for part in ("other@1", "90.0 %", "│▁       ▂█│", "│█        ▃│"):
        assert part in shown
    nothing = view.model_copy(update={"tenths": [0] * 10, "tenths_served": [0] * 10})
    assert "shadow predictions" in frame(screen(overview(shadow=nothing)), width)


def test_the_terminal_shows_what_the_page_shows() -> None:
    shadow = ShadowView(name="other@1", config="o.yaml", compared=1234, agreement=0.974, failed=5, seconds=0.0612)
    whole = overview(entry(), shadow=shadow, traffic=TRAFFIC)
    page = " ".join(unescape(re.sub("<style>.*?</style>|<[^>]+>", " ", render(whole), flags=re.DOTALL)).split())
    terminal = " ".join(frame(screen(whole)).replace("│", " ").split())
    names = {card.title: [row.name for row in card.rows] for card in cards(whole)}
    assert {"trust", "proportional (PSS)", "hash", "agreement"} <= {name for card in names.values() for name in card}
    for card in cards(whole):
        for said in (card.title, *(f"{row.name} {row.value}" for row in card.rows), card.note):
            assert said in page
        for row in card.rows:
            assert row.name in terminal
            assert row.value in terminal


def test_text_from_outside_is_no_markup() -> None:
    assert "[red]x[/red]" in frame(screen(overview(entry("bad_request", reason="[red]x[/red]"))))


def test_a_long_reason_is_shown_whole() -> None:
    reason = "no remote endpoint is healthy: endpoint 0 (http://inference-0.internal.example.com:8000): no connection"
    view = KeyView(name="second", hotkey=HOTKEY, port=8092, obstacle=reason, uid=None, incentive=None, publication="")
    shown = frame(screen(overview(entry("refused", reason=reason), keys=[view, view])), 79)
    assert re.sub(r"[│\s]", "", shown).count(reason.replace(" ", "")) == 2  # both hotkeys'
    assert [shown.count(word) for word in ("endpoint 0", "connection", "…")] == [3, 3, 0]  # and the request's


@pytest.mark.parametrize("width", [80, 152])
def test_the_table_of_hotkeys_says_what_each_earns_and_whether_natix_knows_it(width: int) -> None:
    natix = NatixView(standing="due", words="due again", command="", since=1.0, asked=1.0)
    first = KeyView(
        name="first", hotkey=HOTKEY, port=8091, obstacle=None, uid=143, incentive=None, publication="published",
        natix=natix,
    )  # fmt: skip
    second = first.model_copy(update={"name": "second", "hotkey": CALLER, "natix": None})
    lines = frame(screen(overview(entry(), keys=[first, second])), width).splitlines()
    of = {name: next(line.split() for line in lines if f"● {name}" in line) for name in ("first", "second")}
    assert of["first"][2:-1] == ["first", "143", "8091", "0.1468", "41", "due", "again", "published"]
    assert of["second"][2:-1] == ["second", "143", "8091", "–", "–", "–", "published"]


def test_a_line_of_blocks_shows_what_is_not_zero() -> None:
    assert formats.spark([0, 0.01, 5, 10], 10) == " ▁▄█"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:9464"),
        ("0.0.0.0", "http://127.0.0.1:9464"),
        ("::", "http://[::1]:9464"),
        ("10.1.2.3", "http://10.1.2.3:9464"),
    ],
)
def test_top_asks_where_the_miner_listens(host: str, address: str) -> None:
    assert Settings(status_host=host, status_port=9464).status_address == address


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.duration(None), "–"),
        (formats.duration(0.00942), "9.4 ms"),
        (formats.duration(0.25), "250 ms"),
        (formats.duration(9.4), "9.40 s"),
        (formats.age(37), "37 s"),
        (formats.age(-5000), "0 s"),
        (formats.age(600), "10 min"),
        (formats.age(86400 * 3), "3.0 days"),
        (formats.size(345 * 2**20), "345 MiB"),
        (formats.size(1.5 * 2**30), "1.50 GiB"),
        (formats.size(22.79 * 2**30), "22.8 GiB"),
        (formats.share(1), "100 %"),
        (formats.share(0.99999), "99.99 %"),
        (formats.share(0.974), "97.4 %"),
        (formats.number(6123456), "6 123 456"),
    ],
)
def test_numbers_in_words(shown: str, expected: str) -> None:
    assert shown == expected
