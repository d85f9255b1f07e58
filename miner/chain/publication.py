"""The publication of our addresses: what is on chain, what should be, and why it is not yet."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import httpx

from miner.chain.queries import PublishedEndpoint, Record, read_published, read_wait, serve
from miner.errors import MinerError
from miner.formats import age, one_line
from miner.settings.addresses import Address, why_not_public, why_unreachable

if TYPE_CHECKING:
    from bittensor import Wallet

log = logging.getLogger(__name__)

SERVICES = (
    "https://checkip.amazonaws.com",
    "https://api.ipify.org",
    "https://icanhazip.com",
    "https://ifconfig.me/ip",
    "https://ipinfo.io/ip",
)
MAX_BYTES = 64  # an address and a line's end

Call = Callable[..., Awaitable[Any]]  # (operation, patience: float = 1.0)
Clock = Callable[[], float]
REFUSALS = {
    "RATE_LIMITED": "rate limited",
    "NOT_REGISTERED": "the hotkey is not registered",
    "INVALID_ARGUMENT": "the chain does not take this address",
    "INSUFFICIENT_BALANCE": "the hotkey can't pay the fee; send it a little TAO",
}
RETRY_CAP_SECONDS = 600.0
EXTRINSIC_TIMEOUTS = 4.0  # times the usual limit: an extrinsic waits for one or two blocks of 12 s


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


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """Where validators shall find us; `ip` None: as the world sees us, looked up again every `lookup_seconds`."""

    port: int
    ip: str | None = None
    host: str = "0.0.0.0"  # noqa: S104 - that the port listens on, which says what may be published
    own_chain: bool = False  # whose validators may be on this very network, so that any address may be right
    metrics_port: int | None = None  # published too, where given
    find_ip: Callable[..., Awaitable[str]] = find_external_ip  # (known: str | None)
    lookup_seconds: float = 600.0
    retry_seconds: float = 60.0  # after the first refusal; doubled after each, up to ten minutes


class Publisher:
    """Keeps what a `PublicAddress` names published; `step` is called after every good read of the chain."""

    def __init__(self, axon: PublicAddress, netuid: int, wallet: "Wallet", monotonic: Clock) -> None:
        self.axon = axon
        self._netuid, self._hotkey = netuid, wallet.hotkey.ss58_address
        self._monotonic = monotonic
        self._ip = axon.ip
        self._next_lookup = 0.0
        ports: dict[Record, int | None] = {"axon": axon.port, "metrics": axon.metrics_port}
        self._publications = [
            Publication(record, port, netuid, wallet, axon.retry_seconds, monotonic)
            for record, port in ports.items()
            if port is not None
        ]

    @property
    def state(self) -> str:
        """How it goes, in words: the axon first."""
        return "; ".join(publication.state for publication in self._publications)

    @property
    def is_published(self) -> bool:
        """Whether the axon's address stands on chain."""
        return self._publications[0].published

    async def step(self, call: Call) -> None:
        """Publish what differs from the chain and what the chain would take.

        Raises:
            ChainFault: the chain could not be asked; whether an extrinsic went through shows at the next step.
        """
        await self._look_up(call)
        if self._ip is None:
            return
        unreachable = None if self.axon.own_chain else why_unreachable(self._ip, self.axon.host)
        if unreachable is not None:
            self.prevented(f"{self._ip} is {unreachable}; set AXON_EXTERNAL_IP")
            return
        for publication in self._publications:
            await publication.step(call, self._ip)

    def prevented(self, reason: str) -> None:
        """Note why nothing can be published now."""
        for publication in self._publications:
            publication.say(False, reason)

    def failed(self, reason: str) -> None:
        """Note that the chain could not be asked; what was published still is."""
        for publication in self._publications:
            if not publication.published:
                publication.say(False, reason)

    async def _look_up(self, call: Call) -> None:
        if self.axon.ip is not None or self._monotonic() < self._next_lookup:
            return
        known = self._ip
        if known is None:  # after a restart, what stands on chain is known
            published = await call(partial(read_published, record="axon", netuid=self._netuid, hotkey=self._hotkey))
            if published.endpoint is not None and why_not_public(published.endpoint.ip) is None:
                known = str(published.endpoint.ip)
        try:
            self._ip = await self.axon.find_ip(known=known)
            self._next_lookup = self._monotonic() + self.axon.lookup_seconds
        except AddressUnknown as error:
            self._next_lookup = self._monotonic() + self.axon.retry_seconds
            if self._ip is None:
                self.prevented(str(error))


class Publication:
    """One record of our hotkey on chain."""

    def __init__(
        self, record: Record, port: int, netuid: int, wallet: "Wallet", retry_seconds: float, monotonic: Clock
    ) -> None:
        self.record: Record = record
        self.port = port
        self.netuid = netuid
        self.wallet = wallet
        self.published = False
        self._words = "not tried yet"
        self._retry_seconds = retry_seconds
        self._monotonic = monotonic
        self._tried: PublishedEndpoint | None = None
        self._refusals = 0
        self._next_try = 0.0

    @property
    def state(self) -> str:
        """As in "published 1.2.3.4:8091" or "not published: rate limited, next try in 8 min"."""
        prefix = "" if self.record == "axon" else f"{self.record} "
        return f"{prefix}published {self._words}" if self.published else f"{prefix}not published: {self._words}"

    async def step(self, call: Call, ip: str) -> None:
        """Publish under this ip, if the chain has something else.

        Raises:
            ChainFault: the chain could not be asked.
        """
        wanted = PublishedEndpoint(ip_address(ip), self.port)
        if wanted != self._tried:
            self._tried, self._refusals, self._next_try = wanted, 0, 0.0
        hotkey = self.wallet.hotkey.ss58_address
        published = await call(partial(read_published, record=self.record, netuid=self.netuid, hotkey=hotkey))
        if published.endpoint == wanted:
            self._succeeded(wanted)
            return
        if self._monotonic() < self._next_try:
            return
        blocks, block_seconds = await call(partial(read_wait, netuid=self.netuid, published=published))
        if blocks > 0:
            self.say(False, f"rate limited, next try in {age(blocks * block_seconds)}")
            return
        log.info("publishing the %s at %s; the chain has %s", self.record, wanted, published.endpoint or "nothing")
        # A call that fails leaves its fate open: nothing is sent again before there was time for it to show.
        self._next_try = self._monotonic() + self._retry_seconds
        submit = partial(serve, record=self.record, netuid=self.netuid, endpoint=wanted, wallet=self.wallet)
        result = await call(submit, EXTRINSIC_TIMEOUTS)
        if result.success:
            self._succeeded(wanted)
        else:
            self._refused(result)

    def say(self, published: bool, words: str, level: int = logging.WARNING) -> None:
        """Set the state; the log gets a line when it becomes another, not when only its time does."""
        before = self.published, self._words.partition(",")[0]
        self.published, self._words = published, words
        if before != (published, words.partition(",")[0]):
            log.log(level, "%s", self.state)

    def _succeeded(self, endpoint: PublishedEndpoint) -> None:
        self._refusals, self._next_try = 0, 0.0
        self.say(True, str(endpoint), logging.INFO)

    def _refused(self, result: Any) -> None:
        code = str(getattr(getattr(result.error, "code", None), "name", "UNKNOWN"))
        message = one_line(str(result.message))
        pause = min(self._retry_seconds * 2**self._refusals, RETRY_CAP_SECONDS)
        self._refusals += 1
        self._next_try = self._monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311
        log.warning("the chain refused the %s at %s (%s): %s", self.record, self._tried, code, message)
        self.say(False, f"{REFUSALS.get(code, message)}, next try in {age(pause)}")
