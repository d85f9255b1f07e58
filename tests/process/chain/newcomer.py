"""Whoever begins: the subnet's own settings file, a wallet, a model; around them a chain, a hub and NATIX's server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from pathlib import Path
from typing import TypeVar

from bittensor import Wallet
from dotenv import dotenv_values

from tests.hub import Hub
from tests.hub import serving as serving_hub
from tests.natix import Natix
from tests.natix import serving as serving_natix
from tests.process.chain.checkup import Prober, probing
from tests.process.chain.live_node import EXTERNAL_IP, NETUID, OWN_UID, VALIDATOR_UID, LiveNode
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import probability_of
from tests.process.wire import Door, Signer
from tests.stored_vit import write_stored_vit

REPOSITORY, TOKEN = "you/roadwork", "hf_written"
# As the subnet's guide has it, but for the addresses, which are on this machine.
SETTINGS = """\
# StreetVision Miner Configuration
IMAGE_DETECTOR=ViT
IMAGE_DETECTOR_CONFIG={config}
VIDEO_DETECTOR=TALL
VIDEO_DETECTOR_CONFIG=tall.yaml

# Device Settings
IMAGE_DETECTOR_DEVICE=cpu # Options: cpu, cuda
VIDEO_DETECTOR_DEVICE=cpu

NETUID={netuid}                           # 323 for testnet, 72 for mainnet
SUBTENSOR_NETWORK=test               # Networks: finney, test, local
SUBTENSOR_CHAIN_ENDPOINT={chain}
                                     # Endpoints:
                                     # - wss://entrypoint-finney.opentensor.ai:443

# Wallet Configuration
WALLET_NAME=mine
WALLET_HOTKEY=hot

# Miner Settings
MINER_AXON_PORT={port}
BLACKLIST_FORCE_VALIDATOR_PERMIT=True # Force validator permit for blacklisting

# Miner details
MODEL_URL= # The URL to your Hugging-face repository
PROXY_CLIENT_URL=https://hydra.natix.network

AXON_EXTERNAL_IP={ip}
NATIX_URL={natix}
WALLET_PATH={wallets}
"""


@dataclass
class Newcomer:
    """An operator with a folder of their own, and what answers there."""

    folder: Path
    node: LiveNode
    hub: Hub
    natix: Natix
    prober: Prober

    def __post_init__(self) -> None:
        self.settings = self.folder / "miner.env"
        self.wallets = self.folder / "wallets"
        self.run1 = write_stored_vit(self.folder / "run1")
        self.config = self.folder / "mine.yaml"
        self.config.write_text(f"hf_repo: {REPOSITORY}\n")
        home = {"HOME": self.folder, "HF_ENDPOINT": self.hub.url, "HF_HOME": self.folder / "hf", "HF_HUB_OFFLINE": 0}
        self.daemon = Daemon(self.folder, {"env_file": self.settings, "MINER_AXON_HOST": "0.0.0.0"} | home)
        self.settings.write_text(
            SETTINGS.format(
                config=self.config, netuid=NETUID, chain=self.node.url, port=self.daemon.port, ip=EXTERNAL_IP,
                natix=self.natix.url, wallets=self.wallets,
            )
        )  # fmt: skip

    @cached_property
    def wallet(self) -> Wallet:
        """The wallet, made by btcli with the command of the README."""
        self._call(
            Path(sys.executable).with_name("btcli"), "wallet", "new-hotkey", "--wallet", "mine",
            "--wallet-hotkey", "hot", "--wallet-path", self.wallets,
        )  # fmt: skip
        return Wallet("mine", "hot", str(self.wallets))

    @property
    def hotkey(self) -> str:
        return str(self.wallet.hotkey.ss58_address)

    @property
    def validator(self) -> Signer:
        """Whoever asks, with a permit on the chain."""
        return self.daemon.signer(self.daemon.keys.validator, self.wallet)

    @property
    def url(self) -> str:
        """The published model's page, as the settings have it by now."""
        return str(dotenv_values(self.settings)["MODEL_URL"])

    def call(self, *words: object, code: int = 0, **more: str) -> str:
        """Run a command of ours in the operator's folder and return what it prints."""
        return self._call(*self.daemon.command, *words, code=code, **more)

    def _call(self, *words: object, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [str(word) for word in words], env=self.daemon.environment | more, cwd=self.folder,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def checkup(self) -> tuple[str, dict[str, str]]:
        """Return doctor's verdict, and the level of each finding."""
        code = 0 if self.node.members.get(OWN_UID) else 1
        told = json.loads(self.call("doctor", "--json", "--probe", self.prober.url, code=code))
        return told["verdict"], {one["name"]: one["level"] for one in told["findings"]}

    def pay_for_a_uid(self) -> None:
        """Register on the chain, as `btcli subnet register` does where the coldkey is; the subnet has a validator."""
        self.node.register(OWN_UID, self.hotkey, incentive=100)
        validator = self.daemon.keys.validator.hotkey.ss58_address
        self.node.register(VALIDATOR_UID, validator, permit=True, last_update=self.node.block)


AnyNewcomer = TypeVar("AnyNewcomer", bound=Newcomer)


@contextmanager
def arriving(kind: type[AnyNewcomer], folder: Path, node: LiveNode) -> Iterator[AnyNewcomer]:
    """Have somebody begin in a folder, with a hub, NATIX's server and somebody outside."""
    with ExitStack() as stack:
        hub = stack.enter_context(serving_hub(Hub({}, repository=REPOSITORY, exists=False, token=TOKEN)))
        natix = stack.enter_context(serving_natix(Natix()))
        newcomer = kind(folder, node, hub, natix, stack.enter_context(probing()))
        stack.callback(newcomer.daemon.close)
        yield newcomer


def begin(newcomer: Newcomer) -> None:
    """Go by the README until the miner can be started: published, registered with the chain and with NATIX."""
    hotkey = newcomer.hotkey
    _, levels = newcomer.checkup()
    assert levels["hotkey"] == levels["pay"] == "ok"
    assert levels["registration"] == levels["published"] == "problem"

    newcomer.call("publish", "run1", "--repo", REPOSITORY, "--license", "mit", "--set-env", HF_TOKEN=TOKEN)
    assert json.loads(newcomer.hub.files["model_card.json"])["submitted_by"] == hotkey
    assert newcomer.url.endswith(REPOSITORY)

    newcomer.pay_for_a_uid()
    newcomer.call("register")
    (sent,) = newcomer.natix.registered
    assert (sent["uid"], sent["natix_public_key"], sent["model_repo"]) == (str(OWN_UID), hotkey, REPOSITORY)
    newcomer.call("models", "download")


def earn(newcomer: Newcomer, street: bytes) -> None:
    """See the miner that was started be found, asked and paid, and the check-up content."""
    daemon, hotkey = newcomer.daemon, newcomer.hotkey
    eventually(lambda: daemon.status("/readyz") == 200)
    eventually(lambda: hotkey in newcomer.node.axons)
    answer = daemon.post(newcomer.validator.sign(street, Door()))
    assert probability_of(answer) >= 0
    assert newcomer.url in answer.text

    eventually(lambda: daemon.metric("chain_published") == 1)
    eventually(lambda: (daemon.page("/status").json()["earnings"]["keys"] or [{}])[0].get("alpha_per_day"))
    assert f"yes, uid {OWN_UID}" in unescape(daemon.page("/").text)
    verdict, levels = newcomer.checkup()
    assert "problem" not in levels.values(), verdict
    assert {level for name, level in levels.items() if name in {"pay", "natix", "published", "registration"}} == {"ok"}
    print(verdict)
