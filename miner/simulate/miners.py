"""The miner under simulation, started for the occasion or running; and the keys of its validators."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from miner.axon.client import Client
from miner.chain.identities import own_wallet
from miner.chain.standalone import own_wallet as throwaway_wallet
from miner.chain.standalone import read_file, standalone_file
from miner.chain.wallet import load_hotkey
from miner.errors import ConfigurationError, CouldNotStart
from miner.recorder.records import Wire
from miner.settings.settings import Settings, environment_of

if TYPE_CHECKING:
    from bittensor import Wallet

VALIDATOR_STAKE = 1000
RELOAD_SECONDS = 30.0  # seconds for a running miner to read its file again
LOOK_SECONDS = 0.25
CONNECTIONS_EACH = 16  # of a validator whose requests wait

WIRES: dict[str, tuple[Wire, ...]] = {
    "dendrite": ("dendrite",),
    "btauth": ("btauth",),
    "both": ("dendrite", "btauth"),
}


def throwaway_keys(state_dir: Path, count: int) -> list["Wallet"]:
    """Return validators' keys of a state folder, made on first use; the first is the one `query` signs with."""
    return [
        throwaway_wallet(state_dir, "validator" if number == 0 else f"validator-{number + 1}")
        for number in range(count)
    ]


def make_known(file: Path, own_hotkey: str, wallets: Sequence["Wallet"]) -> bool:
    """Write the validators into a standalone miner's file, where they are not yet; return whether any was missing.

    What is in the file stays as it is, comments too: new lines are added to the end of its list.

    Raises:
        ConfigurationError: the file is wrong, or so written that nothing can be added.
    """
    known = read_file(file, own_hotkey).neurons
    missing = [wallet.hotkey.ss58_address for wallet in wallets if wallet.hotkey.ss58_address not in known]
    if not missing:
        return False
    text = file.read_text(encoding="utf-8")
    items = [line for line in text.splitlines() if line.lstrip().startswith("- ")]
    indent = items[-1][: len(items[-1]) - len(items[-1].lstrip())] if items else "  "
    lines = "".join(f"{indent}- {{hotkey: {hotkey}, stake: {VALIDATOR_STAKE}}}  # of simulate\n" for hotkey in missing)
    partial = file.with_suffix(".partial")
    partial.write_text(text + ("" if text.endswith("\n") else "\n") + lines, encoding="utf-8")
    try:
        read_file(partial, own_hotkey)
    except ConfigurationError as error:
        partial.unlink()
        raise ConfigurationError(f"STANDALONE_FILE={file}: add these to its list by hand:\n{lines.rstrip()}") from error
    partial.replace(file)
    return True


async def wait_until_known(clients: Sequence[Client]) -> None:
    """Wait until a running miner has read its file again: it answers 403 to whom it doesn't know.

    Raises:
        CouldNotStart: it does not read it.
    """
    deadline = time.monotonic() + RELOAD_SECONDS
    for client in clients:
        while (reply := await client.ask(b"")).status == 403:
            if time.monotonic() > deadline:
                raise CouldNotStart(f"the miner refuses {client.wallet.hotkey.ss58_address}: {reply.message}")
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class SimulatedMiner:
    """A miner's address (`http://host:port`) and hotkey, and who asks it."""

    address: str
    hotkey: str
    wallets: Sequence["Wallet"]

    def clients(self, wires: Sequence[Wire], timeout: float) -> list[Client]:
        """Return a client for each validator; the wires take turns."""
        pairs = zip(self.wallets, cycle(wires), strict=False)
        return [Client(wallet, self.hotkey, self.address, wire, timeout) for wallet, wire in pairs]


@contextmanager
def own_miner(settings: Settings, validators: int) -> Iterator[SimulatedMiner]:
    """Start a miner with the configured model and rules, without a chain, that knows the validators; end it after.

    Raises:
        CouldNotStart: it does not start.
    """
    with tempfile.TemporaryDirectory() as folder, miner_at(Path(folder), settings, validators, "RECORDER=off") as miner:
        yield miner


@contextmanager
def miner_at(state: Path, settings: Settings, validators: int, *assignments: str) -> Iterator[SimulatedMiner]:
    """Start one on a state folder, with these settings before all others; a second time its keys are the same.

    Raises:
        CouldNotStart: it does not start.
    """
    from miner.bench.daemon import MinerProcess

    wallets = throwaway_keys(state, validators)
    make_known(standalone_file(state), throwaway_wallet(state, "miner").hotkey.ss58_address, wallets)
    # Here all validators have one address, which is no sign of a flood.
    connections = max(settings.max_connections_per_address, CONNECTIONS_EACH * validators)
    mine = [f"MAX_CONNECTIONS_PER_ADDRESS={connections}", *assignments]
    with MinerProcess(state, mine, environment_of(settings)) as miner:
        miner.wait_until_it_listens()
        yield SimulatedMiner(miner.address, miner.hotkey, wallets)


def running_miner(
    settings: Settings, address: str, hotkey: str | None, names: Sequence[str], validators: int
) -> tuple[SimulatedMiner, bool]:
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
        return SimulatedMiner(url, hotkey or own, list(islice(cycle(loaded), validators))), False
    wallets = throwaway_keys(settings.state_dir, validators)
    told = False
    if settings.is_standalone and hotkey in (None, own):
        told = make_known(settings.standalone_file or standalone_file(settings.state_dir), own, wallets)
    return SimulatedMiner(url, hotkey or own, wallets), told


def _url(address: str, port: int) -> str:
    """Return the URL of `host`, `host:port` or `[host]:port`."""
    host, colon, given = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, given = address, str(port)
    if not host or not given.isdecimal() or not 0 < int(given) < 65536:
        raise ConfigurationError(f"--address={address}: HOST or HOST:PORT is allowed")
    return f"http://{host}:{given}"
