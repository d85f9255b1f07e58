"""The miner that is asked: one started for the occasion, or one that runs."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from miner.axon.caller import Wire
from miner.axon.client import Client
from miner.chain.standalone import own_wallet as standalone_wallet
from miner.chain.standalone import standalone_file
from miner.chain.wallet import load_hotkey
from miner.errors import ConfigurationError
from miner.identities import own_wallet
from miner.settings.settings import Settings, environment_of
from miner.simulate.keys import make_known, throwaway_keys

if TYPE_CHECKING:
    from bittensor import Wallet

WIRES: dict[str, tuple[Wire, ...]] = {
    "dendrite": ("dendrite",),
    "btauth": ("btauth",),
    "both": ("dendrite", "btauth"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A miner's address (`http://host:port`) and hotkey, and who asks it."""

    address: str
    hotkey: str
    wallets: Sequence["Wallet"]

    def clients(self, wires: Sequence[Wire], timeout: float) -> list[Client]:
        """Return a client for each validator; the wires take turns."""
        pairs = zip(self.wallets, cycle(wires), strict=False)
        return [Client(wallet, self.hotkey, self.address, wire, timeout) for wallet, wire in pairs]


@contextmanager
def own_miner(settings: Settings, validators: int) -> Iterator[Target]:
    """Start a miner with the configured model and rules, without a chain, that knows the validators; end it after.

    Raises:
        CouldNotStart: it does not start.
    """
    from miner.bench.process import MinerProcess

    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        wallets = throwaway_keys(state, validators)
        make_known(standalone_file(state), standalone_wallet(state, "miner").hotkey.ss58_address, wallets)
        with MinerProcess(state, ["RECORDER=off"], environment_of(settings)) as miner:
            miner.wait_until_it_listens()
            yield Target(miner.address, miner.hotkey, wallets)


def running_miner(
    settings: Settings, address: str, hotkey: str | None, names: Sequence[str], validators: int
) -> tuple[Target, bool]:
    """Return a miner that runs, and whether it was only now told of the validators.

    Its hotkey is this machine's if none is given. Validators sign with the wallets named, in turn; else with throwaway
    keys, which are written into the file of a standalone miner of this machine.

    Raises:
        ConfigurationError: the address or a wallet is wrong.
    """
    own = own_wallet(settings).hotkey.ss58_address if hotkey is None or settings.is_standalone else ""
    url = _url(address, settings.miner_axon_port)
    if names:
        pairs = [name.partition("/") for name in names]
        loaded = [load_hotkey(settings.wallet_path, name, key or "default") for name, _, key in pairs]
        return Target(url, hotkey or own, list(islice(cycle(loaded), validators))), False
    wallets = throwaway_keys(settings.state_dir, validators)
    told = False
    if settings.is_standalone and hotkey in (None, own):
        told = make_known(settings.standalone_file or standalone_file(settings.state_dir), own, wallets)
    return Target(url, hotkey or own, wallets), told


def _url(address: str, port: int) -> str:
    """Return the URL of `host`, `host:port` or `[host]:port`."""
    host, colon, given = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, given = address, str(port)
    if not host or not given.isdecimal() or not 0 < int(given) < 65536:
        raise ConfigurationError(f"--address={address}: HOST or HOST:PORT is allowed")
    return f"http://{host}:{given}"
