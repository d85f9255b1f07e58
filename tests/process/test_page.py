"""The page for people in a real browser, and the same in a terminal."""

import html
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from miner.errors import MESSAGES
from miner.status.archive import CheckupView, FindingView
from miner.status.overview import CascadeView, KeyView, ShadowView, StageView
from miner.status.page import render
from tests.overviews import CALLER, HOTKEY, NOW, TRAFFIC, entry, overview
from tests.process.browser import Browser
from tests.process.conftest import Settings, StartDaemon, daemons, go_on
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.wire import Door
from tests.screenshot import LARGEST, PICTURE, SCREEN, TALLEST, busy_hour, photograph

DESKTOP, TABLET, PHONE, SMALL = (1280, 900), (768, 1024), (390, 844), (320, 568)
SCREENS = (DESKTOP, TABLET, PHONE, SMALL)
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


# What a person can read: cells and other ends of the tree that have letters and a place, in the order of the page.
READABLE = """
return [...document.querySelectorAll('main *')]
  .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  .filter(one => !one.closest('g') && !one.closest('.lost-note'))
  .map(one => [one.textContent.trim().replace(/\\s+/g, ' '), one.getClientRects().length > 0
    && getComputedStyle(one).visibility === 'visible' && +getComputedStyle(one).opacity === 1]);
"""
# Texts whose contrast with what lies behind them is below that of WCAG 2 AA.
FAINT = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = colour => {
  const [r, g, b] = numbers(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = one => {
  for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor, parts = numbers(colour);
    if (parts.length < 4 || parts[3] === 1) return colour;
  }
};
return [...document.querySelectorAll('main *')]
  .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  .filter(one => one.getClientRects().length)
  .map(one => {
    const style = getComputedStyle(one), letters = one instanceof SVGElement ? style.fill : style.color;
    const [low, high] = [luminance(letters), luminance(behind(one))].sort((a, b) => a - b);
    return [one.textContent.trim(), (high + 0.05) / (low + 0.05)];
  })
  .filter(([, contrast]) => contrast < 4.5);
"""
# Boxes that leave their card, and cards or tiles that stand alone in a row among others.
OUTSIDE = """
return [...document.querySelectorAll('.card *')]
  .filter(one => !(one instanceof SVGElement) && one.getClientRects().length)
  .filter(one => one.getBoundingClientRect().right > one.closest('.card').getBoundingClientRect().right - 4)
  .map(one => one.outerHTML.slice(0, 80));
"""
ALONE = """
return ['.tiles', '.cards'].flatMap(box => {
  const places = [...document.querySelector(box).children].map(one => one.getBoundingClientRect());
  const whole = document.querySelector(box).getBoundingClientRect().width;
  const columns = new Set(places.map(place => Math.round(place.left))).size;
  return columns === 1 ? [] : places.filter(place => place.width > 0.9 * whole
    || (box === '.tiles' && !places.some(other => other !== place && Math.abs(other.top - place.top) < 4)));
});
"""


STAGE = StageView(
    number=1, branches="small", answers=1_234_567, share=0.9, reasons={"sure": 1_234_567}, p50=0.01234, p95=0.0987,
    left=8.9, reward=0.62, earned=0.61,
)  # fmt: skip
LARGE = "small + a-model-with-a-long-name: whole + tiles 2x3, max + another"
CASCADE = CascadeView(
    stages=[STAGE, STAGE.model_copy(update={"number": 2, "branches": LARGE, "share": 0.1, "p50": None, "left": None})],
    reasons={"sure": 1_234_567, "last": 10, "budget": 123_456, "fault": 3}, reward=0.79, earned=None,
)  # fmt: skip


def many_things() -> dict[str, str]:
    """Return pages of a miner that is asked, idle and not ready, with short names and with long ones."""
    reason = "no remote endpoint is healthy: endpoint 0 (http://inference-0.internal.example.com:8000): no connection"
    keys = [
        KeyView(name="a_hotkey_with_a_name_that_is_long", hotkey=HOTKEY, port=65535, obstacle=None, uid=143,
                incentive=0.0, publication="published [2001:db8:1234:5678:9abc:def0:1234:5678]:65535"),
        KeyView(name="second", hotkey=CALLER, port=8092, obstacle=f"{HOTKEY} is not registered on subnet 72", uid=None,
                incentive=None, publication=""),
    ]  # fmt: skip
    found = [
        FindingView(name="port", level="problem", words="MINER_AXON_PORT=8091: taken", todo=f"ask {HOTKEY}"),
        FindingView(name="reachable", level="warning", words="not tried from outside"),
        FindingView(name="cpu", level="ok", words="4 cores"),
    ]
    checkup = CheckupView(at=NOW - 9e5, key="second", verdict="not ready to earn: port: taken", findings=found)
    outcomes = ("ok", "refused", "expired", "bad_request", "unauthorised", "forbidden", "stalled")
    busy = busy_hour()
    recent = overview(*(entry(outcome, reason=reason, seconds=9.4, uid=1023) for outcome in outcomes)).recent
    full = busy.model_copy(
        update={"recent": recent, "keys": keys, "checkup": checkup, "cascade": CASCADE, "traffic": TRAFFIC}
    )
    shadow = ShadowView(name="other@1", config="o.yaml", compared=11, agreement=0.9, failed=0, seconds=0.1,
                        tenths=[1] * 10, tenths_served=[2] * 10)  # fmt: skip
    stopped = overview(ready=False, obstacle=reason, model=None, queue=None, chain=None)
    return {
        "busy": render(busy),
        "full": render(full.model_copy(update={"shadow": shadow}), "week"),
        "idle": render(overview()),
        "not-ready": render(stopped),
    }


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
    for part in ("Ready", hotkey, "standalone", "in time", "Queue", "Memory and CPU", "Chain", "Model", "ViT"):
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


@pytest.mark.parametrize("state", ["busy", "full", "idle", "not-ready"])
def test_nothing_is_dropped_covered_faint_or_alone_on_any_screen(browser: Browser, pictures: Path, state: str) -> None:
    page = pictures / f"{state}.html"
    page.write_text(many_things()[state])
    seen = {}
    for width, height in SCREENS:
        for scheme in ("light", "dark"):
            browser.look(width, height, phone=width <= PHONE[0], scheme=scheme)
            browser.open(page.as_uri())
            browser.photograph(pictures / f"{state}-{width}-{scheme}.png")
            for fault in (OVERLAPPING, OUTSIDE, ALONE, FAINT):
                assert browser.run(fault) == [], (width, scheme)
            assert not browser.run(WIDER_THAN_THE_SCREEN), width
        seen[width] = browser.run(READABLE)
        assert len(seen[width]) > 50
        assert [text for text, is_seen in seen[width] if not is_seen] == [], width
    assert all(texts == seen[DESKTOP[0]] for texts in seen.values())


def test_a_column_says_its_figures_under_the_pointer(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(busy_hour()))
    browser.look(*DESKTOP)
    browser.open(page.as_uri())
    shown = "return [...document.querySelectorAll('g text')].filter(one => one.getClientRects().length)"
    assert browser.run(shown) == []
    x, y = browser.run(
        "const place = document.querySelectorAll('.chart g')[20].getBoundingClientRect();"
        "return [place.left + place.width / 2, place.top + 5]"
    )
    browser.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    (said,) = browser.run(shown + ".map(one => one.textContent)")
    assert "p95" in said


def test_a_column_says_its_figures_to_the_keyboard_and_goes_on_after_a_refresh(
    watched: Daemon, browser: Browser, street: bytes
) -> None:
    browser.look(*DESKTOP)
    browser.open(address(watched) + "?last=week")
    browser.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    rows = browser.run(ROWS)
    browser.run("document.querySelector('.chart g[tabindex=\"0\"]').focus()")
    shown = (
        "return [...document.querySelectorAll('g text')].filter(one => one.getClientRects().length)"
        ".map(one => one.textContent)"
    )
    (said,) = browser.run(shown)
    assert "p95" in said
    watched.ask(street)
    eventually(lambda: browser.run(ROWS) > rows)
    (later,) = browser.run(shown)
    assert later[:9] == said[:9], "of the same period"


def test_the_arrow_keys_lead_from_one_column_to_the_next(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(busy_hour()))
    browser.look(*DESKTOP)
    browser.open(page.as_uri())
    browser.run("document.querySelector('.chart g[tabindex=\"0\"]').focus()")
    focused = "return document.activeElement.getAttribute('aria-label')"
    seen = [browser.run(focused)]
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowRight", "ArrowRight"):
        for kind in ("keyDown", "keyUp"):
            browser.devtools("Input.dispatchKeyEvent", type=kind, key=key)
        seen.append(browser.run(focused))
    newest, before, earlier, *back = seen
    assert len({newest, before, earlier}) == 3
    assert back == [before, newest, newest]


def test_a_link_shows_another_span_and_the_page_goes_on_refreshing_it(
    watched: Daemon, browser: Browser, street: bytes
) -> None:
    def requests() -> int:
        return int(browser.text(".spans [aria-current]").split()[-2])

    browser.look(*DESKTOP)
    browser.open(address(watched))
    browser.run("document.querySelector('a[href=\"?last=week\"]').click()")
    eventually(lambda: "7 days" in browser.text(".spans [aria-current]"))
    before = requests()
    watched.ask(street)
    eventually(lambda: requests() == before + 1)
    assert "7 days" in browser.text(".spans [aria-current]")


def test_the_numbers_of_the_day_survive_a_restart_and_a_damaged_file_does_not_stop_one(
    start_daemon: StartDaemon, street: bytes
) -> None:
    daemon = start_daemon().ready()
    for _ in range(5):
        daemon.ask(street)
    before = daemon.page("/status").json()
    assert before["day"]["outcomes"] == {"ok": 5}
    assert daemon.stop() == 0
    (kept,) = daemon.state.glob("history-standalone-*.jsonl")
    assert daemon.keys.validator.hotkey.ss58_address not in kept.read_text()

    daemon.start().ready()
    after = daemon.page("/status").json()
    for span in ("hour", "day", "week"):
        for name in ("outcomes", "p95", "longest", "validators", "last", "callers", "hotkeys"):
            assert after[span][name] == before[span][name], (span, name)
    daemon.ask(street)
    assert daemon.page("/status").json()["week"]["outcomes"] == {"ok": 6}
    assert daemon.stop() == 0

    kept.write_bytes(kept.read_bytes()[:-9])
    daemon.start().ready()
    assert str(kept) in daemon.log
    daemon.ask(street)
    assert daemon.page("/status").json()["week"]["outcomes"] == {"ok": 1}
    assert daemon.stop() == 0
    daemon.start().ready()
    assert daemon.page("/status").json()["week"]["outcomes"] == {"ok": 1}


def test_what_doctor_found_is_on_the_page(watched: Daemon) -> None:
    done = subprocess.run(
        [*watched.command, "doctor", "--json"], env=watched.environment, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    said, shown = json.loads(done.stdout), watched.page("/status").json()["checkup"]
    assert shown["verdict"] == said["verdict"]
    assert [finding["name"] for finding in shown["findings"]] == [finding["name"] for finding in said["findings"]]
    assert said["verdict"] in html.unescape(watched.page("/").text)


def test_the_picture_of_the_readme_can_be_made_again(tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    photograph(picture)
    for one in (picture, PICTURE):
        content = one.read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        assert (width, height < TALLEST) == (SCREEN[0], True)
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
        assert "Ready" in window.text("header")
        assert "validator" in window.text("h1")
        assert "forbidden" in window.text(".recent")
        assert window.get("source").count('http-equiv="refresh"') == 1


def test_the_page_says_why_it_is_not_ready(start_daemon: StartDaemon, loading: Settings, browser: Browser) -> None:
    daemon = start_daemon(**loading)
    eventually(lambda: daemon.status("/") == 200 or daemon.ended)
    browser.open(address(daemon))
    assert "Not ready" in browser.text("header")
    assert browser.text("h1.reason").lower() == daemon.page("/status").json()["obstacle"].lower()
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
