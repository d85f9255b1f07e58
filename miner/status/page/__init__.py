"""The page for people: HTML from one overview, with nothing from elsewhere and nothing that needs JavaScript."""

import hashlib
from base64 import b64encode
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from miner import formats
from miner.status.cards import cards
from miner.status.overview import Hour, Overview
from miner.status.page import charts

_HERE = files(__name__)
_STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
_SCRIPT = (_HERE / "refresh.js").read_text(encoding="utf-8")

# The templates hold the markup, and Python the figures. Whatever a template is given is escaped, of whatever suffix the
# template is; a name that is misspelt is an error instead of nothing.
_TEMPLATES = Environment(
    loader=PackageLoader(__name__, ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters |= {
    "age": formats.age,
    "clock": formats.clock,
    "duration": formats.duration,
    "group": charts.group_of,
    "known": lambda value: formats.NONE if value is None else value,
    "moment": formats.moment,
}
_TEMPLATES.globals |= {"none_sign": formats.NONE, "style": Markup(_STYLE), "script": Markup(_SCRIPT)}  # noqa: S704 - ours
_PAGE = _TEMPLATES.get_template("page.html")


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


def render(overview: Overview) -> str:
    """Return the whole page."""
    drawn = [charts.latency(overview.hour.minutes), charts.outcomes(overview.hour.minutes)]
    return _PAGE.render(overview=overview, tiles=_tiles(overview.hour), charts=drawn, cards=cards(overview))


def _tiles(hour: Hour) -> list[tuple[str, str]]:
    return [
        ("answered in time", formats.share(hour.answered_share)),
        *((f"{name} latency", formats.duration(seconds)) for name, seconds in hour.percentiles.items()),
    ]
