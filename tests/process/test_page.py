"""The page for people in a real browser, and the same in a terminal."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from miner.errors import MESSAGES
from miner.status.overview import KeyView
from miner.status.page import render
from tests.overviews import HOTKEY, entry, overview
from tests.process.browser import Browser
from tests.process.conftest import Settings, StartDaemon, daemons, go_on
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.wire import Door
from tests.screenshot import LARGEST, PICTURE, SCREEN, photograph

DESKTOP, PHONE = (1280, 900), (390, 844)
ROWS = "return document.querySelectorAll('tbody tr').length"
WIDER_THAN_THE_SCREEN = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
FOREIGN = (
    "return performance.getEntriesByType('resource').map(entry => entry.name)"
    ".filter(name => !name.startsWith(location.origin))"
)

# Texts of a table's row that lie on others: the places of the letters, not of the boxes, which they may leave.
OVERLAPPING = """
const places = row => {
  const found = [], walker = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    found.push(...[...range.getClientRects()].map(place => [place, walker.currentNode.textContent]));
  }
  return found;
};
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4;
return [...document.querySelectorAll('tr')].flatMap(row => {
  const all = places(row);
  return all.flatMap(([a, said], i) => all.slice(i + 1).filter(([b]) => meet(a, b)).map(([, other]) => [said, other]));
});
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, model: str, street: bytes) -> Iterator[Daemon]:
    """A miner that has answered some requests and turned others away."""
    with daemons(tmp_path_factory, model) as start:
        daemon = start().ready()
        for _ in range(12):
            daemon.ask(street)
        daemon.ask(street, timeout="0.2")
        daemon.ask(b"<script>alert(1)</script>")
        daemon.post(daemon.signer(daemon.keys.stranger).sign(street, Door()))
        yield daemon


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go, to be looked at: ROADWORK_SCREENSHOTS, or a temporary folder."""
    folder = Path(os.environ.get("ROADWORK_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def address(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.status_port}/"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_shows_everything_on_any_screen(
    watched: Daemon, browser: Browser, pictures: Path, width: int, height: int, scheme: str
) -> None:
    browser.look(width, height, phone=width == PHONE[0], scheme=scheme)
    browser.open(address(watched))
    text = browser.text()
    hotkey = watched.keys.miner.hotkey.ss58_address
    for part in ("Ready", hotkey, "standalone", "answered in time", "Queue", "Memory and CPU", "Chain", "Model", "ViT"):
        assert part in text
    for outcome in ("ok", "refused", "bad image", "forbidden"):
        assert outcome in text
    assert MESSAGES["deadline"] in text
    assert not browser.run(WIDER_THAN_THE_SCREEN)
    assert browser.run(FOREIGN) == []
    assert browser.complaints() == []  # nothing that the content security policy had to stop
    picture = pictures / f"page-{width}-{scheme}.png"
    browser.photograph(picture)
    brightness = Image.open(io.BytesIO(picture.read_bytes())).convert("L").getpixel((2, 2))
    assert isinstance(brightness, int)
    assert (brightness > 128) == (scheme == "light")


@pytest.mark.parametrize(("width", "height"), [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_long_names_and_reasons_stay_in_their_places(browser: Browser, pictures: Path, width: int, height: int) -> None:
    reason = "no remote endpoint is healthy: endpoint 0 (http://inference-0.internal.example.com:8000): no connection"
    named = "a_hotkey_with_a_name_that_is_long"
    keys = [
        KeyView(name=named, hotkey=HOTKEY, port=8091, obstacle=None, uid=143, incentive=0.0,
                publication="published [2001:db8:1234:5678:9abc:def0:1234:5678]:65535"),
        KeyView(name="second", hotkey=HOTKEY, port=8092, obstacle=f"{HOTKEY} is not registered on subnet 72", uid=None,
                incentive=None, publication=""),
    ]  # fmt: skip
    page = pictures / "long.html"
    page.write_text(render(overview(entry("refused", reason=reason), ready=False, obstacle=reason, keys=keys)))
    browser.look(width, height, phone=width == PHONE[0])
    browser.open(page.as_uri())
    assert named in browser.text(".keys")
    assert not browser.run(WIDER_THAN_THE_SCREEN)
    assert browser.run(OVERLAPPING) == []
    browser.photograph(pictures / f"long-{width}.png")


def test_the_picture_of_the_readme_can_be_made_again(tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    photograph(picture)
    for one in (picture, PICTURE):
        content = one.read_bytes()
        assert Image.open(io.BytesIO(content)).width == SCREEN[0]
        assert len(content) < LARGEST


def test_the_page_refreshes_itself(watched: Daemon, browser: Browser, street: bytes) -> None:
    browser.look(*DESKTOP)
    browser.open(address(watched))
    browser.run("window.stillHere = true")
    rows = browser.run(ROWS)
    watched.ask(street)
    eventually(lambda: browser.run(ROWS) == rows + 1)
    assert browser.run("return window.stillHere")


def test_the_page_says_when_the_miner_is_gone(start_daemon: StartDaemon, browser: Browser) -> None:
    daemon = start_daemon().ready()
    browser.look(*DESKTOP)
    browser.open(address(daemon))
    assert "No contact" not in browser.text("header")
    daemon.stop()
    eventually(lambda: "No contact" in browser.text("header"))
    browser.complaints()


def test_the_page_needs_no_javascript(watched: Daemon, tmp_path: Path) -> None:
    with Browser(tmp_path, javascript=False) as window:
        window.look(*DESKTOP)
        window.open(address(watched))
        assert "Ready" in window.text("h1")
        assert "forbidden" in window.text("table")
        assert window.get("source").count('http-equiv="refresh"') == 1


def test_the_page_says_why_it_is_not_ready(start_daemon: StartDaemon, loading: Settings, browser: Browser) -> None:
    daemon = start_daemon(**loading)
    eventually(lambda: daemon.status("/") == 200 or daemon.ended)
    browser.open(address(daemon))
    assert "Not ready" in browser.text("h1")
    assert browser.text(".reason")
    go_on(loading)
    daemon.ready()


def test_the_headers_allow_nothing_from_elsewhere(watched: Daemon) -> None:
    page = watched.page("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert "http" not in page.text.replace("http-equiv", "")


def top(daemon: Daemon, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*daemon.command, "top", *options],
        env=daemon.environment | {"COLUMNS": "150"}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def test_top_shows_the_same_in_a_terminal(watched: Daemon) -> None:
    done = top(watched, "--once")
    assert done.returncode == 0, done.stderr
    for part in ("Ready", watched.keys.miner.hotkey.ss58_address, "Last hour", "Queue", "bad image", "forbidden"):
        assert part in done.stdout


def test_top_as_json_is_the_status(watched: Daemon) -> None:
    done = top(watched, "--json")
    shown, status = json.loads(done.stdout), watched.page("/status").json()
    assert shown["identity"] == status["identity"]
    assert shown["ready"] is True
    assert shown["hour"]["outcomes"]["bad_image"] == 1
    assert len(shown["recent"]) <= 20
    assert len(shown["hour"]["minutes"]) == 60


def test_top_without_a_miner_says_so_in_one_line(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {})
    done = top(daemon, "--once")
    assert done.returncode == 3
    assert done.stderr.startswith("error: no miner answers")
    assert f" http://127.0.0.1:{daemon.status_port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    daemon.close()
