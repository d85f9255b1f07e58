"""One frame of `roadwork-miner top`, from the same overview as the page."""

from collections.abc import Iterable, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from miner.overview import Hour, Overview
from miner.page.charts import GROUPS, group_of, grouped, latency_top, outcomes_top
from miner.words import NONE, age, clock, duration, number, share, size

COLOURS = dict(zip(GROUPS, ("green", "yellow", "red", "bright_black"), strict=True))
CARD = 38  # columns: two cards side by side in a terminal of 80, four in one of 152
BLOCKS = " ▁▂▃▄▅▆▇█"


def screen(overview: Overview) -> RenderableType:
    """Return the whole frame."""
    cards = Columns(
        [_card(title, rows) for title, rows in [*_cards(overview), *_shadow(overview)]], width=CARD, padding=(0, 0)
    )
    keys = [_keys(overview)] if len(overview.keys) > 1 else []
    return Group(_head(overview), *keys, _hour(overview.hour), cards, _recent(overview))


def lost(overview: Overview, reason: str) -> RenderableType:
    """Return the last frame with the reason why there is no newer one."""
    return Group(Text(f"{reason} (last seen {clock(overview.now)} UTC)", style="bold red"), screen(overview))


def _head(overview: Overview) -> RenderableType:
    who = overview.identity
    word, colour = ("Ready", "green") if overview.ready else ("Not ready", "red")
    uid = overview.chain.uid if overview.chain is not None else None
    first = Text.assemble(
        (f"● {word}", f"bold {colour}"),
        f"   uid {NONE if uid is None else uid}   {who.network}, netuid {who.netuid}   port {who.port}   "
        f"up for {age(overview.now - overview.started)}   version {who.version}   {clock(overview.now)} UTC",
    )
    lines = [first, Text(who.hotkey, style="bright_black")]
    if overview.obstacle:
        lines.insert(1, Text(overview.obstacle, style="red"))
    return Padding(Group(*lines), (0, 1))


def _keys(overview: Overview) -> RenderableType:
    table = Table(box=None, expand=True, header_style="bright_black", padding=(0, 1))
    for name in ("hotkey", "uid", "port", ""):
        table.add_column(name, no_wrap=True, ratio=1 if name == "" else None)
    for key in overview.keys:
        table.add_row(
            Text(f"● {key.name}", "red" if key.obstacle else "green"),
            NONE if key.uid is None else str(key.uid),
            str(key.port),
            Text(key.obstacle or key.publication, "bright_black", overflow="ellipsis"),
        )
    return Panel(table, title="The hotkeys", title_align="left", border_style="bright_black")


def _hour(hour: Hour) -> RenderableType:
    counts = grouped(hour.outcomes)
    top, most = latency_top(hour.minutes), outcomes_top(hour.minutes)
    text = Text.assemble(
        ("answered in time ", "bright_black"), (share(hour.answered_share), "bold"),
        ("   half within ", "bright_black"), (duration(hour.p50), "bold"),
        ("   95 % ", "bright_black"), (duration(hour.p95), "bold"),
        ("   99 % ", "bright_black"), (duration(hour.p99), "bold"),
        ("   longest ", "bright_black"), (duration(hour.longest if hour.p50 is not None else None), "bold"),
    )  # fmt: skip
    charts = Table.grid(padding=(0, 1))
    charts.add_row(Text(f"p95 ≤ {duration(top)}"), Text(spark((m.p95 or 0.0 for m in hour.minutes), top), "blue"))
    requests = (float(sum(minute.outcomes.values())) for minute in hour.minutes)
    charts.add_row(Text(f"≤ {most} a min"), Text(spark(requests, most), "green"))
    legend = Text("   ").join(Text(f"{group} {number(count)}", COLOURS[group]) for group, count in counts.items())
    return Panel(Group(text, charts, legend), title="The last hour", title_align="left", border_style="bright_black")


def spark(values: Iterable[float], top: float) -> str:
    """Return a line of blocks; what is not zero is seen."""
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[min(steps, max(1, round(value / top * steps)))] if value else BLOCKS[0] for value in values)


def bars(counts: Sequence[int]) -> str:
    """Return counts by tenths as blocks between two lines, the largest as high as can be."""
    return f"│{spark(map(float, counts), max(counts))}│" if any(counts) else NONE


def _cards(overview: Overview) -> list[tuple[str, list[tuple[str, str]]]]:
    queue, memory, chain, model = overview.queue, overview.memory, overview.chain, overview.model
    limit = size(memory.cgroup_limit) if memory.cgroup_limit else "no limit"
    held = age(memory.throttled_seconds) if memory.throttled_seconds else "never"
    return [
        (
            "Queue",
            [
                ("running", f"{queue.running} of {queue.slots}"),
                ("waiting", f"{queue.waiting} of {queue.limit}"),
                ("per picture", duration(queue.pace_seconds)),
                ("next answer in", duration(queue.estimate_seconds)),
            ]
            if queue is not None
            else [],
        ),
        (
            "Memory and CPU",
            [
                ("resident", size(memory.resident)),
                ("peak", size(memory.peak)),
                ("cgroup", f"{size(memory.cgroup_usage)}, {limit}"),
                ("machine free", size(memory.machine_available)),
                ("CPU held back", held),
            ],
        ),
        (
            "Chain",
            [
                ("block", f"{number(chain.block)}, {age(chain.age_seconds)}"),
                *([("", chain.fault)] if chain.fault else []),
                ("stake", number(chain.stake, 2)),
                ("incentive", number(chain.incentive, 5)),
                ("validators", f"{chain.validators} of {chain.neurons}"),
                ("", chain.publication),
            ]
            if chain is not None
            else [],
        ),
        (
            "Model",
            [
                ("name", model.name),
                ("detector", model.detector),
                ("revision", model.revision[:14]),
                ("runs on", f"{model.backend}, {model.precision}"),
                ("threads", str(model.threads)),
            ]
            if model is not None
            else [],
        ),
    ]


def _shadow(overview: Overview) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the second model's card, where one is wanted."""
    shadow = overview.shadow
    if shadow is None:
        return []
    rows = [
        ("name", shadow.name or f"{shadow.config}: not loaded"),
        ("same side", share(shadow.agreement)),
        ("of", number(shadow.compared) + (f", {shadow.failed} failed" if shadow.failed else "")),
        ("CPU per picture", duration(shadow.seconds)),
        ("predictions, 0 to 1", bars(shadow.tenths)),
        ("of the model served", bars(shadow.tenths_served)),
    ]
    return [("Shadow", rows)]


def _card(title: str, rows: list[tuple[str, str]]) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(justify="right")
    for name, value in rows or [("not there yet", "")]:
        table.add_row(Text(name), Text(value))
    return Panel(table, title=title, title_align="left", border_style="bright_black")


def _recent(overview: Overview) -> RenderableType:
    table = Table(box=None, expand=True, header_style="bright_black", padding=(0, 1))
    for name in ("UTC", "uid", "outcome", ""):
        table.add_column(name, no_wrap=True, ratio=1 if name == "" else None)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("roadwork", justify="right", no_wrap=True)
    for request in overview.recent:
        table.add_row(
            clock(request.at),
            NONE if request.uid is None else str(request.uid),
            Text(request.outcome.replace("_", " "), COLOURS[group_of(request.outcome)]),
            Text(request.reason, "bright_black", overflow="ellipsis"),
            duration(request.seconds),
            NONE if request.prediction is None else f"{request.prediction:.4f}",
        )
    return Panel(table, title="The last requests", title_align="left", border_style="bright_black")
