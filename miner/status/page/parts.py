"""The parts of the page, from the state at the top to the last requests; every text from outside is escaped."""

from html import escape

from miner.formats import NONE, age, clock, duration, moment, number, share
from miner.status.cards import Card, Meter, Row, cards
from miner.status.overview import Hour, Overview, RequestView
from miner.status.page import charts


def body(overview: Overview) -> str:
    """Return the content of `<main>`."""
    beside = "".join(_card(card) for card in cards(overview))
    parts = (_head(overview), _keys(overview), _hour(overview.hour), f'<div class="cards">{beside}</div>')
    return "".join(parts) + _recent(overview)


def _head(overview: Overview) -> str:
    who = overview.identity
    word, kind = ("Ready", "good") if overview.ready else ("Not ready", "bad")
    reason = f'<p class="reason">{escape(overview.obstacle)}</p>' if overview.obstacle else ""
    uid = overview.chain.uid if overview.chain is not None else None
    facts = (
        ("uid", NONE if uid is None else str(uid)),
        ("network", f"{who.network}, netuid {who.netuid}"),
        ("port", str(who.port)),
        ("up for", age(overview.now - overview.started)),
        ("version", who.version),
    )
    return (
        f'<header><h1><span class="dot {kind}"></span>{word}</h1>{reason}'
        f'<p class="hotkey">{escape(who.hotkey or NONE)}</p>'
        f'<ul class="facts">{"".join(f"<li>{name} <b>{escape(value)}</b></li>" for name, value in facts)}</ul>'
        f'<p class="lost-note">No contact with the miner since '
        f'<time datetime="{moment(overview.now)}">{clock(overview.now)} UTC</time>.</p></header>'
    )


def _keys(overview: Overview) -> str:
    """Return a table of our hotkeys, where there are several."""
    if len(overview.keys) < 2:
        return ""
    rows = "".join(
        f"<tr><td>{escape(key.name)}</td><td>{NONE if key.uid is None else key.uid}</td><td>{key.port}</td>"
        f'<td class="outcome"><span class="pill {"g-missed" if key.obstacle else "g-answered"}">'
        f"{'not served' if key.obstacle else 'served'}</span>"
        f'<span class="why">{escape(key.obstacle or key.publication)}</span></td></tr>'
        for key in overview.keys
    )
    heads = "".join(f"<th>{head}</th>" for head in ("name", "uid", "port", "state"))
    return (
        f'<section class="card"><h2>The hotkeys</h2><table class="keys"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _hour(hour: Hour) -> str:
    counts = charts.grouped(hour.outcomes)
    tiles = (
        ("answered in time", share(hour.answered_share)),
        ("half within", duration(hour.p50)),
        ("95 % within", duration(hour.p95)),
        ("99 % within", duration(hour.p99)),
        ("longest", duration(hour.longest if hour.p50 is not None else None)),
    )
    numbers = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    legend = "".join(
        f'<li><span class="key {charts.css_class(group)}"></span>{group} <b>{number(count)}</b></li>'
        for group, count in counts.items()
    )
    keys = '<li><span class="key p50"></span>half of a minute\'s answers</li><li><span class="key p95"></span>95 %</li>'
    return (
        f'<section class="card"><h2>The last hour</h2><dl class="tiles">{numbers}</dl><div class="charts">'
        + _figure("Time to answer", charts.latency(hour.minutes), duration(charts.latency_top(hour.minutes)), keys)
        + _figure("Requests a minute", charts.outcomes(hour.minutes), str(charts.outcomes_top(hour.minutes)), legend)
        + "</div></section>"
    )


def _figure(title: str, chart: str, top: str, legend: str) -> str:
    return (
        f'<figure><figcaption>{title}<span class="top">{top}</span></figcaption>{chart}'
        f'<div class="axis"><span>an hour ago</span><span>now</span></div><ul class="legend">{legend}</ul></figure>'
    )


def _card(card: Card) -> str:
    rows = "".join(_row(row) for row in card.rows)
    footer = f'<p class="note">{escape(card.note)}</p>' if card.note else ""
    return f'<section class="card"><h2>{card.title}</h2><dl class="rows">{rows}</dl>{footer}</section>'


def _row(row: Row) -> str:
    value = f"<code>{escape(row.value)}</code>" if row.is_code else escape(row.value)
    return f"<div><dt>{row.name}</dt><dd>{value}</dd>{_meter(row.meter) if row.meter is not None else ''}</div>"


def _meter(meter: Meter) -> str:
    """Return a bar, red from a share on; its width is an attribute, since the page's policy allows no inline style."""
    filled = min(1.0, meter.value / meter.most)
    kind = "bad" if filled >= meter.worry else "good"
    return (
        f'<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="4"/><rect class="{kind}" width="{filled * 100:.1f}" height="4"/></svg>'
    )


def _recent(overview: Overview) -> str:
    if not overview.recent:
        return '<section class="card"><h2>The last requests</h2><p class="note">None yet.</p></section>'
    rows = "".join(_request(request) for request in overview.recent)
    return (
        '<section class="card"><h2>The last requests</h2><table><thead><tr><th>UTC</th><th>uid</th>'
        '<th>outcome</th><th class="n">took</th><th class="n">roadwork</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _request(request: RequestView) -> str:
    group = charts.css_class(charts.group_of(request.outcome))
    outcome = request.outcome.replace("_", " ")
    reason = f'<span class="why">{escape(request.reason)}</span>' if request.reason else ""
    prediction = NONE
    if request.prediction is not None:
        side = "yes" if request.prediction > 0.5 else "no"
        prediction = f'<span class="side {side}">{side}</span>{request.prediction:.4f}'
    return (
        f'<tr><td><time datetime="{moment(request.at)}">{clock(request.at)}</time></td>'
        f"<td>{NONE if request.uid is None else request.uid}</td>"
        f'<td class="outcome"><span class="pill {group}">{escape(outcome)}</span>{reason}</td>'
        f'<td class="n">{duration(request.seconds)}</td><td class="n">{prediction}</td></tr>'
    )
