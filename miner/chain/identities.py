"""The identities that are served: each hotkey with its wallet, uid and port; one model for all."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from miner.chain.base import Chain
from miner.errors import ConfigurationError, StartError
from miner.settings.addresses import PUBLIC_NETWORKS
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from bittensor import Wallet

    from miner.chain.market import Market

log = logging.getLogger(__name__)

MARKET_SYNCS = 5  # what a subnet pays changes once a tempo, of 72 minutes: one read for so many of the neurons


@dataclass(slots=True)
class Identity:
    """One hotkey; what is wrong with it leaves the others serving."""

    settings: Settings  # as if it were alone
    hotkey: str = ""  # its ss58 address; empty: it could not be read
    wallet: "Wallet | None" = None  # None: without a chain nothing is signed
    chain: Chain | None = None
    market: "Market | None" = None  # of the subnet, the same for all; None: without a chain
    fault: str | None = None  # of its key or its port

    @property
    def name(self) -> str:
        """The hotkey's name in its wallet."""
        return self.settings.wallet_hotkey

    @property
    def obstacle(self) -> str | None:
        """Why its validators are not answered, or None."""
        return self.fault or (self.chain.obstacle if self.chain is not None else "the chain is not read yet")


def open_identities(settings: Settings) -> list[Identity]:
    """Open each hotkey's file; blocks while an encrypted one is opened.

    Raises:
        StartError: none of them can be served; of several, one that can't be is left out and said.
    """
    identities = [Identity(one) for one in settings.each_key()]
    taken: dict[str, str] = {}  # address -> name
    for identity in identities:
        try:
            address, wallet = own_key(identity.settings)
        except StartError as error:
            if len(identities) == 1:
                raise
            leave_out(identity, str(error))
            continue
        if address in taken:
            leave_out(identity, f"WALLET_HOTKEYS: {identity.name} is the same key as {taken[address]}")
        else:
            taken[address] = identity.name
            identity.hotkey, identity.wallet = address, wallet
    if not taken:
        raise ConfigurationError("\n".join(identity.fault or "" for identity in identities))
    return identities


def leave_out(identity: Identity, fault: str) -> None:
    """Go on without this hotkey."""
    identity.fault = fault
    log.error("hotkey %s is not served: %s", identity.name, fault)


def in_words(identities: list[Identity]) -> str | None:
    """Return why no validator at all is answered, or None; one hotkey that serves is enough to be ready."""
    obstacles = [identity.obstacle for identity in identities]
    if None in obstacles:
        return None
    if len(identities) == 1:
        return obstacles[0]
    return "; ".join(f"{identity.name}: {obstacle}" for identity, obstacle in zip(identities, obstacles, strict=True))


def own_key(settings: Settings) -> tuple[str, "Wallet | None"]:
    """Return the address and the wallet of the miner's hotkey; without a chain the address alone, which is quick.

    Raises:
        StartError: there is no such key, or it can't sign.
    """
    if settings.is_standalone:
        from miner.chain import standalone

        return standalone.own_hotkey(settings.state_dir, _role(settings)), None
    wallet = own_wallet(settings)
    return wallet.hotkey.ss58_address, wallet


def own_wallet(settings: Settings) -> "Wallet":
    """Return the miner's wallet: a throwaway one in standalone mode, for each name of a hotkey.

    Raises:
        StartError: there is none, or it can't sign.
    """
    if settings.is_standalone:
        from miner.chain import standalone

        return standalone.own_wallet(settings.state_dir, _role(settings))
    from miner.chain.wallet import load_hotkey

    return load_hotkey(
        settings.wallet_path,
        settings.wallet_name,
        settings.wallet_hotkey,
        settings.wallet_hotkey_password_file,
        settings.wallet_hotkey_file,
    )


def _role(settings: Settings) -> str:
    name = settings.wallet_hotkey
    return "miner" if name == "default" else f"miner-{name}"


def find_places_on_chain(settings: Settings, identities: list[Identity]) -> None:
    """Give each hotkey its side of the chain that the settings name; they share one connection and one snapshot."""
    if settings.is_standalone:
        from miner.chain.standalone import StandaloneChain, standalone_file

        path = settings.standalone_file or standalone_file(settings.state_dir)
        for identity in identities:
            if identity.hotkey:
                identity.chain = StandaloneChain(path, identity.hotkey)
        return
    from miner.chain.market import Market, MarketMemory
    from miner.chain.publication import PublicAddress as PublishedAxon
    from miner.chain.subtensor import SubtensorChain
    from miner.chain.sync import SnapshotStore, SubnetReader

    reader = SubnetReader(
        settings.chain_address,
        settings.netuid,
        settings.state_dir,
        sync_seconds=settings.chain_sync_seconds,
        max_age_seconds=settings.chain_max_age_hours * 3600,
    )
    store = SnapshotStore(settings.state_dir, settings.chain_address, settings.netuid)
    market = Market(reader, MarketMemory.beside(store), settings.chain_sync_seconds * MARKET_SYNCS)
    for identity in identities:
        if identity.wallet is not None:
            own = identity.settings
            axon = PublishedAxon(
                own.axon_external_port or own.miner_axon_port,
                ip=settings.axon_external_ip or None,
                host=settings.miner_axon_host,
                own_chain=settings.subtensor_network not in PUBLIC_NETWORKS,
                metrics_port=settings.status_port if settings.publish_metrics else None,
            )
            identity.chain = SubtensorChain(reader, identity.wallet, axon, market=market)
            identity.market = market
