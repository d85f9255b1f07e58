"""A whole miner on a chain of its own: registered, published, permitted, and the chain in all its moods."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.daemon import Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.live_node import EXTERNAL_IP, NETUID, SUBMIT, LiveNode, healthy_node
from tests.process.wire import DOORS, Door

OWN_UID, VALIDATOR_UID, PEER_UID = 7, 8, 9
STATES = ("ready", "chain_uid", "chain_registered", "chain_published")
START = Callable[..., Daemon]


@pytest.fixture
def node() -> Iterator[LiveNode]:
    node = healthy_node()
    yield node
    if node.listens:
        node.stop()


@pytest.fixture
def start(node: LiveNode, tmp_path: Path, model: str) -> Iterator[START]:
    """Start miners on the node that share wallet and state, one after the other."""
    started: list[Daemon] = []

    def make(**settings: object) -> Daemon:
        values: dict[str, Any] = {
            "SUBTENSOR_NETWORK": node.url, "NETUID": NETUID, "CHAIN_SYNC_SECONDS": 0.2,
            "WALLET_PATH": tmp_path / "state" / "wallets", "WALLET_NAME": "standalone", "WALLET_HOTKEY": "miner",
            "AXON_EXTERNAL_IP": EXTERNAL_IP, "AXON_EXTERNAL_PORT": 8091,
            "IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1,
        } | settings  # fmt: skip
        started.append(Daemon(tmp_path, values))
        return started[-1]

    yield make
    try:
        for daemon in started:
            if not daemon.ended:
                assert daemon.stop() == 0, daemon.log
            assert "Traceback" not in daemon.log, daemon.log
    finally:
        for daemon in started:
            daemon.close()


def register(node: LiveNode, daemon: Daemon, *, own: bool = True) -> None:
    """Put the daemon's hotkey and its validators on the chain."""
    if own:
        node.register(OWN_UID, daemon.keys.miner.hotkey.ss58_address, incentive=100)
    node.register(VALIDATOR_UID, daemon.keys.validator.hotkey.ss58_address, permit=True, last_update=node.block)
    node.register(PEER_UID, daemon.keys.peer.hotkey.ss58_address)


def why_not(daemon: Daemon) -> str:
    """Return what /readyz says, `ready` when it is, "" when nobody listens."""
    try:
        answer = daemon.page("/readyz").json()
    except httpx.TransportError:
        return ""
    return "ready" if answer["ready"] else str(answer["reason"])


def published(node: LiveNode, daemon: Daemon) -> tuple[int, int]:
    record = node.axons.get(daemon.keys.miner.hotkey.ss58_address, {"ip": 0, "port": 0})
    return record["ip"], record["port"]


def syncs_again(node: LiveNode, daemon: Daemon) -> None:
    """Wait until the daemon has seen a block that is not there yet."""
    node.block += 1
    eventually(lambda: daemon.metric("chain_block") >= node.block)


def test_a_life_from_unregistered_to_deregistered(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    register(node, daemon, own=False)
    hotkey = daemon.keys.miner.hotkey.ss58_address
    daemon.start()
    command = f"btcli subnet register --netuid {NETUID} --wallet standalone --hotkey {hotkey} --network {node.url}"
    assert eventually(lambda: command in why_not(daemon))
    assert daemon.status("/healthz") == 200
    assert daemon.status("/readyz") == 503
    eventually(lambda: "not ready (hotkey" in daemon.log)  # the port of the validators is open
    assert message_of(daemon.ask(street), 503) == "the miner is not ready"
    assert [daemon.metric(name) for name in STATES] == [0, -1, 0, 0]
    assert node.requests[SUBMIT] == 0

    node.register(OWN_UID, hotkey)
    daemon.ready()
    assert probability_of(daemon.ask(street)) >= 0
    eventually(lambda: daemon.metric("chain_published") == 1)
    assert [daemon.metric(name) for name in STATES] == [1, OWN_UID, 1, 1]
    assert published(node, daemon) == (0x01020304, 8091)

    node.deregister(OWN_UID)
    eventually(lambda: command in why_not(daemon))
    assert [daemon.metric(name) for name in STATES] == [0, -1, 0, 0]
    assert daemon.outcomes()["ok"] == 1, "the metrics outlive the registration"
    assert message_of(daemon.ask(street), 503) == "the miner is not ready"
    assert not daemon.ended
    assert "deregistered; nobody has our uid 7 yet" in daemon.log

    node.register(OWN_UID + 10, hotkey)
    daemon.ready()
    assert probability_of(daemon.ask(street)) >= 0


def test_published_once_and_after_a_change_of_address_when_the_chain_allows(node: LiveNode, start: START) -> None:
    first = start()
    register(node, first)
    first.start().ready()
    eventually(lambda: first.metric("chain_published") == 1)
    assert first.stop() == 0
    again = start().start().ready()
    eventually(lambda: again.metric("chain_published") == 1)
    syncs_again(node, again)
    assert node.requests[SUBMIT] == 1
    assert again.stop() == 0

    moved = start(AXON_EXTERNAL_IP="5.6.7.8").start().ready()
    eventually(lambda: "not published: rate limited" in moved.log)
    syncs_again(node, moved)
    assert moved.metric("chain_published") == 0
    assert published(node, moved) == (0x01020304, 8091)
    assert node.requests[SUBMIT] == 1, "the limit is read, not tried out"
    node.block += node.rate_limit
    eventually(lambda: moved.metric("chain_published") == 1)
    assert published(node, moved) == (0x05060708, 8091)
    assert node.requests[SUBMIT] == 2


def test_who_is_answered_follows_the_chain(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    register(node, daemon)
    daemon.start().ready()
    stranger, peer = daemon.signer(daemon.keys.stranger), daemon.signer(daemon.keys.peer)
    for door in DOORS:
        assert probability_of(daemon.ask(street, door)) >= 0
        assert "not registered" in message_of(daemon.post(stranger.sign(street, door)), 403)
        assert "no validator permit" in message_of(daemon.post(peer.sign(street, door)), 403)

    node.members[VALIDATOR_UID].permit = False
    node.members[PEER_UID].permit = True
    syncs_again(node, daemon)
    for door in DOORS:
        assert "no validator permit" in message_of(daemon.ask(street, door), 403)
        assert probability_of(daemon.post(peer.sign(street, door))) >= 0
    assert daemon.outcomes() == {"ok": 8, "forbidden": 12}


def test_the_operators_rules_hold(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    keys = daemon.keys
    register(node, daemon)
    node.members[VALIDATOR_UID].stake = 99.0
    daemon.settings |= {
        "BLACKLIST_MIN_STAKE": 100,
        "BLACKLIST_ALLOW_HOTKEYS": f"{keys.stranger.hotkey.ss58_address}, {keys.peer.hotkey.ss58_address}",
        "BLACKLIST_DENY_HOTKEYS": keys.peer.hotkey.ss58_address,
    }
    daemon.start().ready()
    assert "below this miner's minimum of 100" in message_of(daemon.ask(street), 403)
    assert probability_of(daemon.post(daemon.signer(keys.stranger).sign(street, Door()))) >= 0
    assert "not welcome" in message_of(daemon.post(daemon.signer(keys.peer).sign(street, Door())), 403)
    node.members[VALIDATOR_UID].stake = 100.0
    syncs_again(node, daemon)
    assert probability_of(daemon.ask(street)) >= 0


@pytest.mark.parametrize("mood", ["garbage", "noise", "away"])
def test_a_broken_node_costs_freshness_only(node: LiveNode, start: START, street: bytes, mood: str) -> None:
    daemon = start()
    register(node, daemon)
    daemon.start().ready()
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
    daemon.start().ready()
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
    first.start().ready()
    eventually(lambda: first.metric("chain_published") == 1)
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
    daemon.start().ready()
    node.stop()
    eventually(lambda: "old, the limit is" in why_not(daemon))
    assert message_of(daemon.ask(street), 503) == "the miner is not ready"
    node.start()
    daemon.ready()


def test_a_stored_snapshot_that_is_damaged_stops_nothing(node: LiveNode, start: START) -> None:
    daemon = start()
    register(node, daemon)
    daemon.start().ready()
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


def keeps_answering(daemon: Daemon, street: bytes) -> None:
    """Known validators are answered, strangers are not, and the operator's port says ready."""
    assert why_not(daemon) == "ready"
    assert daemon.metric("ready") == 1
    assert probability_of(daemon.ask(street)) >= 0
    stranger = daemon.signer(daemon.keys.stranger)
    assert "not registered" in message_of(daemon.post(stranger.sign(street, Door())), 403)
