"""The head of the chain, as the check-up reads it with the unmodified SDK."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from miner.chain.queries import read_head
from tests.chain.conftest import asking
from tests.chain.node import Node

NOON = 1_800_000_000.0


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
