"""The page for people: HTML from one overview, with nothing from elsewhere and nothing that needs JavaScript."""

import hashlib
from base64 import b64encode
from html import escape
from importlib.resources import files
from string import Template

from miner.status.overview import Overview
from miner.status.page.parts import body

_HERE = files(__name__)
_STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
_SCRIPT = (_HERE / "refresh.js").read_text(encoding="utf-8")
_PAGE = Template((_HERE / "page.html").read_text(encoding="utf-8"))


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
    state = "ready" if overview.ready else "not ready"
    return _PAGE.substitute(
        title=escape(f"{state} · roadwork-miner"), style=_STYLE, script=_SCRIPT, body=body(overview)
    )
