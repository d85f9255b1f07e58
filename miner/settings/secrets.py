"""The settings that are addresses: what of them others may see, and what must not get out."""

from collections.abc import Iterator
from urllib.parse import unquote

from detectors.redact import HIDDEN, shown, shown_within, split

# The chain's modules know no detectors, and find the rest here.
__all__ = ["ADDRESSES", "HIDDEN", "is_shown_whole", "secrets_within", "shown", "shown_each", "shown_within"]

# The settings that are addresses; some are several, with commas.
ADDRESSES = {"subtensor_network", "subtensor_chain_endpoint", "model_url", "proxy_client_url", "remote_endpoints"}


def shown_each(addresses: str) -> str:
    """Return several addresses as `shown`; there are commas between them."""
    return ",".join(shown(one) for one in addresses.split(","))


def is_shown_whole(address: str) -> bool:
    """Return whether there is nothing in an address that others may not see."""
    return shown(address) == address.strip().rstrip("/")


def secrets_within(address: str) -> Iterator[str]:
    """Yield what others may not see of an address: the whole, what stands before the host and what behind it."""
    if is_shown_whole(address):
        return
    rest = address.strip().partition("://")[2]
    authority, tail = split(rest)
    user = authority.rpartition("@")[0]
    path, _, query = tail.lstrip("/").partition("?")
    parts = [address.strip(), rest, user, user.partition(":")[2], path, *path.split("/"), query]
    parts += [pair.partition("=")[2] for pair in query.split("&")]
    for part in filter(None, parts):
        yield part
        yield unquote(part)
