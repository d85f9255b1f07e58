"""Addresses as others may see them: a password or a provider's API key may be part of one."""

import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "(hidden)"
# The settings that are addresses; some are several, with commas.
ADDRESSES = {"subtensor_network", "subtensor_chain_endpoint", "model_url", "proxy_client_url", "remote_endpoints"}

HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")
IN_TEXT = re.compile(r"[a-zA-Z][\w+.-]*://\S+")
BEHIND = ".,:;!?)]}>'\""  # what ends a sentence or a quotation, not an address


def shown(address: str) -> str:
    """Return scheme, host and port of an address; a name such as `finney` as it is."""
    scheme, mark, rest = address.strip().partition("://")
    if not mark:
        return HIDDEN if set("/?#@") & set(address) else address
    authority, tail = _split(rest)
    host = authority.rpartition("@")[2]
    # With an `@` behind the host, the host may be a user and a password that held a slash.
    return f"{scheme}://{host if HOST.fullmatch(host) and '@' not in tail else HIDDEN}"


def shown_each(addresses: str) -> str:
    """Return several addresses as `shown`; there are commas between them."""
    return ",".join(shown(one) for one in addresses.split(","))


def shown_within(text: str) -> str:
    """Return a text with each address in it as `shown`."""

    def show(found: re.Match[str]) -> str:
        address = found[0].rstrip(BEHIND)
        return shown(address) + found[0][len(address) :]

    return IN_TEXT.sub(show, text)


def is_shown_whole(address: str) -> bool:
    """Return whether there is nothing in an address that others may not see."""
    return shown(address) == address.strip().rstrip("/")


def secrets_within(address: str) -> Iterator[str]:
    """Yield what others may not see of an address: the whole, what stands before the host and what behind it."""
    if is_shown_whole(address):
        return
    rest = address.strip().partition("://")[2]
    authority, tail = _split(rest)
    user = authority.rpartition("@")[0]
    path, _, query = tail.lstrip("/").partition("?")
    parts = [address.strip(), rest, user, user.partition(":")[2], path, *path.split("/"), query]
    parts += [pair.partition("=")[2] for pair in query.split("&")]
    for part in filter(None, parts):
        yield part
        yield unquote(part)


def _split(rest: str) -> tuple[str, str]:
    """Split what follows the scheme at the end of user, host and port."""
    end = re.search(r"[/?#]", rest)
    return (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
