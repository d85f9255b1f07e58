"""A living chain, miners on it, and somebody outside."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from miner.natix.publication import NATIX_CARD, natix_card
from miner.natix.registration import Registration, Registrations
from tests.hub import Hub, serving
from tests.process.chain.checkup import Setup, probing
from tests.process.chain.live_node import EXTERNAL_IP, NETUID, OWN_UID, SECRETS, VALIDATOR_UID, LiveNode, healthy_node
from tests.process.chain.scene import START
from tests.process.daemon import Daemon, eventually


@pytest.fixture
def node() -> Iterator[LiveNode]:
    node = healthy_node()
    yield node
    if node.listens:
        node.stop()


@contextmanager
def miners(node: LiveNode, folder: Path, model: str) -> Iterator[START]:
    """Start miners on the node that share wallet and state, one after the other; see them end as they should."""
    started: list[Daemon] = []

    def make(**settings: object) -> Daemon:
        values: dict[str, Any] = {
            "SUBTENSOR_NETWORK": node.url, "NETUID": NETUID, "CHAIN_SYNC_SECONDS": 0.2,
            "WALLET_PATH": folder / "state" / "wallets", "WALLET_NAME": "standalone", "WALLET_HOTKEY": "miner",
            "AXON_EXTERNAL_IP": EXTERNAL_IP, "AXON_EXTERNAL_PORT": 8091,
            "IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1,
        } | settings  # fmt: skip
        started.append(Daemon(folder, values))
        return started[-1]

    yield make
    try:
        for daemon in started:
            if not daemon.ended:
                assert daemon.stop() == 0, daemon.log
            assert "Traceback" not in daemon.log, daemon.log
            assert not any(secret in daemon.log for secret in SECRETS), daemon.log
    finally:
        for daemon in started:
            daemon.close()


@pytest.fixture
def start(node: LiveNode, tmp_path: Path, model: str) -> Iterator[START]:
    with miners(node, tmp_path, model) as start:
        yield start


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, street: bytes, model: str) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("doctor")
    with ExitStack() as stack:
        prober = stack.enter_context(probing())
        node = healthy_node()
        stack.callback(node.stop)
        hub = stack.enter_context(serving(Hub({}, repository="you/roadwork")))
        daemon = Daemon(
            folder,
            {
                "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": 0, "MODEL_URL": "https://huggingface.co/you/roadwork",
                "SUBTENSOR_NETWORK": node.url, "NETUID": NETUID, "CHAIN_SYNC_SECONDS": 0.2,
                "WALLET_PATH": folder / "state" / "wallets", "WALLET_NAME": "standalone", "WALLET_HOTKEY": "miner",
                "AXON_EXTERNAL_IP": EXTERNAL_IP, "MINER_AXON_HOST": "0.0.0.0",
                "INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1,
                "IMAGE_DETECTOR_CONFIG": model,
            },
        )  # fmt: skip
        stack.callback(daemon.close)
        node.register(OWN_UID, daemon.keys.miner.hotkey.ss58_address, incentive=100)
        natix = Registration(progress="succeeded", netuid=NETUID, uid=OWN_UID, sent=1.0, since=1.0, at=1.0)
        Registrations(daemon.state).keep(daemon.keys.miner.hotkey.ss58_address, natix)
        card = natix_card("roadwork", "of a test", "1.0.0", daemon.keys.miner.hotkey.ss58_address)
        hub.files = {NATIX_CARD: card.model_dump_json().encode()}
        validator = daemon.keys.validator.hotkey.ss58_address
        node.register(VALIDATOR_UID, validator, permit=True, last_update=node.block)
        daemon.start().ready()
        assert daemon.ask(street).status_code == 200
        eventually(lambda: daemon.metric("chain_published") == 1)
        yield Setup(node, daemon, prober)
        assert daemon.stop() == 0


@pytest.fixture
def planted(setup: Setup) -> Iterator[Setup]:
    """Put the chain back as it was."""
    node, own = setup.node, setup.daemon.keys.miner.hotkey.ss58_address
    members = {uid: vars(member).copy() for uid, member in node.members.items()}
    record = node.axons[own].copy()
    yield setup
    node.clock_ahead, node.fault, setup.prober.open = 0.0, "", True
    setup.prober.status = 200
    for uid, before in members.items():
        if uid not in node.members:
            node.register(uid, own)
        vars(node.members[uid]).update(before)
    node.axons[own] = record
    node.store("ServingRateLimit", [NETUID], node.rate_limit)
    for item in ("ActivityCutoff", "MinerBurned"):
        node.store(item, [NETUID], None)
    setup.daemon.ready()
