"""The charts of the last hour as figures: one column for each minute, in units that the page scales."""

from collections.abc import Sequence
from dataclasses import dataclass

from miner.formats import clock, duration, number
from miner.status.overview import MinuteView

WIDTH, HEIGHT = 600, 120
COLUMN, GAP = 10, 2  # sixty columns; units of the drawing
LIMIT = 9.0  # seconds; where validators stop waiting

# Outcomes of the metrics in the groups that a person wants to tell apart, from the bottom of a column up.
GROUPS: dict[str, tuple[str, ...]] = {
    "answered": ("ok",),
    "refused": ("refused",),
    "missed": ("expired", "failed"),
    "turned away": ("unproven", "unauthorised", "forbidden", "bad_request", "bad_image", "stalled", "cancelled"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; `kind` is the class that colours it."""

    kind: str
    x: float
    y: float
    height: float
    width: float = COLUMN - GAP


@dataclass(frozen=True, slots=True)
class ChartColumn:
    """One minute: its bars, and what they say in words."""

    text: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A colour's name, with a count where there is one."""

    kind: str
    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of an hour: minutes without requests have no column; `limit` is where the validators' limit is drawn."""

    title: str
    top: str
    label: str
    columns: Sequence[ChartColumn]
    legend: Sequence[LegendEntry]
    limit: float | None = None
    width: int = WIDTH
    height: int = HEIGHT


def css_class(group: str) -> str:
    """Return the class that colours a group."""
    return "g-" + group.replace(" ", "-")


def group_of(outcome: str) -> str:
    """Return the group of an outcome."""
    return next((group for group, outcomes in GROUPS.items() if outcome in outcomes), "turned away")


def grouped(outcomes: dict[str, int]) -> dict[str, int]:
    """Return the counts by group."""
    return {group: sum(outcomes.get(outcome, 0) for outcome in members) for group, members in GROUPS.items()}


def nice_top(value: float) -> float:
    """Return the next of 1, 2, 5, 10 … above a value."""
    if value <= 0:
        return 1.0
    step = 1e-9
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value * 0.999:
                return step * factor
        step *= 10


def latency_top(minutes: Sequence[MinuteView]) -> float:
    """Return the seconds at the upper edge of the latency chart."""
    return nice_top(max((minute.p95 or 0.0) for minute in minutes))


def latency(minutes: Sequence[MinuteView]) -> Chart:
    """Return p50 and p95 of each minute."""
    top = latency_top(minutes)
    columns = []
    for index, minute in enumerate(minutes):
        if minute.p50 is None or minute.p95 is None:
            continue
        low, high = (max(1.0, min(value / top, 1) * HEIGHT) for value in (minute.p50, minute.p95))
        text = f"{clock(minute.at)[:5]} p50 {duration(minute.p50)}, p95 {duration(minute.p95)}"
        columns.append(ChartColumn(text, (_bar("p95", index, 0, high), _bar("p50", index, 0, low))))
    return Chart(
        title="Latency",
        top=duration(top),
        label=f"latency in each of the last 60 minutes, up to {duration(top)}",
        columns=columns,
        legend=(LegendEntry("p50", "p50"), LegendEntry("p95", "p95")),
        limit=HEIGHT - LIMIT / top * HEIGHT if top >= LIMIT else None,
    )


def outcomes_top(minutes: Sequence[MinuteView]) -> int:
    """Return the requests a minute at the upper edge of the chart of outcomes."""
    return max(1, int(nice_top(max(sum(minute.outcomes.values()) for minute in minutes))))


def outcomes(minutes: Sequence[MinuteView]) -> Chart:
    """Return the requests of each minute, stacked by group."""
    top = outcomes_top(minutes)
    columns, hour = [], dict.fromkeys(GROUPS, 0)
    for index, minute in enumerate(minutes):
        counts = {group: count for group, count in grouped(minute.outcomes).items() if count}
        if not counts:
            continue
        text = f"{clock(minute.at)[:5]} " + ", ".join(f"{count} {group}" for group, count in counts.items())
        base, bars = 0.0, []
        for group, count in counts.items():
            hour[group] += count
            tall = max(1.5, count / top * HEIGHT)  # what is rare shall be seen
            bars.append(_bar(css_class(group), index, base, tall))
            base += tall
        columns.append(ChartColumn(text, bars))
    return Chart(
        title="Requests per minute",
        top=str(top),
        label=f"requests in each of the last 60 minutes by outcome, up to {top}",
        columns=columns,
        legend=[LegendEntry(css_class(group), group, number(count)) for group, count in hour.items()],
    )


def _bar(kind: str, index: int, base: float, tall: float) -> Bar:
    return Bar(kind, x=index * COLUMN + GAP / 2, y=HEIGHT - base - tall, height=tall)
