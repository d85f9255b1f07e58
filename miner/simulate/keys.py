"""The validators' keys: throwaway ones that a standalone miner is told of, or an operator's own."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from miner.axon.client import Client
from miner.chain.standalone import own_wallet, read_file
from miner.errors import ConfigurationError, CouldNotStart

if TYPE_CHECKING:
    from bittensor import Wallet

STAKE = 1000
PATIENCE = 30.0  # seconds for a running miner to read its file again
LOOK = 0.25


def throwaway_keys(state_dir: Path, count: int) -> list["Wallet"]:
    """Return validators' keys of a state folder, made on first use; the first is the one `query` signs with."""
    return [own_wallet(state_dir, "validator" if number == 0 else f"validator-{number + 1}") for number in range(count)]


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
    lines = "".join(f"{indent}- {{hotkey: {hotkey}, stake: {STAKE}}}  # of simulate\n" for hotkey in missing)
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
    deadline = time.monotonic() + PATIENCE
    for client in clients:
        while (reply := await client.ask(b"")).status == 403:
            if time.monotonic() > deadline:
                raise CouldNotStart(f"the miner refuses {client.wallet.hotkey.ss58_address}: {reply.message}")
            await asyncio.sleep(LOOK)
