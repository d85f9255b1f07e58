"""What the scenes on a chain have in common."""

from collections.abc import Callable
from html import unescape

import httpx

from tests.process.chain.live_node import OWN_UID, PEER_UID, VALIDATOR_UID, LiveNode
from tests.process.daemon import Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.wire import Door

START = Callable[..., Daemon]


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


def of_chain(daemon: Daemon) -> tuple[float, list[str]]:
    """Return how old its picture of the chain is, and what /readyz, /status and the page say of it."""
    ready, status = daemon.page("/readyz").json()["chain"], daemon.page("/status").json()["chain"]
    return ready["age_seconds"], [str(ready["fault"]), str(status["fault"]), unescape(daemon.page("/").text)]


def published(node: LiveNode, daemon: Daemon) -> tuple[int, int]:
    record = node.axons.get(daemon.keys.miner.hotkey.ss58_address, {"ip": 0, "port": 0})
    return record["ip"], record["port"]


def syncs_again(node: LiveNode, daemon: Daemon) -> None:
    """Wait until the daemon has seen a block that is not there yet."""
    with node.lock:
        node.block += 1
        unseen = node.block
    eventually(lambda: daemon.metric("chain_block") >= unseen)


def settled(node: LiveNode, daemon: Daemon) -> None:
    """Start it and wait until it is ready, published, and has seen that it is."""
    daemon.start().ready()
    eventually(lambda: daemon.metric("chain_published") == 1)
    syncs_again(node, daemon)


def keeps_answering(daemon: Daemon, street: bytes) -> None:
    """Known validators are answered, strangers are not, and the operator's port says ready."""
    assert why_not(daemon) == "ready"
    assert daemon.metric("ready") == 1
    assert probability_of(daemon.ask(street)) >= 0
    stranger = daemon.signer(daemon.keys.stranger)
    assert "not registered" in message_of(daemon.post(stranger.sign(street, Door())), 403)
