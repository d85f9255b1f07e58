"""Small charts of the last hour as SVG: one column for each minute, scaled by CSS."""

from collections.abc import Iterable, Sequence
from html import escape

from miner.formats import clock, duration
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


def latency(minutes: Sequence[MinuteView]) -> str:
    """Return p50 and p95 of each minute."""
    top = latency_top(minutes)
    marks = []
    for index, minute in enumerate(minutes):
        if minute.p50 is None or minute.p95 is None:
            continue
        low, high = (max(1.0, min(value / top, 1) * HEIGHT) for value in (minute.p50, minute.p95))
        text = f"{clock(minute.at)[:5]} p50 {duration(minute.p50)}, p95 {duration(minute.p95)}"
        marks.append(f"<g><title>{escape(text)}</title>{_bar(index, 0, high, 'p95')}{_bar(index, 0, low, 'p50')}</g>")
    if top >= LIMIT:
        y = HEIGHT - LIMIT / top * HEIGHT
        marks.append(f'<line class="limit" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return _drawing(marks, f"time to answer in each of the last 60 minutes, up to {duration(top)}")


def outcomes_top(minutes: Sequence[MinuteView]) -> int:
    """Return the requests a minute at the upper edge of the chart of outcomes."""
    return max(1, int(nice_top(max(sum(minute.outcomes.values()) for minute in minutes))))


def outcomes(minutes: Sequence[MinuteView]) -> str:
    """Return the requests of each minute, stacked by group."""
    top = outcomes_top(minutes)
    marks = []
    for index, minute in enumerate(minutes):
        counts = {group: count for group, count in grouped(minute.outcomes).items() if count}
        if not counts:
            continue
        text = f"{clock(minute.at)[:5]} " + ", ".join(f"{count} {group}" for group, count in counts.items())
        base, bars = 0.0, []
        for group, count in counts.items():
            tall = max(1.5, count / top * HEIGHT)  # what is rare shall be seen
            bars.append(_bar(index, base, tall, css_class(group)))
            base += tall
        marks.append(f"<g><title>{escape(text)}</title>{''.join(bars)}</g>")
    return _drawing(marks, f"requests in each of the last 60 minutes by outcome, up to {top}")


def _bar(index: int, base: float, tall: float, kind: str) -> str:
    x, y = index * COLUMN + GAP / 2, HEIGHT - base - tall
    return f'<rect class="{kind}" x="{x:g}" y="{y:.1f}" width="{COLUMN - GAP}" height="{tall:.1f}"/>'


def _drawing(marks: Iterable[str], label: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{"".join(marks)}</svg>'
    )
