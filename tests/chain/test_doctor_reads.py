"""What the check-up reads of the chain, with the unmodified SDK."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from miner.chain.client import ChainClient, ChainFault
from miner.chain.queries import PublishedEndpoint, read_head, read_standing
from tests.chain.conftest import NETUID, key
from tests.chain.node import Node

OWN = key(1).ss58_address
VALIDATOR = key(1000).ss58_address
NOON = 1_800_000_000.0

Ask = Callable[[Callable[..., Awaitable[Any]]], Awaitable[Any]]


@asynccontextmanager
async def asking(node: Node, folder: Path) -> AsyncIterator[Ask]:
    client = ChainClient(node.url, folder)
    try:
        yield partial(client.call, seconds=30.0)
    finally:
        await client.close()


def put_time(node: Node, seconds: float) -> None:
    node.store("Now", [], int(seconds * 1000), pallet="Timestamp")


@pytest.mark.parametrize("ahead", [0.0, 60.0, -60.0])
async def test_the_head_tells_how_far_ahead_our_clock_is(node: Node, tmp_path: Path, ahead: float) -> None:
    put_time(node, NOON)
    async with asking(node, tmp_path) as ask:
        head = await ask(partial(read_head, clock=lambda: NOON + ahead))
    assert head.ahead == pytest.approx(ahead)
    assert (head.spec_version, head.block) == (node.version["specVersion"], node.block)
    assert head.slack == head.block_seconds == 0.25, "this chain's blocks are fast: no need to wait for one"


async def test_on_a_slow_chain_the_next_block_is_waited_for(node: Node, tmp_path: Path) -> None:
    put_time(node, NOON - 9)  # the newest block was 9 s old when we came
    seen = NOON

    def clock() -> float:
        return seen

    async def slow(client: Any) -> Any:
        nonlocal seen

        async def twelve() -> float:
            return 12.0

        client.block_time = twelve
        reading = asyncio.ensure_future(read_head(client, clock))
        requests = node.requests["state_getStorageAt"]
        while node.requests["state_getStorageAt"] < requests + 2:  # noqa: ASYNC110 - the node sets no event
            await asyncio.sleep(0.01)
        seen = NOON + 5
        put_time(node, NOON + 3)
        return await reading

    async with asking(node, tmp_path) as ask:
        head = await ask(slow)
    assert head.ahead == pytest.approx(2.0)
    assert head.slack == 6.0


async def test_our_place_and_who_is_paid(node: Node, tmp_path: Path) -> None:
    node.register(7, OWN, coldkey=key(9).ss58_address, incentive=13107)
    node.members[0].last_update = 990
    node.store("BlockAtRegistration", [NETUID, 7], 900)
    node.store("ImmunityPeriod", [NETUID], 150)
    node.store("ActivityCutoff", [NETUID], 77)
    node.store("SubnetOwnerHotkey", [NETUID], VALIDATOR)
    node.store("SubnetOwner", [NETUID], key(9).ss58_address)
    node.store("MinerBurned", [NETUID], {"bits": 2**62})
    node.axons[OWN] = {"block": 950, "version": 1, "ip": 0x01020304, "port": 8091, "ip_type": 4, "protocol": 4}
    node.axons[OWN] |= {"placeholder1": 0, "placeholder2": 0}
    async with asking(node, tmp_path) as ask:
        subnet = await ask(partial(read_standing, netuid=NETUID, hotkey=OWN))
    validator, own = subnet.members
    assert (validator.neuron.hotkey, validator.neuron.validator_permit, validator.neuron.last_update) == (
        VALIDATOR,
        True,
        990,
    )
    assert (own.neuron.uid, own.coldkey, own.neuron.incentive) == (7, key(9).ss58_address, pytest.approx(0.2))
    assert (subnet.owner_hotkey, subnet.owner_coldkey) == (VALIDATOR, key(9).ss58_address)
    assert (subnet.immune_blocks, subnet.cutoff, subnet.burned) == (50, 77, 0.25)
    assert isinstance(subnet.published.endpoint, PublishedEndpoint)
    assert str(subnet.published.endpoint) == "1.2.3.4:8091"


@pytest.mark.parametrize("hotkey", [OWN, ""], ids=["not registered", "no hotkey"])
async def test_without_a_place(node: Node, tmp_path: Path, hotkey: str) -> None:
    async with asking(node, tmp_path) as ask:
        subnet = await ask(partial(read_standing, netuid=NETUID, hotkey=hotkey))
    assert len(subnet.members) == 1
    assert (subnet.immune_blocks, subnet.cutoff, subnet.burned) == (0, 5000, 0.0)
    assert subnet.published.endpoint is None


async def test_a_subnet_that_does_not_exist(node: Node, tmp_path: Path) -> None:
    async with asking(node, tmp_path) as ask:
        with pytest.raises(ChainFault, match="subnet 99 does not exist"):
            await ask(partial(read_standing, netuid=99, hotkey=OWN))
