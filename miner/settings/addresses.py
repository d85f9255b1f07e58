"""Addresses in the settings: which are public, which names are ours, which parts are secret.

One rule for the settings, for what services say of us, for the publication itself and for the check-up: whoever stands
on chain with another address is asked by nobody, pays for it, and hears of no fault.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote

from detectors.redact import shown, shown_within, split

Address = IPv4Address | IPv6Address

PUBLIC_NETWORKS = ("finney", "test")  # whose validators are all over the world; `local` and ws:// may be one's own

# What people meet, by name; all else that isn't global is reserved.
KINDS = {
    "10.0.0.0/8": "a private address",
    "172.16.0.0/12": "a private address",
    "192.168.0.0/16": "a private address",
    "fc00::/7": "a private address",
    "fec0::/10": "a private address",
    "100.64.0.0/10": "an address behind a provider's NAT",
    "169.254.0.0/16": "a link-local address",
    "fe80::/10": "a link-local address",
    "127.0.0.0/8": "this machine's own loopback",
    "::1/128": "this machine's own loopback",
    "0.0.0.0/32": "a place to listen on and no address to ask",
    "::/128": "a place to listen on and no address to ask",
    "224.0.0.0/4": "a multicast address",
    "ff00::/8": "a multicast address",
    "192.0.2.0/24": "an address for documentation",
    "198.51.100.0/24": "an address for documentation",
    "203.0.113.0/24": "an address for documentation",
    "2001:db8::/32": "an address for documentation",
    "3fff::/20": "an address for documentation",
}
NETWORKS = [(ip_network(network), kind) for network, kind in KINDS.items()]

HEADER = re.compile(r"(\[[^\[\]]*\]|[^:]*)(:[0-9]*)?")
HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9])?")
ALWAYS_ALLOWED = ("localhost",)
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listened on; asked at its own end
# The settings that are addresses; some are several, with commas.
ADDRESSES = {"subtensor_network", "subtensor_chain_endpoint", "model_url", "natix_url", "remote_endpoints"}


def local_url(host: str, port: int) -> str:
    """Return the address at which what listens on this machine is asked from here."""
    host = EVERYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def why_not_public(address: str | Address) -> str | None:
    """Return what an address is if not one that the whole internet reaches, in words; None: it is."""
    address = ip_address(address)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return f"an IPv4 address in IPv6's form, {address.ipv4_mapped} is its own"
        if address.scope_id is not None:
            return "an address of one interface"
    for network, kind in NETWORKS:
        if address in network:
            return kind
    return None if address.is_global and not address.is_reserved else "a reserved address"


def why_unreachable(address: str | Address, host: str) -> str | None:
    """Return why validators can't reach us at an address, in words; None: they can.

    Args:
        address: as it would stand on chain.
        host: what the validators' port listens on.
    """
    kind = why_not_public(address)
    if kind is not None:
        return f"{kind}, which validators can't reach"
    version = ip_address(address).version
    if version not in families(host):
        return f"an IPv{version} address, and MINER_AXON_HOST={host} does not listen on IPv{version}"
    return None


def families(host: str) -> set[int]:
    """Return the versions of IP that a socket bound to this host takes connections of; `::` is bound for both."""
    if ":" not in host:
        return {4}
    return {4, 6} if host.strip("0:") == "" else {6}


def check_names(text: str) -> str:
    """Return a comma-separated list of names in small letters and without its spaces.

    Raises:
        ValueError: one of them is no name; the message names it.
    """
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in names:
        if not HOST_NAME.fullmatch(name):
            raise ValueError(
                "names of hosts with commas between them are allowed, without scheme and port; "
                f"{shown_within(name)!r} is none"
            )
    return ",".join(names)


def own_names(host: str, allowed: str) -> frozenset[str]:
    """Return the names of the operator's port: where it listens, this machine's own, and a checked list."""
    return frozenset(
        _plain(name) for name in (*ALWAYS_ALLOWED, socket.gethostname(), host, *allowed.split(",")) if name
    )


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
