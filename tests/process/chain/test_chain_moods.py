"""The chain in all its moods: broken, hanging, away, for a while or from the start."""

import json
import signal
from collections.abc import Iterator

import pytest

from miner.chain.sync import SnapshotStore
from miner.errors import MESSAGES
from tests.process.chain.conftest import miners
from tests.process.chain.live_node import NETUID, SUBMIT, LiveNode, healthy_node
from tests.process.chain.scene import START, keeps_answering, of_chain, register, settled, syncs_again, why_not
from tests.process.daemon import Daemon, eventually
from tests.process.inspection import message_of

MOODS = {"garbage": "an answer that can't be read", "away": "connect"}  # and what is said of it
UNREAD, READ_AGAIN, STORED = "the chain can't be read", "the chain is read again", "the stored snapshot"


@pytest.fixture(scope="module")
def miner(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[tuple[LiveNode, Daemon]]:
    """A settled miner, for the moods that it comes through."""
    node = healthy_node()
    with miners(node, tmp_path_factory.mktemp("moods"), model) as start:
        daemon = start()
        register(node, daemon)
        settled(node, daemon)
        yield node, daemon
    node.stop()


# What is no JSON ("noise") takes a read's 30 s to be given up, like a hang: it is among the faults of tests/chain.
@pytest.mark.parametrize("mood", MOODS)
def test_a_broken_node_costs_freshness_only(miner: tuple[LiveNode, Daemon], street: bytes, mood: str) -> None:
    node, daemon = miner
    failures, faults = daemon.metric("chain_failures_total"), daemon.log.count(UNREAD)
    if mood == "away":
        node.stop()
    else:
        node.fault = mood  # type: ignore[assignment] # one of its literals
    eventually(lambda: daemon.metric("chain_failures_total") > failures + 1)
    age = daemon.metric("chain_age_seconds")
    eventually(lambda: daemon.metric("chain_age_seconds") > age + 1)
    keeps_answering(daemon, street)
    seconds, told = of_chain(daemon)
    assert seconds > age + 1
    assert all(MOODS[mood] in words for words in told), told[:2]
    node.fault = ""
    if mood == "away":
        node.start()
    syncs_again(node, daemon)
    eventually(lambda: daemon.log.count(READ_AGAIN) == faults + 1)
    eventually(lambda: daemon.log.count(UNREAD) == faults + 1)  # said once
    keeps_answering(daemon, street)
    assert of_chain(daemon)[1][:2] == ["None", "None"]


def test_a_node_that_hangs_for_a_minute(miner: tuple[LiveNode, Daemon], street: bytes) -> None:
    node, daemon = miner
    syncs = daemon.metric("chain_syncs_total")
    eventually(lambda: daemon.metric("chain_syncs_total") > syncs)
    node.fault = "hang"
    for seconds in (1, 20, 40, 60):
        eventually(lambda age=seconds: daemon.metric("chain_age_seconds") > age)
        keeps_answering(daemon, street)
    eventually(lambda: f"{UNREAD}: no answer within 30 s" in daemon.log)
    seconds, told = of_chain(daemon)
    assert seconds > 60
    assert all("no answer within 30 s" in words for words in told), told[:2]
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
    eventually(lambda: STORED in second.log)
    assert second.metric("chain_block") >= block
    keeps_answering(second, street)
    eventually(lambda: "connect" in of_chain(second)[1][0])
    node.start()
    syncs_again(node, second)
    eventually(lambda: second.metric("chain_published") == 1)
    assert node.requests[SUBMIT] == 1


def test_a_start_without_the_chain_or_a_good_memory_of_it(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    register(node, daemon)
    node.stop()
    store = SnapshotStore(daemon.state, node.url, NETUID)
    store.path.write_text(json.dumps({"network": store.name}), encoding="utf-8")
    daemon.start()
    eventually(lambda: STORED in daemon.log and "can't be read" in daemon.log)
    eventually(lambda: f"no snapshot of subnet {NETUID} yet" in why_not(daemon))
    eventually(lambda: "not ready (no snapshot" in daemon.log)
    assert daemon.status("/healthz") == 200
    assert daemon.page("/readyz").json()["chain"]["age_seconds"] is None
    assert daemon.metric("ready") == 0
    assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
    node.start()
    daemon.ready()
    keeps_answering(daemon, street)


def test_a_memory_that_is_too_old_is_not_gone_by(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start(CHAIN_MAX_AGE_HOURS=2 / 3600)
    register(node, daemon)
    settled(node, daemon)
    node.stop()
    eventually(lambda: "old, the limit is" in why_not(daemon))
    assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
    node.start()
    daemon.ready()


def test_told_to_stop_while_the_chain_hangs(node: LiveNode, start: START) -> None:
    daemon = start()
    register(node, daemon)
    node.fault = "hang"
    daemon.start()
    eventually(lambda: why_not(daemon) == "reading the chain")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
