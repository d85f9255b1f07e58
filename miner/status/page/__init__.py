"""The page for people: HTML from one overview, with nothing from elsewhere and nothing that needs JavaScript."""

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from miner import formats
from miner.cascade import SERVED
from miner.status.cards import cards, cascade_note, headline, natix_words, request_note
from miner.status.charts import SPAN_TITLES, css_class, group_of, latency_chart, outcomes_chart, periods_of
from miner.status.earnings import digits, earnings_of
from miner.status.overview import Overview
from miner.status.spans import AccountView, Span

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = files(__name__)
_STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
_SCRIPT = (_HERE / "refresh.js").read_text(encoding="utf-8")


@cache
def template() -> "Template":
    """Return the page's template; the first time takes a while.

    The templates hold the markup, and Python the figures. Whatever a template is given is escaped, of whatever suffix
    the template is; a name that is misspelt is an error instead of nothing. Jinja2 and the compiled page take 2 MB,
    which a miner has to spare only once somebody looks at its page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader(__name__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": formats.age,
        "clock": formats.clock,
        "css_class": css_class,
        "duration": formats.duration,
        "fraction": formats.fraction,
        "group": group_of,
        "digits": lambda value: formats.NO_VALUE if value is None else digits(value),
        "known": lambda value: formats.NO_VALUE if value is None else value,
        "moment": formats.moment,
        "natix": natix_words,
        "note": request_note,
        "number": formats.number,
        "share": formats.share,
        "short_number": formats.short_number,
    }
    ours: dict[str, str] = {"style": Markup(_STYLE), "script": Markup(_SCRIPT)}  # noqa: S704 - no text of anybody else
    environment.globals |= {"none_sign": formats.NO_VALUE, "served": SERVED} | ours
    return environment.get_template("page.html")


def _source(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Only this style, this script, and fetching this page again; an injected tag could do nothing.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_source(_STYLE)}",
        f"script-src {_source(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def render(overview: Overview, span: str = "hour") -> str:
    """Return the whole page, with the charts and tables of an hour, a day or a week."""
    spans: dict[str, Span] = {"hour": overview.hour, "day": overview.day, "week": overview.week}
    span = span if span in spans else "hour"
    shown, periods = spans[span], periods_of(overview, span)
    accounts: dict[str, AccountView] = {one.hotkey: one for one in shown.hotkeys}
    return template().render(
        overview=overview,
        headline=headline(overview),
        span=span,
        title=SPAN_TITLES[span],
        spans=[{"name": name, "title": SPAN_TITLES[name], "span": one} for name, one in spans.items()],
        tiles=[(f"{name} latency", formats.duration(seconds)) for name, seconds in shown.percentiles.items()],
        charts=[latency_chart(periods, span), outcomes_chart(periods, span)],
        callers=shown.callers,
        checkup=overview.checkup,
        keys=[
            (key, accounts.get(key.hotkey, AccountView()), earnings_of(overview.earnings, key.hotkey))
            for key in overview.keys
        ],
        hotkeys={key.hotkey: key.name for key in overview.keys},
        cards=cards(overview),
        cascade_note=cascade_note(overview.cascade) if overview.cascade is not None else "",
    )
