"""The queries of the chain, in the SDK's words: neurons, published address, head; each on the client's loop."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from miner.chain.base import Neuron
from miner.chain.client import ChainFault

if TYPE_CHECKING:
    import bittensor
    from bittensor import Neuron as SdkNeuron

Record = Literal["axon", "metrics"]

STORAGE_ITEMS: dict[Record, str] = {"axon": "Axons", "metrics": "Prometheus"}  # where the chain keeps a record
U16_MAX = 65535  # the chain's 1.0 of a u16, its type for scores
PROTOCOL = 4  # what every axon has published so far; validators don't look at it

PROPAGATION_SECONDS = 6.0  # a block of 12 s is seen up to that long after the time written in it


@dataclass(frozen=True, slots=True)
class Subnet:
    """The neurons of a subnet at one block, and who owns them."""

    block: int
    neurons: Mapping[str, Neuron]  # by hotkey
    coldkeys: Mapping[str, str]  # by hotkey


@dataclass(frozen=True, slots=True)
class PublishedEndpoint:
    """Where we are reached."""

    ip: IPv4Address | IPv6Address
    port: int
    protocol: int = PROTOCOL

    def __str__(self) -> str:
        host = f"[{self.ip}]" if self.ip.version == 6 else str(self.ip)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """What stands on chain for a hotkey: the endpoint, and the block it was published at."""

    endpoint: PublishedEndpoint | None
    block: int


UNPUBLISHED = PublishedRecord(None, 0)


async def read_subnet(client: "bittensor.Client", netuid: int) -> Subnet:
    """Read all neurons of a subnet, in one runtime call.

    Raises:
        ChainFault: the subnet does not exist, or the node knows nothing of it.
    """
    block = await client.block()
    found = await client.neurons.all(netuid=netuid)
    if not found:
        exists = await client.query(("SubtensorModule", "NetworksAdded"), [netuid])
        raise ChainFault(
            f"the node reports no neurons on subnet {netuid}" if exists else f"subnet {netuid} does not exist there"
        )
    neurons = {n.hotkey: neuron_of(n) for n in found}
    return Subnet(block, MappingProxyType(neurons), MappingProxyType({n.hotkey: n.coldkey for n in found}))


def neuron_of(found: "SdkNeuron") -> Neuron:
    """Return what we keep of the SDK's record."""
    return Neuron(
        uid=found.uid,
        hotkey=found.hotkey,
        stake=found.total_stake.amount,
        validator_permit=found.validator_permit,
        incentive=int(found.raw.get("incentive", 0)) / U16_MAX,
        trust=int(found.raw.get("trust", 0)) / U16_MAX,
        last_update=found.last_update,
    )


async def read_uid(client: "bittensor.Client", netuid: int, hotkey: str) -> int | None:
    """Read a hotkey's uid; None: it is not registered there."""
    uid = await client.neurons.uid(hotkey_ss58=hotkey, netuid=netuid)
    return None if uid is None else int(uid)


async def read_published(client: "bittensor.Client", record: Record, netuid: int, hotkey: str) -> PublishedRecord:
    """Read the address that others find for a hotkey."""
    found = await client.query(("SubtensorModule", STORAGE_ITEMS[record]), [netuid, hotkey])
    if not found:
        return UNPUBLISHED
    kind = IPv6Address if int(found["ip_type"]) == 6 else ip_address
    protocol = int(found.get("protocol", PROTOCOL))  # the metrics' record has none
    return PublishedRecord(PublishedEndpoint(kind(int(found["ip"])), int(found["port"]), protocol), int(found["block"]))


async def read_wait(client: "bittensor.Client", netuid: int, published: PublishedRecord) -> tuple[int, float]:
    """Return for how many blocks the chain will refuse another address, and the seconds of a block."""
    limit = int(await client.query(("SubtensorModule", "ServingRateLimit"), [netuid]) or 0)
    seconds = await client.block_time()
    if published.block == 0:
        return 0, seconds
    return max(published.block + limit - await client.block(), 0), seconds


async def serve(
    client: "bittensor.Client", record: Record, netuid: int, endpoint: PublishedEndpoint, wallet: "bittensor.Wallet"
) -> "bittensor.ExtrinsicResult":
    """Publish an endpoint and wait for the block that holds it; a refusal is in the result."""
    from bittensor.intents.serving import ServeAxon, ServePrometheus

    ip = str(endpoint.ip)
    intent = (
        ServeAxon(netuid=netuid, ip=ip, port=endpoint.port, protocol=endpoint.protocol)
        if record == "axon"
        else ServePrometheus(netuid=netuid, ip=ip, port=endpoint.port)
    )
    # Final is a minute later than included, and the next step reads the record again in any case.
    return await client.execute(intent, wallet, wait_for_inclusion=True, wait_for_finalization=False)


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The newest block: how far our clock is ahead of the time in it, and by how much that may be too high (s)."""

    spec_version: int
    block: int
    block_seconds: float
    ahead: float
    slack: float


async def read_head(client: "bittensor.Client", clock: Callable[[], float] = time.time) -> ChainHead:
    """Read the head and compare its time with ours; where blocks are slow, at the moment of the next one."""
    seconds = float(await client.block_time())
    stamp, ahead = await _compare(client, clock)
    first, until = stamp, clock() + seconds + 1
    while seconds > 1 and stamp == first and clock() < until:
        await asyncio.sleep(0.5)
        stamp, ahead = await _compare(client, clock)
    return ChainHead(
        await client.spec_version(), await client.block(), seconds, ahead, min(seconds, PROPAGATION_SECONDS)
    )


async def _compare(client: "bittensor.Client", clock: Callable[[], float]) -> tuple[float, float]:
    asked = clock()
    stamp = (await client.timestamp()).timestamp()
    return stamp, (asked + clock()) / 2 - stamp
