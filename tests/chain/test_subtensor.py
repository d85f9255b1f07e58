"""The unmodified SDK against a node: what the miner sees of the chain, and what became of us on it."""

import logging

import pytest

from miner.chain.base import active_validators
from tests.chain.conftest import NETUID, eventually, key
from tests.chain.node import Node

OWN = key(1).ss58_address
VALIDATOR = key(1000).ss58_address


async def test_snapshot_holds_stakes_permits_and_our_uid(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url)
    assert "no snapshot" in chain.obstacle
    await chain.start()
    assert chain.obstacle is None
    assert chain.uid == 7
    assert chain.snapshot.block == node.block
    assert chain.snapshot.neurons[VALIDATOR].stake == 5000.5
    assert chain.snapshot.neurons[VALIDATOR].validator_permit
    assert not chain.snapshot.neurons[OWN].validator_permit
    assert (chain.syncs, chain.failures) == (1, 0)
    assert chain.publication.endswith("not asked for")
    assert 0 <= chain.age < 60
    await chain.stop()


async def test_scores_are_shares_and_activity_is_by_the_last_weights(node: Node, chain_of) -> None:
    node.block = 6001
    node.register(7, OWN, incentive=13107, trust=65535)
    node.members[0].last_update = 1001
    node.register(1, key(1001).ss58_address, permit=True, last_update=1000)
    chain = chain_of(node.url)
    await chain.start()
    await chain.stop()
    own, neurons = chain.snapshot.neurons[OWN], chain.snapshot.neurons
    assert (own.incentive, own.trust, own.last_update) == (pytest.approx(0.2), 1.0, 0)
    assert neurons[VALIDATOR].last_update == 1001
    active = active_validators(neurons.values(), chain.snapshot.block)
    assert [neuron.hotkey for neuron in active] == [VALIDATOR], "5000 blocks count, 5001 don't"


async def test_a_permit_taken_away_is_gone_after_one_read(node: Node, chain_of) -> None:
    chain = chain_of(node.url)
    await chain.start()
    before = chain.snapshot
    node.members[0].permit = False
    await eventually(lambda: not chain.snapshot.neurons[VALIDATOR].validator_permit)
    assert before.neurons[VALIDATOR].validator_permit, "a snapshot never changes"
    await chain.stop()


async def test_ready_by_itself_on_registration(node: Node, chain_of, caplog) -> None:
    caplog.set_level(logging.INFO)
    chain = chain_of(node.url)
    await chain.start()
    assert f"btcli subnet register --netuid {NETUID} --wallet miner --hotkey {OWN}" in chain.obstacle
    node.register(12, OWN)
    await eventually(lambda: chain.obstacle is None)
    assert chain.uid == 12
    await chain.stop()
    assert any(r.getMessage().endswith("our uid is 12") for r in caplog.records)


@pytest.mark.parametrize(
    ("coldkey", "words"),
    [(None, "deregistered; our uid 12"), (key(99).ss58_address, "swapped: uid 12")],
    ids=["pruned", "swapped"],
)
async def test_the_loss_of_our_uid_is_said_once(node: Node, chain_of, caplog, coldkey, words) -> None:
    node.register(12, OWN, coldkey=key(99).ss58_address)
    chain = chain_of(node.url)
    await chain.start()
    node.register(12, key(55).ss58_address, coldkey=coldkey)
    await eventually(lambda: chain.obstacle is not None)
    syncs = chain.syncs
    await eventually(lambda: chain.syncs > syncs + 2)
    await chain.stop()
    assert "is not registered" in chain.obstacle
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert words in lines[0]
    assert key(55).ss58_address in lines[0]


async def test_a_new_uid_is_noticed(node: Node, chain_of, caplog) -> None:
    node.register(3, OWN)
    chain = chain_of(node.url)
    await chain.start()
    node.deregister(3)
    await eventually(lambda: chain.uid is None)
    node.register(4, OWN)
    await eventually(lambda: chain.uid == 4)
    await chain.stop()
    assert chain.obstacle is None
    assert any("our uid 3 yet" in record.getMessage() for record in caplog.records)


async def test_a_subnet_that_does_not_exist_is_named(node: Node, wallet, tmp_path) -> None:
    from miner.chain.subtensor import SubtensorChain
    from miner.chain.sync import SubnetReader

    reader = SubnetReader(node.url, 999, tmp_path / "state", sync_seconds=0.05)
    chain = SubtensorChain(reader, wallet)
    await chain.start()
    assert "subnet 999 does not exist" in chain.obstacle
    await chain.stop()
