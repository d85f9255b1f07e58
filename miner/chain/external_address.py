"""The address the world sees this machine at, asked of services that don't know each other."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address

import httpx

from miner.errors import MinerError
from miner.settings.public_address import Address, why_not_public

SERVICES = (
    "https://checkip.amazonaws.com",
    "https://api.ipify.org",
    "https://icanhazip.com",
    "https://ifconfig.me/ip",
    "https://ipinfo.io/ip",
)
MAX_BYTES = 64  # an address and a line's end


class AddressUnknown(MinerError):
    """No service, or no two of them, could tell our address."""


async def find_external_ip(
    services: Sequence[str] = SERVICES, seconds: float = 5.0, *, known: str | None = None
) -> str:
    """Ask all services at once; the first address that two agree on, or the only one that came.

    Where an address is `known` already, one service alone can't change it: it may be mistaken, or lie. Over IPv4,
    because the axon listens there. `seconds` limits each service.

    Raises:
        AddressUnknown: nobody answered, or everybody something else, or only one and something new, or nothing but what
            the internet can't reach.
    """
    votes: Counter[str] = Counter()
    unfit: dict[str, str] = {}
    transport = httpx.AsyncHTTPTransport(local_address="0.0.0.0")  # noqa: S104
    async with httpx.AsyncClient(transport=transport, timeout=seconds, follow_redirects=True) as client:
        asked = [asyncio.ensure_future(_ask(client, service, seconds)) for service in services]
        try:
            for answer in asyncio.as_completed(asked):
                address = await answer
                if address is None:
                    continue
                if (kind := why_not_public(address)) is not None:
                    unfit[str(address)] = kind
                    continue
                votes[str(address)] += 1
                if votes[str(address)] == 2:
                    return str(address)
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
    if len(votes) == 1 and (known is None or known in votes):
        return next(iter(votes))
    if len(votes) == 1:
        said = f"our address is {next(iter(votes))} and no longer {known}"
        raise AddressUnknown(f"one service alone says that {said}; set AXON_EXTERNAL_IP")
    if votes:
        raise AddressUnknown(f"the services disagree on our address: {', '.join(sorted(votes))}; set AXON_EXTERNAL_IP")
    if unfit:
        said = " and ".join(f"{address}, {kind}" for address, kind in unfit.items())
        raise AddressUnknown(f"the services see us at {said}, which validators can't reach; set AXON_EXTERNAL_IP")
    raise AddressUnknown(f"none of {len(services)} services could tell our address; set AXON_EXTERNAL_IP")


async def _ask(client: httpx.AsyncClient, service: str, seconds: float) -> Address | None:
    try:
        async with asyncio.timeout(seconds), client.stream("GET", service) as response:
            if response.status_code != httpx.codes.OK:
                return None
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    return None
    except (httpx.HTTPError, TimeoutError, OSError):
        return None
    try:
        return ip_address(body.decode("ascii", errors="replace").strip())
    except ValueError:
        return None
