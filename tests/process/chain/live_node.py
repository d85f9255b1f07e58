"""The test chain's node with what a living chain has besides: a clock, and pay."""

import time
from dataclasses import dataclass
from typing import Any

from bittensor.keyfiles import Keypair

from tests.chain.golden import golden
from tests.chain.ledger import Member
from tests.chain.node import Node

NETUID = 323
OWN_UID, VALIDATOR_UID, PEER_UID = 7, 8, 9
SHARES = 65535  # the chain's 1.0
EXTERNAL_IP = "1.2.3.4"
SUBMIT = "author_submitAndWatchExtrinsic"
SECRETS = ("hunter2pw", "APIKEY123")  # in every daemon's endpoint, and nobody else's business


def address_of(number: int) -> str:
    return str(Keypair.create_from_seed(number.to_bytes(32, "big"), 1).ss58_address)


@dataclass
class LiveNode(Node):
    """A node whose blocks carry the time and advance with each look at the neurons, who are paid by their incentive."""

    clock_ahead: float = 0.0  # seconds
    rate_limit: int = 10**6  # blocks: more than a test looks at

    @property
    def url(self) -> str:
        """As a provider of nodes gives it out."""
        password, key = SECRETS
        return f"ws://alice:{password}@127.0.0.1:{self.port}/{key}"

    def values(self) -> dict[str, str]:
        now = int((time.time() + self.clock_ahead) * 1000)
        return super().values() | {self.key("Timestamp", "Now", []): "0x" + now.to_bytes(8, "little").hex()}

    def _call(self, api: str, argument: str) -> str | None:
        if api.startswith("NeuronInfo"):
            self.block += 1
        return super()._call(api, argument)

    def neuron(self, uid: int, member: Member) -> dict[str, Any]:
        return super().neuron(uid, member) | {"emission": member.emission or member.incentive * 1000}


def healthy_node() -> LiveNode:
    """Return a running node whose subnet has an owner, a validator and two miners that earn."""
    node = LiveNode(golden(), netuid=NETUID)
    owner, validator, *miners = (address_of(number) for number in (2000, 2001, 2002, 2003))
    node.register(0, owner)
    node.register(1, validator, stake=9000.0, permit=True, last_update=node.block)
    for uid, miner in enumerate(miners, start=2):
        node.register(uid, miner, incentive=SHARES // 3)
    node.store("SubnetOwnerHotkey", [NETUID], owner)
    node.store("SubnetOwner", [NETUID], owner)
    node.store("NetworkRegisteredAt", [NETUID], 500)
    node.store("Burn", [NETUID], 5 * 10**8)
    node.name("StreetVision")
    node.store("ServingRateLimit", [NETUID], node.rate_limit)
    node.start()
    return node
