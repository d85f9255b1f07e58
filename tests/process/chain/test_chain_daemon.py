"""A life on chain: registered, published, permitted."""

from miner.errors import MESSAGES
from tests.process.chain.live_node import NETUID, OWN_UID, PEER_UID, SUBMIT, VALIDATOR_UID, LiveNode
from tests.process.chain.scene import START, published, register, syncs_again, why_not
from tests.process.daemon import eventually
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS, Door

STATES = ("ready", "chain_uid", "chain_registered", "chain_published")


def test_a_life_from_unregistered_to_deregistered(node: LiveNode, start: START, street: bytes) -> None:
    daemon = start()
    register(node, daemon, own=False)
    hotkey = daemon.keys.miner.hotkey.ss58_address
    daemon.start()
    command = f"btcli subnet register --netuid {NETUID} --wallet standalone --hotkey {hotkey} --network YOUR_ENDPOINT"
    assert eventually(lambda: command in why_not(daemon))
    assert daemon.status("/healthz") == 200
    assert daemon.status("/readyz") == 503
    eventually(lambda: "not ready (hotkey" in daemon.log)  # the port of the validators is open
    assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
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
    assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
    assert not daemon.ended
    eventually(lambda: "deregistered; " in daemon.log)

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
        "PUBLISH_METRICS": "true",
    }
    daemon.start().ready()
    assert "minimum of 100" in message_of(daemon.ask(street), 403)
    assert probability_of(daemon.post(daemon.signer(keys.stranger).sign(street, Door()))) >= 0
    assert "not welcome" in message_of(daemon.post(daemon.signer(keys.peer).sign(street, Door())), 403)
    node.members[VALIDATOR_UID].stake = 100.0
    syncs_again(node, daemon)
    assert probability_of(daemon.ask(street)) >= 0
    record = eventually(lambda: node.prometheus.get(keys.miner.hotkey.ss58_address))
    assert (record["ip"], record["port"]) == (0x01020304, daemon.status_port)
    eventually(lambda: "PUBLISH_METRICS publishes a port" in daemon.log)
