"""The names that the operator's port is asked by: not those of other people's web pages.

A page whose name suddenly means this machine (DNS rebinding) has a browser ask us as if we were the page's own server,
and reads what we answer. The browser says by which name it came. An address can't be made to mean another machine, and
what gives no name is no browser, so both may ask.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address

HEADER = re.compile(r"(\[[^\[\]]*\]|[^:]*)(:[0-9]*)?")
NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9])?")
ALWAYS = ("localhost",)


def check_names(text: str) -> str:
    """Return a comma-separated list of names in small letters and without its spaces.

    Raises:
        ValueError: one of them is no name; the message names it.
    """
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"names of hosts with commas between them are allowed, without scheme and port; {name!r} is none"
            )
    return ",".join(names)


def own_names(host: str, allowed: str) -> frozenset[str]:
    """Return the names of the operator's port: where it listens, this machine's own, and a checked list."""
    return frozenset(_plain(name) for name in (*ALWAYS, socket.gethostname(), host, *allowed.split(",")) if name)


def strange_name(headers: Iterable[str], names: Iterable[str]) -> str | None:
    """Return by which name of none of ours a request came, as its Host headers say; None: by none such."""
    for header in headers:
        found = HEADER.fullmatch(header.strip())
        name = _plain(found[1]) if found is not None else header
        if name and not _is_address(name) and name not in names:
            return name
    return None


def _plain(name: str) -> str:
    return name.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
