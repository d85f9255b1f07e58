"""What an address on chain may be: one that the whole internet reaches, of a family that the validators' port takes.

One rule for the settings, for what services say of us, for the publication itself and for the check-up: whoever stands
on chain with another address is asked by nobody, pays for it, and hears of no fault.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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
