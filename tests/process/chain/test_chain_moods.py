"""The chain in all its moods: broken, hanging, away, for a while or from the start."""

import json
import signal

import pytest

from tests.process.chain.live_node import NETUID, SUBMIT, LiveNode
from tests.process.chain.scene import START, keeps_answering, register, settled, syncs_again, why_not
from tests.process.daemon import eventually
from tests.process.inspection import message_of


@pytest.mark.parametrize("mood", ["garbage", "noise", "away"])
def test_a_broken_node_costs_freshness_only(node: LiveNode, start: START, street: bytes, mood: str) -> None:
    daemon = start()
    register(node, daemon)
    settled(node, daemon)
    if mood == "away":
        node.stop()
    else:
        node.fault = mood  # type: ignore[assignment] # one of its literals
    eventually(lambda: "the chain can't be read" in daemon.log)
    age = daemon.metric("chain_age_seconds")
    eventually(lambda: daemon.metric("chain_age_seconds") > age + 1)
    keeps_answering(daemon, street)
    node.fault = ""
    if mood == "away":
        node.start()
    syncs_again(node, daemon)
    assert "the chain is read again" in daemon.log
    keeps_answering(daemon, street)


def test_a_node_that_hangs_for_a_minute(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    register(node, daemon)
    settled(node, daemon)
    node.fault = "hang"
    for seconds in (1, 20, 40, 60):
        eventually(lambda age=seconds: daemon.metric("chain_age_seconds") > age)
        keeps_answering(daemon, street)
    assert "the chain can't be read: no answer within 30 s" in daemon.log
    node.fault = ""
    syncs_again(node, daemon)
    assert daemon.metric("chain_age_seconds") < 60


def test_a_start_without_the_chain_goes_by_what_was_stored(node: LiveNode, start: START, street: bytes) -> None:
    first = start()
    register(node, first)
    settled(node, first)
    block = first.metric("chain_block")
    assert first.stop() == 0
    node.stop()

    second = start().start().ready()
    assert "starting with the stored snapshot" in second.log
    assert second.metric("chain_block") == block
    keeps_answering(second, street)
    node.start()
    syncs_again(node, second)
    eventually(lambda: second.metric("chain_published") == 1)
    assert node.requests[SUBMIT] == 1


def test_a_start_without_the_chain_or_a_memory_of_it(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    register(node, daemon)
    node.stop()
    daemon.start()
    eventually(lambda: f"no snapshot of subnet {NETUID} yet" in why_not(daemon))
    eventually(lambda: "not ready (no snapshot" in daemon.log)
    assert daemon.status("/healthz") == 200
    assert daemon.metric("ready") == 0
    assert message_of(daemon.ask(street), 503) == "the miner is not ready"
    node.start()
    daemon.ready()
    keeps_answering(daemon, street)


def test_a_memory_that_is_too_old_is_not_gone_by(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start(CHAIN_MAX_AGE_HOURS=2 / 3600)
    register(node, daemon)
    settled(node, daemon)
    node.stop()
    eventually(lambda: "old, the limit is" in why_not(daemon))
    assert message_of(daemon.ask(street), 503) == "the miner is not ready"
    node.start()
    daemon.ready()


def test_a_stored_snapshot_that_is_damaged_stops_nothing(node: LiveNode, start: START) -> None:
    daemon = start()
    register(node, daemon)
    settled(node, daemon)
    assert daemon.stop() == 0
    (stored,) = daemon.state.glob("chain-*.json")
    stored.write_text(json.dumps({"network": node.url}), encoding="utf-8")
    node.stop()
    again = start().start()
    eventually(lambda: "the stored snapshot" in again.log and "can't be read" in again.log)
    node.start()
    again.ready()


def test_told_to_stop_while_the_chain_hangs(node: LiveNode, start: START) -> None:
    daemon = start()
    register(node, daemon)
    node.fault = "hang"
    daemon.start()
    eventually(lambda: why_not(daemon) == "reading the chain")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
