"""The charts of the page, as figures: how long answers took, and what became of requests, by the period.

Heights are pixels, and widths are in percent. A period without requests has no column: it is a gap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from miner.formats import clock, day_clock, duration, number
from miner.settings.validators import VALIDATORS_WAIT
from miner.status.overview import Overview
from miner.status.spans import PeriodView

WIDTH, HEIGHT = 100, 150
LEAST = 2.0  # pixels; what is rare shall be seen
GAP = 0.2  # of a column
DECADES = (0.001, 0.01, 0.1, 1.0)  # seconds at which the axis of durations may begin, and has its ticks
LONGEST = 20.0  # seconds at its upper end: nobody waits for more

# Outcomes of the metrics in the groups that a person wants to tell apart, from the bottom of a column up.
OUTCOME_GROUPS: dict[str, tuple[str, ...]] = {
    "answered": ("ok",),
    "refused": ("refused",),
    "missed": ("expired", "failed"),
    "turned away": ("unproven", "unauthorised", "forbidden", "bad_request", "bad_image", "stalled", "cancelled"),
}
SPAN_TITLES = {"hour": "1 hour", "day": "24 hours", "week": "7 days"}
PER = {"hour": "per minute", "day": "per 15 min", "week": "per 2 h"}
TICKS = 3  # parts of the time axis


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; `kind` is the class that colours it."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class ChartColumn:
    """One period: where it stands, its bars, and what they say in words."""

    at: int  # seconds since 1970
    x: float
    width: float
    text: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A colour's name, with a count where there is one."""

    kind: str
    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis: pixels from the top, or the share of the width in percent."""

    at: float
    text: str
    is_limit: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of an hour, a day or a week."""

    title: str
    label: str
    columns: Sequence[ChartColumn]
    legend: Sequence[LegendEntry]
    heights: Sequence[Tick]
    times: Sequence[Tick]
    height: int = HEIGHT


def css_class(group: str) -> str:
    """Return the class that colours a group."""
    return "g-" + group.replace(" ", "-")


def group_of(outcome: str) -> str:
    """Return the group of an outcome."""
    return next((group for group, outcomes in OUTCOME_GROUPS.items() if outcome in outcomes), "turned away")


def grouped(outcomes: dict[str, int]) -> dict[str, int]:
    """Return the counts by group."""
    return {group: sum(outcomes.get(outcome, 0) for outcome in members) for group, members in OUTCOME_GROUPS.items()}


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


def latency_top(periods: Sequence[PeriodView]) -> float:
    """Return the seconds at the upper edge of the terminal's line of durations."""
    return nice_top(max((period.p95 or 0.0) for period in periods))


def outcomes_top(periods: Sequence[PeriodView]) -> int:
    """Return the requests at the upper edge of the chart of outcomes."""
    return max(1, int(nice_top(max(sum(period.outcomes.values()) for period in periods))))


def periods_of(overview: Overview, span: str) -> Sequence[PeriodView]:
    """Return the periods of an hour, a day or a week."""
    return overview.hour.minutes if span == "hour" else (overview.day if span == "day" else overview.week).periods


def latency_chart(periods: Sequence[PeriodView], span: str = "hour") -> Chart:
    """Return where the answers' times lie in each period, on a logarithmic axis that always reaches the 9 s.

    On an axis from 0 that does, a miner of 100 ms would be a line of one pixel.
    """
    fastest = min((period.p50 for period in periods if period.p50), default=0.1)
    low = max((decade for decade in DECADES[:-1] if decade <= fastest), default=DECADES[0])

    def height(seconds: float) -> float:
        return max(LEAST, min(1.0, math.log(max(seconds, low) / low) / math.log(LONGEST / low)) * HEIGHT)

    columns = []
    for index, period in enumerate(periods):
        if period.p50 is None or period.p95 is None:
            continue
        bottom, middle, top = height(period.p50), height(period.p95), height(period.longest)
        text = (
            f"{_moment(period, span)}  p50 {duration(period.p50)} · p95 {duration(period.p95)} · "
            f"max {duration(period.longest)}"
        )
        bars = (
            _bar("longest", index, len(periods), middle, max(top - middle, 0.0), thin=True),
            _bar("p95", index, len(periods), bottom - LEAST, max(middle - bottom, 0.0) + LEAST),
            _bar("p50", index, len(periods), bottom - LEAST, LEAST),
        )
        columns.append(_column(period, index, len(periods), text, bars))
    ticks = [Tick(HEIGHT - height(decade), duration_tick(decade)) for decade in DECADES if decade > low]
    return Chart(
        title="Latency",
        label=f"latency {PER[span]} of the last {SPAN_TITLES[span]}, beside the {VALIDATORS_WAIT:g} s of validators",
        columns=columns,
        legend=[
            LegendEntry("p50", "p50"), LegendEntry("p95", "p95"), LegendEntry("longest", "max"),
            LegendEntry("limit", f"validators wait {VALIDATORS_WAIT:g} s"),
        ],
        heights=[
            Tick(float(HEIGHT), duration_tick(low)), *ticks,
            Tick(HEIGHT - height(VALIDATORS_WAIT), f"{VALIDATORS_WAIT:g} s", is_limit=True),
        ],
        times=_times(periods, span),
    )  # fmt: skip


def outcomes_chart(periods: Sequence[PeriodView], span: str = "hour") -> Chart:
    """Return the requests of each period, stacked by group."""
    top = outcomes_top(periods)
    columns, whole = [], dict.fromkeys(OUTCOME_GROUPS, 0)
    for index, period in enumerate(periods):
        counts = {group: count for group, count in grouped(period.outcomes).items() if count}
        if not counts:
            continue
        text = f"{_moment(period, span)}  " + " · ".join(f"{number(count)} {group}" for group, count in counts.items())
        base, bars = 0.0, []
        for group, count in counts.items():
            whole[group] += count
            tall = max(LEAST, count / top * HEIGHT)
            bars.append(_bar(css_class(group), index, len(periods), base, tall))
            base += tall
        columns.append(_column(period, index, len(periods), text, bars))
    half = [top // 2] if top % 2 == 0 else []
    return Chart(
        title=f"Requests {PER[span]}",
        label=f"requests {PER[span]} of the last {SPAN_TITLES[span]} by outcome, up to {number(top)}",
        columns=columns,
        legend=[LegendEntry(css_class(group), group, number(count)) for group, count in whole.items()],
        heights=[Tick(HEIGHT - value / top * HEIGHT, number(value)) for value in (0, *half, top)],
        times=_times(periods, span),
    )


def duration_tick(seconds: float) -> str:
    """Return `10 ms` or `1 s`."""
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"


def _times(periods: Sequence[PeriodView], span: str) -> list[Tick]:
    """Return the labels of the time axis: clock times, days for a week, and now at its end."""
    ticks = []
    for part in range(TICKS):
        period = periods[part * len(periods) // TICKS]
        ticks.append(Tick(100 * part / TICKS, _moment(period, span, short=True)))
    return [*ticks, Tick(100.0, "now")]


def _moment(period: PeriodView, span: str, *, short: bool = False) -> str:
    return clock(period.at)[:5] if span != "week" else day_clock(period.at)[: 6 if short else None]


def _column(period: PeriodView, index: int, count: int, text: str, bars: Sequence[Bar]) -> ChartColumn:
    return ChartColumn(period.at, index * WIDTH / count, WIDTH / count, text, bars)


def _bar(kind: str, index: int, count: int, base: float, tall: float, *, thin: bool = False) -> Bar:
    wide = WIDTH / count
    inside = wide * (1 - GAP) * (0.25 if thin else 1)
    return Bar(kind, x=(index + 0.5) * wide - inside / 2, y=HEIGHT - base - tall, width=inside, height=tall)
