"""What is read of a subnet's market, with the unmodified SDK; and that reading it costs the syncs nothing."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from miner.chain.client import ChainFault
from miner.chain.earnings import Metagraph, burned_share, immune_blocks, pay_of, replacement_of
from miner.chain.market import Market, MarketMemory, read_metagraph
from miner.chain.queries import read_published
from miner.chain.subtensor import SubtensorChain
from miner.chain.sync import SnapshotStore
from tests.chain.conftest import NETUID, asking, eventually, key
from tests.chain.node import Node

OWN = key(1).ss58_address
VALIDATOR = key(1000).ss58_address
OWNER = key(9).ss58_address
TAO = 10**9


async def read(node: Node, folder: Path, *hotkeys: str) -> Metagraph:
    async with asking(node, folder) as ask:
        graph: Metagraph = await ask(partial(read_metagraph, netuid=NETUID, hotkeys=hotkeys))
        return graph


def plant(node: Node) -> None:
    """Put on chain all that a runtime keeps of a subnet's market."""
    node.register(7, OWN, coldkey=key(8).ss58_address, incentive=13107, emission=4 * TAO)
    node.members[0].last_update = 990
    node.name("StreetVision")
    for item, value in {
        "SubnetOwnerHotkey": VALIDATOR,
        "SubnetOwner": OWNER,
        "NetworkRegisteredAt": 123,
        "Tempo": 360,
        "MinerBurned": {"bits": 2**30},
        "Burn": TAO // 2,
        "CollateralLockShare": 13107,
        "ActivityCutoff": 77,
        "ImmunityPeriod": 150,
        "MaxAllowedUids": 2,
        "ImmuneOwnerUidsLimit": 3,
        "MinNonImmuneUids": 0,
    }.items():
        node.store(item, [NETUID], value)
    node.store("BlockAtRegistration", [NETUID, 7], 900)
    state = {"locked": 3 * TAO, "min_locked": 0, "earned": 0, "drain_ratio": {"bits": 2**64}}
    node.store("MinerCollateral", [NETUID, OWN, key(8).ss58_address], state)


async def test_everything_that_a_runtime_gives_is_read(node: Node, tmp_path: Path) -> None:
    plant(node)
    graph = await read(node, tmp_path, OWN)
    validator, own = graph.members
    assert (validator.neuron.hotkey, validator.neuron.validator_permit, validator.neuron.last_update) == (
        VALIDATOR,
        True,
        990,
    )
    assert (own.neuron.uid, own.coldkey, own.neuron.incentive) == (7, key(8).ss58_address, pytest.approx(0.2))
    assert (own.emission, own.registered_at) == (4 * TAO, 900)
    assert (graph.block, graph.block_seconds) == (node.block, 0.25)
    assert (graph.name, graph.owner_hotkey, graph.owner_coldkey) == ("StreetVision", VALIDATOR, OWNER)
    assert (graph.registered_at, graph.tempo, graph.cutoff, graph.immunity) == (123, 360, 77, 150)
    assert (graph.cost, graph.price, graph.burned, graph.lock_share) == (0.5, 0.05, 0.25, pytest.approx(0.2))
    assert (graph.capacity, graph.owner_places, graph.floor) == (2, 3, 0)
    assert dict(graph.collateral) == {OWN: 3.0}
    # This runtime, of 461, has no subnets without consensus: that is all it does not say.
    assert graph.has_consensus is None
    assert list(graph.unsaid) == ["has_consensus"]


async def test_what_the_runtime_counts_as_burned_is_a_share(node: Node, tmp_path: Path) -> None:
    """A U96F32: read with 64 bits behind the point, all of it would be next to nothing."""
    plant(node)
    node.store("MinerBurned", [NETUID], {"bits": 2**32})
    graph = await read(node, tmp_path)
    assert (graph.burned, burned_share(graph), pay_of(graph)) == (1.0, 1.0, "burned")


async def test_an_item_that_a_node_does_not_give_leaves_the_others(node: Node, tmp_path: Path) -> None:
    plant(node)
    node.price = None
    node.name(None)
    graph = await read(node, tmp_path, OWN)
    assert (graph.price, graph.name, graph.cost) == (None, "", 0.5)
    assert set(graph.unsaid) == {"price", "has_consensus"}
    assert "SwapRuntimeApi" in graph.unsaid["price"]


@pytest.mark.parametrize("hotkey", [OWN, ""], ids=["not registered", "no hotkey"])
async def test_without_a_place(node: Node, tmp_path: Path, hotkey: str) -> None:
    graph = await read(node, tmp_path, hotkey)
    assert (len(graph.members), graph.cutoff, dict(graph.collateral)) == (1, 5000, {})
    assert (graph.member(hotkey), replacement_of(graph, hotkey)) == (None, None)
    assert immune_blocks(graph, graph.members[0]) is not None


async def test_a_subnet_that_does_not_exist(node: Node, tmp_path: Path) -> None:
    async with asking(node, tmp_path) as ask:
        with pytest.raises(ChainFault, match="subnet 99 does not exist"):
            await ask(partial(read_metagraph, netuid=99, hotkeys=[OWN]))


async def test_the_published_address(node: Node, tmp_path: Path) -> None:
    node.axons[OWN] = {"block": 950, "version": 1, "ip": 0x01020304, "port": 8091, "ip_type": 4, "protocol": 4}
    node.axons[OWN] |= {"placeholder1": 0, "placeholder2": 0}
    async with asking(node, tmp_path) as ask:
        published = await ask(partial(read_published, record="axon", netuid=NETUID, hotkey=OWN))
    assert (str(published.endpoint), published.block) == ("1.2.3.4:8091", 950)


# -- again and again ---------------------------------------------------------------------------------------------------


@pytest.fixture
def market(node: Node, chain_of: Callable[..., SubtensorChain], tmp_path: Path) -> Market:
    """The market of a chain that reads twenty times a second, and it as often."""
    plant(node)
    chain = chain_of(node.url)
    return Market(chain.reader, MarketMemory.beside(SnapshotStore(tmp_path, node.url, NETUID)), 0.05)


async def test_a_market_that_can_t_be_read_costs_the_syncs_nothing(node: Node, market: Market) -> None:
    reader = market.reader
    await reader.start()
    market.start()
    await eventually(lambda: market.graph is not None)
    node.silent = "state_queryStorageAt"  # nobody but the market asks for many values at once
    reader._call_seconds = 0.5
    await eventually(lambda: market.fault is not None)
    syncs, failures = reader.syncs, reader.failures
    await eventually(lambda: reader.syncs > syncs + 3)
    assert (reader.fault, reader.failures) == (None, failures)
    assert market.graph is not None
    assert market.graph.cost == 0.5  # of before
    node.silent = ""
    await eventually(lambda: market.fault is None)
    await market.stop()
    await reader.stop()


async def test_a_change_of_owner_is_seen_after_a_restart_too(node: Node, market: Market) -> None:
    await market.reader.start()
    market.start()
    await eventually(lambda: market.memory.first is not None and market.memory.path.exists())
    assert market.change == ""
    await market.stop()
    node.store("SubnetOwner", [NETUID], key(10).ss58_address)
    node.store("Burn", [NETUID], TAO * 3 // 2)
    later = Market(market.reader, MarketMemory(market.memory.path), 0.05)
    later.start()
    await eventually(lambda: later.graph is not None)
    assert (later.change, later.rise) == ("owner", 3.0)
    node.store("NetworkRegisteredAt", [NETUID], 999)
    await eventually(lambda: later.change == "registration")
    await later.stop()
    await market.reader.stop()


@pytest.mark.parametrize(
    "content", ["", "{}", '{"first": {"x": 1}, "costs": []}', '{"first": null, "costs": [[1, NaN]]}']
)
async def test_a_broken_memory_begins_anew(market: Market, content: str) -> None:
    path = market.memory.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    await market.reader.start()
    market.start()
    await eventually(lambda: market.graph is not None)
    assert json.loads(path.read_text())["first"]["owner_coldkey"] == OWNER
    await market.stop()
    await market.reader.stop()
