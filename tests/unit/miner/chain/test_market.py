"""How old a market's figures are, and what becomes of its reading: a reader that says what a test wants it to."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from miner.chain.client import ChainFault
from miner.chain.earnings import Metagraph
from miner.chain.market import MOST_COSTS, Market, MarketMemory
from miner.chain.sync import SubnetReader

HOUR = 3600.0
FIRST = {"name": "x", "owner_coldkey": "A", "registered_at": 7, "seen_at": 1.0}


@dataclass
class Reader:
    """A chain that answers with `graph`, or is away."""

    graph: Metagraph | None = field(default_factory=lambda: Metagraph(5, [], owner_coldkey="B", registered_at=7))
    netuid: int = 72
    reads: int = 0

    async def call(self, operation: object, patience: float = 1.0) -> Metagraph:
        self.reads += 1
        if self.graph is None:
            raise ChainFault("away")
        return self.graph

    async def again(self) -> None:
        """Wait until one read has begun and ended."""
        reads = self.reads
        async with asyncio.timeout(60):
            while self.reads < reads + 2:  # noqa: ASYNC110 - what is waited for happens in the market
                await asyncio.sleep(0)


class Clocks:
    """The clock that people set, and the monotonic one."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1e9, 100.0

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.wall, self.monotonic = self.wall + seconds, self.monotonic + seconds


Scene = Callable[[Market, Reader, Clocks], Coroutine[Any, Any, None]]


def play(scene: Scene, path: Path) -> None:
    """Play a scene with a market that reads without a pause."""

    async def main() -> None:
        reader, clocks = Reader(), Clocks()
        market = Market(
            cast(SubnetReader, reader), MarketMemory(path), 0.0, lambda: clocks.wall, lambda: clocks.monotonic
        )
        assert market.age == math.inf
        market.start()
        try:
            await scene(market, reader, clocks)
        finally:
            await market.stop()

    asyncio.run(main())


def test_only_a_newer_block_is_fresh(tmp_path: Path) -> None:
    async def scene(market: Market, reader: Reader, clocks: Clocks) -> None:
        await reader.again()
        clocks.pass_by(25)
        await reader.again()
        assert (market.age, market.fault) == (25, None)
        clocks.pass_by(6 * HOUR)
        await reader.again()
        assert market.age == 6 * HOUR + 25
        assert market.fault is not None
        assert "5" in market.fault
        assert reader.graph is not None
        reader.graph = replace(reader.graph, block=4, price=1.0)  # another node, which is behind
        await reader.again()
        assert market.graph is not None
        assert (market.graph.block, market.graph.price, market.age > 6 * HOUR) == (5, None, True)
        reader.graph = replace(reader.graph, block=6)
        await reader.again()
        assert (market.graph.block, market.age, market.fault) == (6, 0, None)

    play(scene, tmp_path / "market.json")


def test_a_chain_that_was_begun_anew_is_read_after_a_day(tmp_path: Path) -> None:
    async def scene(market: Market, reader: Reader, clocks: Clocks) -> None:
        await reader.again()
        assert reader.graph is not None
        clocks.pass_by(25 * HOUR)
        for block in (1, 2):
            reader.graph = replace(reader.graph, block=block)
            await reader.again()
        assert market.graph is not None
        assert (market.graph.block, market.age, market.fault) == (2, 0, None)

    play(scene, tmp_path / "market.json")


def test_a_clock_that_is_set_back_makes_nothing_younger(tmp_path: Path) -> None:
    async def scene(market: Market, reader: Reader, clocks: Clocks) -> None:
        await reader.again()
        clocks.wall -= 2 * HOUR
        reader.graph = None
        clocks.pass_by(HOUR)
        await reader.again()
        assert (market.age, market.fault) == (HOUR, "away")

    play(scene, tmp_path / "market.json")


@pytest.mark.parametrize(
    "first", [{"seen_at": "yesterday"}, {"seen_at": 1e300}, {"seen_at": None}, {"registered_at": "7"}]
)
def test_a_memory_of_other_types_is_none(
    first: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A text for a block was another registration; a date that is none ended the reading without a word."""
    path = tmp_path / "market.json"
    path.write_text(json.dumps({"first": FIRST | first, "costs": []}))
    with pytest.raises(ValueError, match=next(iter(first))):
        MarketMemory(path).load()

    async def scene(market: Market, reader: Reader, clocks: Clocks) -> None:
        await reader.again()
        assert (market.graph, market.change, market.fault) == (reader.graph, "", None)

    play(scene, path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text


def test_what_ends_the_reading_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(market: Market, reader: Reader, clocks: Clocks) -> None:
        await reader.again()
        reader.graph = cast(Metagraph, "no graph")
        async with asyncio.timeout(60):
            while market.fault is None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert market.graph is not None

    play(scene, tmp_path / "market.json")
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert record.exc_info is not None
    assert record.exc_info[0] is AttributeError


@pytest.mark.parametrize("wrong", [-6 * 365 * 24 * HOUR, 4 * 365 * 24 * HOUR])
def test_a_clock_that_is_wrong_for_a_while_does_not_forget_what_a_registration_cost(
    tmp_path: Path, wrong: float
) -> None:
    memory = MarketMemory(tmp_path / "market.json")
    graph = Metagraph(5, [], owner_coldkey="B", registered_at=7, cost=1.0)
    for now in (1e9, 1e9 + HOUR):
        memory.take(graph, now)
    memory.take(replace(graph, cost=3.0), 1e9 + wrong)
    assert memory.rise(3.0, 1e9 + 2 * HOUR) == 3.0
    for number in range(1000):
        memory.take(graph, 1e9 + number * HOUR)
    assert len(memory.costs) == MOST_COSTS
