"""The cards and charts of the page and of `roadwork-miner top`: as figures and plain text, made once for both.

A chart is of the last hour and has one column a minute, in units that the page scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from miner.formats import age, bars, clock, duration, number, share, size
from miner.settings.validators import VALIDATORS_WAIT
from miner.status.overview import ChainView, MemoryUse, MinuteView, Model, Overview, QueueView, ShadowView


@dataclass(frozen=True, slots=True)
class Meter:
    """A part of a whole, to be drawn; from `worry` on it is bad."""

    value: float
    most: float
    worry: float = 0.9

    @property
    def filled(self) -> float:
        """The share, at most 1."""
        return min(1.0, self.value / self.most)

    @property
    def is_bad(self) -> bool:
        """Whether it is time to worry."""
        return self.filled >= self.worry


@dataclass(frozen=True, slots=True)
class Row:
    """A name and a value, as plain text."""

    name: str
    value: str
    meter: Meter | None = None
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """Rows, and a text below them; without rows, the text in place of them."""

    title: str
    rows: Sequence[Row] = ()
    note: str = ""


def cards(overview: Overview) -> list[Card]:
    """Return the cards in their order; that of the shadow only where one is wanted."""
    found = [
        _queue(overview.queue) if overview.queue is not None else Card("Queue", note="not there yet"),
        _memory(overview.memory),
        _chain(overview.chain) if overview.chain is not None else Card("Chain", note="not read yet"),
        _model(overview.model) if overview.model is not None else Card("Model", note="not loaded yet"),
    ]
    return [*found, _shadow(overview.shadow)] if overview.shadow is not None else found


def _queue(queue: QueueView) -> Card:
    rows = [
        Row("running", f"{queue.running} of {queue.slots}", Meter(queue.running, queue.slots, worry=2.0)),
        Row("queue depth", f"{queue.waiting} of {queue.limit}", Meter(queue.waiting, queue.limit)),
        Row("time per image", duration(queue.pace_seconds)),
        Row("expected latency", duration(queue.estimate_seconds)),
    ]
    return Card("Queue", rows)


def _memory(memory: MemoryUse) -> Card:
    used, limit = memory.cgroup_usage, memory.cgroup_limit
    rows = [
        Row("resident (RSS)", size(memory.resident)),
        Row("proportional (PSS)", size(memory.proportional)),
        Row("peak RSS", size(memory.peak)),
        *([Row("cgroup used", size(used), Meter(used, limit))] if limit else []),
        Row("cgroup limit", size(limit) if limit else "none"),
        Row("memory available", size(memory.machine_available)),
        Row("CPU throttled", age(memory.throttled_seconds) if memory.throttled_seconds else "never"),
    ]
    return Card("Memory and CPU", rows)


def _chain(chain: ChainView) -> Card:
    rows = [
        Row("block", number(chain.block)),
        Row("chain snapshot age", age(chain.age_seconds)),
        Row("stake", number(chain.stake, 2)),
        Row("incentive", number(chain.incentive, 5)),
        Row("trust", number(chain.trust, 4)),
        Row("validators", f"{chain.validators} of {chain.neurons}"),
        *([Row("registered with NATIX", chain.natix.words)] if chain.natix is not None else []),
    ]
    todo = f"registration with NATIX: {chain.natix.command}" if chain.natix is not None and chain.natix.command else ""
    return Card("Chain", rows, "; ".join(filter(None, (chain.fault, chain.publication, todo))))


def _model(model: Model) -> Card:
    rows = [
        Row("name", model.name),
        Row("detector", model.detector),
        Row("revision", model.revision[:14], is_code=True),
        Row("runs on", f"{model.backend}, {model.precision}"),
        Row("threads", str(model.threads)),
        Row("hash", model.hash, is_code=True),
    ]
    return Card("Model", rows, f"roadwork = {model.roadwork}" if model.roadwork else "")


def _shadow(shadow: ShadowView) -> Card:
    rows = [
        Row("name", shadow.name or f"{shadow.config}: not loaded"),
        Row("agreement", share(shadow.agreement)),
        Row("compared", number(shadow.compared)),
        *([Row("failed", number(shadow.failed))] if shadow.failed else []),
        Row("CPU time per image", duration(shadow.seconds)),
        Row("shadow predictions", bars(shadow.tenths), is_code=True),
        Row("serving predictions", bars(shadow.tenths_served), is_code=True),
    ]
    return Card("Shadow", rows, "predictions as histograms, from 0 to 1")


WIDTH, HEIGHT = 600, 120
COLUMN, GAP = 10, 2  # sixty columns; units of the drawing

# Outcomes of the metrics in the groups that a person wants to tell apart, from the bottom of a column up.
OUTCOME_GROUPS: dict[str, tuple[str, ...]] = {
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


def latency_top(minutes: Sequence[MinuteView]) -> float:
    """Return the seconds at the upper edge of the latency chart."""
    return nice_top(max((minute.p95 or 0.0) for minute in minutes))


def latency_chart(minutes: Sequence[MinuteView]) -> Chart:
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
        limit=HEIGHT - VALIDATORS_WAIT / top * HEIGHT if top >= VALIDATORS_WAIT else None,
    )


def outcomes_top(minutes: Sequence[MinuteView]) -> int:
    """Return the requests a minute at the upper edge of the chart of outcomes."""
    return max(1, int(nice_top(max(sum(minute.outcomes.values()) for minute in minutes))))


def outcomes_chart(minutes: Sequence[MinuteView]) -> Chart:
    """Return the requests of each minute, stacked by group."""
    top = outcomes_top(minutes)
    columns, hour = [], dict.fromkeys(OUTCOME_GROUPS, 0)
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
