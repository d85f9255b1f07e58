"""What a check-up asks of the chain beyond the daemon's own reads: the clock, who is paid, and how we stand."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from miner.chain.base import ACTIVITY_CUTOFF, Neuron
from miner.chain.client import ChainFault
from miner.chain.queries import Published, neuron_of, read_published

if TYPE_CHECKING:
    import bittensor

PROPAGATION_SECONDS = 6.0  # a block of 12 s is seen up to that long after the time written in it


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block: how far our clock is ahead of the time in it, and by how much that may be too high (s)."""

    spec_version: int
    block: int
    block_seconds: float
    ahead: float
    slack: float


@dataclass(frozen=True, slots=True)
class Member:
    """One neuron, with its owner and what it gets."""

    neuron: Neuron
    coldkey: str
    emission: int  # rao per tempo, as a miner or a validator


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet at one block, and our own place in it."""

    block: int
    members: Sequence[Member]
    owner_hotkey: str
    owner_coldkey: str
    burned: float  # the chain's own count: share of the miners' part that went to the owner's keys and was burned
    cutoff: int  # blocks without an update after which the chain disregards a validator
    immune_blocks: int  # how many are left to us; 0 or less: none
    published: Published


async def read_head(client: "bittensor.Client", clock: Callable[[], float] = time.time) -> Head:
    """Read the head and compare its time with ours; where blocks are slow, at the moment of the next one."""
    seconds = float(await client.block_time())
    stamp, ahead = await _compare(client, clock)
    first, until = stamp, clock() + seconds + 1
    while seconds > 1 and stamp == first and clock() < until:
        await asyncio.sleep(0.5)
        stamp, ahead = await _compare(client, clock)
    return Head(await client.spec_version(), await client.block(), seconds, ahead, min(seconds, PROPAGATION_SECONDS))


async def _compare(client: "bittensor.Client", clock: Callable[[], float]) -> tuple[float, float]:
    asked = clock()
    stamp = (await client.timestamp()).timestamp()
    return stamp, (asked + clock()) / 2 - stamp


async def read_standing(client: "bittensor.Client", netuid: int, hotkey: str) -> Subnet:
    """Read who is paid on a subnet, and how the hotkey stands ("": nobody's).

    Raises:
        ChainFault: the subnet does not exist there.
    """

    async def read(item: str, *params: Any) -> Any:
        return await client.query(("SubtensorModule", item), [netuid, *params])

    if not await read("NetworksAdded"):
        raise ChainFault(f"subnet {netuid} does not exist there")
    block = await client.block()
    found = await client.neurons.all(netuid=netuid)
    members = [Member(neuron_of(n), n.coldkey, int(n.raw.get("emission", 0))) for n in found]
    own = next((member.neuron.uid for member in members if member.neuron.hotkey == hotkey), None)
    immune = 0
    if own is not None:
        immune = int(await read("BlockAtRegistration", own) or 0) + int(await read("ImmunityPeriod") or 0) - block
    return Subnet(
        block=block,
        members=members,
        owner_hotkey=str(await read("SubnetOwnerHotkey") or ""),
        owner_coldkey=str(await read("SubnetOwner") or ""),
        burned=_fraction(await read("MinerBurned")),
        cutoff=int(await read("ActivityCutoff") or ACTIVITY_CUTOFF),
        immune_blocks=immune,
        published=await read_published(client, "axon", netuid, hotkey) if hotkey else Published(None, 0),
    )


def _fraction(value: Any) -> float:
    """Read a fixed-point number: the SDK hands out the bits of a `FixedU128` (64 behind the point), or a float."""
    if isinstance(value, dict):
        value = value.get("bits", 0)
    if isinstance(value, int):
        return value / 2**64
    return float(value or 0)
