"""The page for people: what it says, and what it lets through."""

import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from miner.feedback.standing import PhotoCounts, StandingView
from miner.formats import fraction
from miner.status.archive import CheckupView, FindingView
from miner.status.cards import Row, cards, headline
from miner.status.charts import HEIGHT, latency_chart, nice_top, outcomes_chart, periods_of
from miner.status.history import History
from miner.status.overview import KeyView, NatixView, Overview
from miner.status.page import CONTENT_SECURITY_POLICY, render
from miner.status.spans import Hour, LongSpan
from tests.overviews import CALLER, HOTKEY, NOW, TRAFFIC, entry, overview

DUE = NatixView(standing="due", words="due again: uid 7 <b>", command="roadwork-miner register", since=1.0, asked=1.0)
VOID = {"meta", "link", "br", "img", "input", "wbr"}


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
    return re.findall(r"<h2>(.*?)(?: <small>.*)?\s*</h2>", render(shown))


def test_titles_are_the_operators_words_whole() -> None:
    cards = ["Earnings", "Queue", "Memory and CPU", "Chain", "Model"]
    expected = ["Requests", "Who asks", "Check-up", *cards, "Last requests"]
    assert titles(overview()) == expected
    early = overview().model_copy(update={"queue": None, "chain": None, "model": None})
    assert titles(early) == expected


def test_a_miner_that_is_well() -> None:
    shown = text(overview(entry(), entry("refused", seconds=0.001, reason="no answer in time is possible")))
    for part in (
        "Ready", HOTKEY, "uid 143", "finney, netuid 72", "up for 3.0 days", "1 hour 50.0 % in time · 2 requests",
        "p50 latency 1.20 s", "p95 latency 1.20 s", "p99 latency 1.20 s", "max latency 1.20 s",
        "3 of 32", "812 MiB", "cgroup used 1.10 GiB", "cgroup limit 2.00 GiB", "6 123 456",
        "published 203.0.113.7:8091", "vit-base", "8a1f9c20be77d0", "yes 0.8454 ok",
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


@pytest.mark.parametrize("span", ["hour", "day", "week"])
@pytest.mark.parametrize("seconds", [0.0004, 0.2, 8.9, 30.0])
def test_the_limit_of_nine_seconds_is_always_drawn_and_nothing_leaves_the_chart(span: str, seconds: float) -> None:
    shown = overview(entry(seconds=seconds))
    page = render(shown, span)
    assert page.count('class="limit"') == 1
    assert page.count('aria-current="true"') == 1
    for chart in (latency_chart(periods_of(shown, span), span), outcomes_chart(periods_of(shown, span), span)):
        (column,) = chart.columns
        for bar in column.bars:
            assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT
            assert 0 <= bar.x <= bar.x + bar.width <= 100
        assert [round(tick.at) for tick in chart.times] == [0, 33, 67, 100]
        assert len({round(tick.at) for tick in chart.heights}) == len(chart.heights)


def test_what_is_above_the_line_of_nine_seconds_was_too_late() -> None:
    for seconds, is_above in ((8.9, False), (9.4, True)):
        chart = latency_chart(overview(entry(seconds=seconds)).hour.minutes)
        (limit,) = [tick.at for tick in chart.heights if tick.is_limit]
        (p95,) = [bar.y for bar in chart.columns[0].bars if bar.kind == "p95"]
        assert (p95 < limit) == is_above


def test_the_span_that_is_asked_for_is_shown_and_another_is_the_hour() -> None:
    shown = overview(entry())
    assert "in 24 hours" in render(shown, "day")
    assert render(shown, "<script>") == render(shown)


def test_the_headline_says_who_asked_and_what_it_is_worth() -> None:
    asked = [entry(), entry(uid=18), entry(uid=19), entry("refused", seconds=0.001)]
    well = overview(*asked)
    assert well.model is not None
    measured = well.model.model_copy(update={"reward": 0.8, "reward_photos": 470})
    parts = headline(well.model_copy(update={"model": measured})).parts
    assert [part.split()[-1] for part in parts] == ["validators", "time", fraction(0.8 * 0.75)]
    assert parts[0].split()[-2] == "3"
    assert "5 s" in parts[0]
    unmeasured = headline(well).parts
    assert not any(character.isdigit() for character in unmeasured[-1])
    assert unmeasured[:-1] == parts[:-1]


def test_the_headline_of_one_that_nobody_asked_and_of_one_that_is_not_ready() -> None:
    quiet = headline(overview(entry("forbidden", uid=None)))
    assert not quiet.is_bad
    assert "3.0 days" in quiet.parts[0]
    stopped = headline(overview(entry(), ready=False, obstacle="no model"))
    assert (stopped.parts, stopped.is_bad) == (["no model"], True)


def test_validators_of_yesterday_are_told_where_nobody_came_in_this_hour() -> None:
    at = NOW - 20 * 3600
    history = History(lambda: at)
    history.request_ended(replace(entry(), at=at))
    at = NOW
    shown = overview(hour=Hour.of(history), day=LongSpan.of(history, "day"), week=LongSpan.of(history, "week"))
    assert "20.0 h" in headline(shown).parts[0]
    assert headline(shown).parts[0].endswith("24 hours")


def test_several_hotkeys_are_shown_with_their_own_counts_and_one_is_not() -> None:
    keys = [
        KeyView(
            name=name, hotkey=hotkey, port=port, obstacle=None, uid=port, incentive=None, publication="", natix=natix
        )
        for name, hotkey, port, natix in (("first", HOTKEY, 8091, None), ("second", CALLER, 8092, DUE))
    ]
    asked = [entry(), entry("refused"), replace(entry(uid=3), hotkey=CALLER, caller=HOTKEY)]
    whole = text(overview(*asked, keys=keys))
    assert "first 8091 8091 2 50.0 % 1.20 s 5 s 0.1468 41 – served" in whole
    assert "second 8092 8092 1 100 % 1.20 s 5 s – – due again served" in whole
    assert re.search(r"\b3 second 1.20 s yes 0.8454 ok\b", whole)
    assert "second" not in text(overview(*asked, keys=keys[:1]))


def test_doctors_findings_are_shown_with_their_age_or_how_to_get_some() -> None:
    assert "roadwork-miner doctor" in text(overview())
    found = [
        FindingView(name="cpu", level="ok", words="four cores"),
        FindingView(name="port", level="problem", words="MINER_AXON_PORT=8091: taken", todo="free <it>"),
    ]
    view = CheckupView(at=NOW - 7200, key="default", verdict="not ready to earn: port", findings=found)
    whole = text(overview(checkup=view))
    for part in ("2.0 h ago", view.verdict, "problem port MINER_AXON_PORT=8091: taken → free <it>", "ok cpu"):
        assert part in whole


def test_the_page_leads_to_what_machines_read() -> None:
    links = {value for name, value in outline(overview()).attributes if name == "href"}
    assert {"/status", "/metrics", "?last=hour", "?last=day", "?last=week"} <= links


def test_a_single_request_among_thousands_is_seen() -> None:
    (column,) = outcomes_chart(overview(*[entry()] * 2000, entry("failed")).hour.minutes).columns
    assert [bar.height >= 1.5 for bar in column.bars if bar.kind == "g-missed"] == [True]


def test_a_daemon_that_nobody_looks_at_has_no_template_engine() -> None:
    code = (
        "import sys, miner.app; from miner.status.page import template; print('jinja2' in sys.modules, template().name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "page.html"]


def test_the_models_card_has_its_threshold_where_it_is_another_than_one_half() -> None:
    model = overview().model
    assert model is not None
    for threshold, shown in ((0.5, []), (0.35, ["0.35"]), (0.999, ["0.999"])):
        whole = overview(model=model.model_copy(update={"threshold": threshold}))
        card = next(card for card in cards(whole) if card.title == "Model")
        assert [row.value for row in card.rows if row.name == "threshold"] == shown


def test_the_chains_card_says_whether_natix_knows_the_hotkey() -> None:
    """And with what command it will."""
    chain = overview().chain
    assert chain is not None
    assert "NATIX" not in text(overview()), "standalone, and miners before"
    whole = overview(chain=chain.model_copy(update={"natix": DUE}))
    (card,) = [card for card in cards(whole) if card.title == "Chain"]
    assert [row.value for row in card.rows if "NATIX" in row.name] == ["due again"]
    assert DUE.words in card.note
    assert DUE.command in card.note
    assert DUE.words in text(whole)


def test_every_colour_of_a_chart_is_in_its_legend() -> None:
    shown = overview(entry(), entry("refused"), entry("failed"), entry("forbidden")).hour.minutes
    for chart in (latency_chart(shown), outcomes_chart(shown)):
        drawn = {bar.kind for column in chart.columns for bar in column.bars}
        assert drawn <= {entry.kind for entry in chart.legend}


def rows_of(traffic: StandingView) -> tuple[dict[str, Row], str]:
    (card,) = [card for card in cards(overview(traffic=traffic)) if card.title == "Real traffic"]
    return {row.name: row for row in card.rows}, card.note


def test_how_right_it_is_on_real_traffic_has_a_card_where_anything_was_recorded() -> None:
    assert "Real traffic" not in titles(overview())
    shown = text(overview(traffic=TRAFFIC))
    for part in ("Real traffic", "accuracy 92.9 %", "85.3 % to 96.7 %", "promised 95.2 %", "random tenth 88",
                 "1 234 photos", "improved (+.03) 3.2 days ago"):  # fmt: skip
        assert part in shown
    rows, _ = rows_of(TRAFFIC)
    assert rows["accuracy"].meter is not None
    assert not rows["accuracy"].meter.is_bad


def test_an_accuracy_below_the_promise_is_red_and_one_of_another_model_is_said_to_be() -> None:
    model = TRAFFIC.model
    assert model is not None
    below = TRAFFIC.model_copy(update={"model": model.model_copy(update={"promised": 0.99, "promised_photos": 4000})})
    rows, note = rows_of(below)
    assert rows["accuracy"].meter is not None
    assert rows["accuracy"].meter.is_bad
    assert "chance" in note
    assert model.name in rows_of(TRAFFIC.model_copy(update={"is_current": False}))[1]


def test_without_figures_the_card_says_what_is_to_be_done() -> None:
    model = TRAFFIC.model
    assert model is not None
    few = model.model_copy(update={"photos": 7, "right": 6, "accuracy": None, "reward": None, "promised": None})
    rows, note = rows_of(TRAFFIC.model_copy(update={"model": few}))
    assert not rows.keys() & {"accuracy", "95 % interval", "expected reward", "promised"}
    assert "6 of 7" in note
    unlabelled = StandingView(at=0.0, photos=PhotoCounts(waiting=1))
    rows, note = rows_of(unlabelled)
    assert rows["waiting"].value == "1 photo"
    assert "roadwork-miner label" in note
    assert "roadwork-miner standing" in rows_of(TRAFFIC.model_copy(update={"model": None}))[1]


def test_the_headline_expects_what_real_traffic_says_of_the_model_that_serves() -> None:
    measured = overview().model
    assert measured is not None
    shown = overview(traffic=TRAFFIC, model=measured.model_copy(update={"reward": 0.96, "reward_photos": 80}))
    assert ".71" in str(headline(shown))
    assert "84 labels" in headline(shown).note
    stale = shown.model_copy(update={"traffic": TRAFFIC.model_copy(update={"is_current": False})})
    assert ".96" in str(headline(stale))
