"""One frame of `roadwork-miner top`, from the same overview as the page."""

from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from miner.cascade import SERVED
from miner.formats import NO_VALUE, age, clock, duration, fraction, number, share, spark
from miner.status.cards import Card, cards, cascade_note, headline, natix_words, request_note
from miner.status.charts import OUTCOME_GROUPS, group_of, grouped, latency_top, outcomes_top
from miner.status.earnings import digits, earnings_of
from miner.status.overview import CascadeView, Overview
from miner.status.spans import Hour

COLOURS = dict(zip(OUTCOME_GROUPS, ("green", "yellow", "red", "bright_black"), strict=True))
CARD_COLUMNS = 38  # columns: two cards side by side in a terminal of 80, four in one of 152


@dataclass(frozen=True, slots=True)
class Frame:
    """What a terminal shows of a moment, in seconds since 1970: the head stays where it is, the content scrolls."""

    head: RenderableType
    content: RenderableType
    now: float


def frame_of(overview: Overview) -> Frame:
    """Return the frame of a miner."""
    return Frame(head(overview), content(overview), overview.now)


def screen(overview: Overview) -> RenderableType:
    """Return the whole frame."""
    return Group(head(overview), content(overview))


def content(overview: Overview) -> RenderableType:
    """Return what stands below the head: the hour, the cards and the last requests."""
    beside = Columns([_card(card) for card in cards(overview)], width=CARD_COLUMNS, padding=(0, 0))
    keys = [_keys(overview)] if len(overview.keys) > 1 else []
    stages = [_stages(overview.cascade)] if overview.cascade is not None else []
    first = [] if overview.obstacle is not None else [Padding(Text(str(headline(overview)), style="bold"), (0, 1))]
    return Group(*first, *keys, _hour(overview.hour), *stages, beside, _recent(overview))


def head(overview: Overview) -> RenderableType:
    """Return who this miner is, and whether it answers."""
    who = overview.identity
    word, colour = ("Ready", "green") if overview.ready else ("Not ready", "red")
    uid = overview.chain.uid if overview.chain is not None else None
    first = Text.assemble(
        (f"● {word}", f"bold {colour}"),
        f"   uid {NO_VALUE if uid is None else uid}   {who.network}, netuid {who.netuid}   port {who.port}   "
        f"up for {age(overview.now - overview.started)}",
    )
    # A hotkey has 48 characters: so the line is no longer than a terminal of 80.
    below = f"  {clock(overview.now)} UTC  version {who.version}"
    lines = [first, Text.assemble((who.hotkey or NO_VALUE, "bright_black"), below)]
    if overview.obstacle:
        lines.insert(1, Text(overview.obstacle, style="red"))
    return Padding(Group(*lines), (0, 1))


def _keys(overview: Overview) -> RenderableType:
    table = Table(box=None, expand=True, header_style="bright_black", padding=(0, 1))
    for name in ("hotkey", "uid", "port", "TAO a day", "rank", "NATIX", ""):
        table.add_column(name, no_wrap=bool(name), ratio=None if name else 1, overflow="fold")
    for key in overview.keys:
        earned = earnings_of(overview.earnings, key.hotkey)
        table.add_row(
            Text(f"● {key.name}", "red" if key.obstacle else "green"),
            NO_VALUE if key.uid is None else str(key.uid),
            str(key.port),
            NO_VALUE if earned.tao_per_day is None else digits(earned.tao_per_day),
            NO_VALUE if earned.rank is None else str(earned.rank),
            natix_words(key.natix),
            Text(key.obstacle or key.publication, "bright_black"),
        )
    return Panel(table, title="Hotkeys", title_align="left", border_style="bright_black")


def _hour(hour: Hour) -> RenderableType:
    counts = grouped(hour.outcomes)
    top, most = latency_top(hour.minutes), outcomes_top(hour.minutes)
    text = Text.assemble(("in time ", "bright_black"), (share(hour.answered_share), "bold"))
    for name, seconds in hour.percentiles.items():
        text.append_text(Text.assemble((f"   {name} ", "bright_black"), (duration(seconds), "bold")))
    charts = Table.grid(padding=(0, 1))
    charts.add_row(Text(f"p95 ≤ {duration(top)}"), Text(spark((m.p95 or 0.0 for m in hour.minutes), top), "blue"))
    requests = (float(sum(minute.outcomes.values())) for minute in hour.minutes)
    charts.add_row(Text(f"≤ {most} per min"), Text(spark(requests, most), "green"))
    legend = Text("   ").join(Text(f"{group} {number(count)}", COLOURS[group]) for group, count in counts.items())
    return Panel(Group(text, charts, legend), title="Last hour", title_align="left", border_style="bright_black")


def _stages(cascade: CascadeView) -> RenderableType:
    table = Table(box=None, expand=True, header_style="bright_black", padding=(0, 1))
    table.add_column("stage", ratio=1, overflow="fold")
    for name in ("answers", "", "takes p50", "p95", "left", "reward", "expected"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in cascade.stages:
        table.add_row(
            Text.assemble((f"{one.number} ", "bright_black"), one.branches),
            number(one.answers),
            share(one.share),
            duration(one.p50),
            duration(one.p95),
            duration(one.left),
            fraction(one.reward),
            fraction(one.earned),
        )
    answers = number(sum(one.answers for one in cascade.stages))
    last = (SERVED, answers, "", "", "", "", fraction(cascade.reward), fraction(cascade.earned))
    table.add_row(*last, style="bold")
    note = Padding(Text(cascade_note(cascade), "bright_black"), (0, 1))
    return Panel(
        Group(table, note), title="Stages of the cascade, 24 hours", title_align="left", border_style="bright_black"
    )


def _card(card: Card) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(justify="right")
    for row in card.rows:
        table.add_row(Text(row.name), Text(row.value))
    content = Group(table, Text(card.note, justify="right")) if card.note else table
    return Panel(content, title=card.title, title_align="left", border_style="bright_black")


def _recent(overview: Overview) -> RenderableType:
    table = Table(box=None, expand=True, header_style="bright_black", padding=(0, 1))
    for name in ("UTC", "uid", "outcome", ""):
        table.add_column(name, no_wrap=bool(name), ratio=None if name else 1, overflow="fold")
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("roadwork", justify="right", no_wrap=True)
    for request in overview.recent:
        table.add_row(
            clock(request.at),
            NO_VALUE if request.uid is None else str(request.uid),
            Text(request.outcome.replace("_", " "), COLOURS[group_of(request.outcome)]),
            Text(request_note(request), "bright_black"),
            duration(request.seconds),
            NO_VALUE if request.prediction is None else f"{request.prediction:.4f}",
        )
    return Panel(table, title="Last requests", title_align="left", border_style="bright_black")
