"""The page for people: what it says, and what it lets through."""

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from miner.status.cards import HEIGHT, latency_chart, nice_top, outcomes_chart
from miner.status.overview import Overview
from miner.status.page import CONTENT_SECURITY_POLICY, render
from tests.overviews import HOTKEY, entry, overview

VOID = {"meta", "link", "br", "img", "input"}


class Outline(HTMLParser):
    """Checks that tags are closed in order, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def outline(shown: Overview) -> Outline:
    parser = Outline()
    parser.feed(render(shown))
    assert parser.open == []
    return parser


def text(shown: Overview) -> str:
    return " ".join(" ".join(outline(shown).text).split())


def titles(shown: Overview) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", render(shown))


def test_titles_are_the_operators_words_whole() -> None:
    cards = ["Queue", "Memory and CPU", "Chain", "Model"]
    assert titles(overview()) == ["Last hour", *cards, "Last requests"]
    early = overview().model_copy(update={"queue": None, "chain": None, "model": None})
    assert titles(early) == ["Last hour", *cards, "Last requests"]


def test_a_miner_that_is_well() -> None:
    shown = text(overview(entry(), entry("refused", seconds=0.001, reason="no answer in time is possible")))
    for part in (
        "Ready", HOTKEY, "uid 143", "finney, netuid 72", "up for 3.0 days", "answered in time 50.0 %",
        "p50 latency 1.20 s", "p95 latency 1.20 s", "p99 latency 1.20 s", "max latency 1.20 s",
        "3 of 32", "812 MiB", "cgroup used 1.10 GiB", "cgroup limit 2.00 GiB", "6 123 456",
        "published 203.0.113.7:8091", "vit-base", "8a1f9c20be77d0", "ok", "yes 0.8454",
        "refused no answer in time is possible",
    ):  # fmt: skip
        assert part in shown


def test_what_keeps_the_chain_from_being_read_is_said_before_what_is_published() -> None:
    chain = overview().chain
    assert chain is not None
    shown = text(overview(chain=chain.model_copy(update={"fault": "no answer within 30 s"})))
    assert "no answer within 30 s; published 203.0.113.7:8091" in shown


def test_a_miner_that_is_not_ready_says_why() -> None:
    shown = text(overview(ready=False, obstacle="loading the model", model=None, queue=None, chain=None))
    for part in ("Not ready", "loading the model", "not loaded yet", "not read yet", "uid –", "None yet."):
        assert part in shown


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ style }} & $$"])
def test_what_comes_from_outside_is_only_text(hostile: str) -> None:
    page = overview(entry("bad_request", reason=hostile), obstacle=hostile, ready=False)
    found = outline(page)
    assert " ".join(found.text).count(hostile) == 2
    assert not any(name.startswith("on") for name, _ in found.attributes)


def test_the_policy_names_exactly_the_style_and_the_script_of_the_page() -> None:
    page = render(overview(entry()))
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert not re.search(r'\sstyle="', page)  # the policy would stop it


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.0031, 0.005), (1, 1), (1.01, 2), (9.4, 10), (21, 50)])
def test_the_charts_end_at_a_round_number(value: float, top: float) -> None:
    assert nice_top(value) == pytest.approx(top)


def test_the_limit_of_nine_seconds_is_drawn_where_it_matters() -> None:
    assert 'class="limit"' not in render(overview(entry(seconds=2.0)))
    assert 'class="limit"' in render(overview(entry(seconds=9.2)))
    assert latency_chart(overview(entry(seconds=9.2)).hour.minutes).limit == pytest.approx(HEIGHT * 0.1)


def test_a_single_request_among_thousands_is_seen() -> None:
    (column,) = outcomes_chart(overview(*[entry()] * 2000, entry("failed")).hour.minutes).columns
    assert [bar.height >= 1.5 for bar in column.bars if bar.kind == "g-missed"] == [True]


def test_a_daemon_that_nobody_looks_at_has_no_template_engine() -> None:
    code = (
        "import sys, miner.app; from miner.status.page import template; print('jinja2' in sys.modules, template().name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "page.html"]
