"""The standalone chain: callers come from a small file, and throwaway keys are made on first use."""

import asyncio
import logging
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import bittensor_core  # the SDK's native part: the SDK itself takes 200 times as long to import
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from detectors.files import write_safely
from miner.chain.base import Neuron, Snapshot
from miner.errors import ConfigurationError, CouldNotStart

if TYPE_CHECKING:
    from bittensor import Wallet

log = logging.getLogger(__name__)

WALLET_NAME = "standalone"
CALLERS_FILE = "standalone.yaml"
LOOK_SECONDS = 1.0  # between two looks at the file
TEMPLATE = """\
# Who may ask this miner while SUBTENSOR_NETWORK=standalone; a running miner reads it again when it changes.
# `roadwork-miner query` signs with the first validator's key, which lies in wallets/{wallet}/hotkeys/validator.
validators:
  - hotkey: {hotkey}
    stake: 1000
    permit: true
"""


class _Validator(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hotkey: str
    stake: float = 0.0
    permit: bool = True


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    validators: list[_Validator]


class StandaloneChain:
    """A chain that is a file, read again when it changes."""

    obstacle: str | None = None
    age = 0.0  # a file does not grow stale
    fault: str | None = None
    publication = "standalone: nothing to publish"
    is_published = False
    syncs = 0
    failures = 0

    def __init__(self, path: Path, own_hotkey: str) -> None:
        self.path = path
        self.hotkey = own_hotkey
        self.uid: int | None = 0
        self._stamp = _stamp(path)
        self.snapshot = read_file(path, own_hotkey)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look at the file from now on."""
        self._watching = asyncio.create_task(self._watch(), name="standalone file")

    async def publish(self) -> None:
        """Nowhere to publish."""

    async def stop(self) -> None:
        """Stop looking."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Read the file if it has changed; a wrong one leaves everything as it was."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.snapshot = read_file(self.path, self.hotkey)
        except ConfigurationError as error:
            log.warning("%s; what was read before stays", error)
        else:
            log.info("%s reloaded: %d hotkeys", self.path, len(self.snapshot.neurons))


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what tells one state of a file from the next."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def read_file(path: Path, own_hotkey: str) -> Snapshot:
    """Read hotkeys, permits and stakes; uids are counted, ours is 0.

    Raises:
        ConfigurationError: the file is missing or wrong.
    """
    try:
        content = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        for validator in content.validators:
            bittensor_core.ss58_decode(validator.hotkey)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        raise ConfigurationError(
            f"STANDALONE_FILE={path}: {where}={fault['input']!r}: {fault['msg'].lower()}"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"STANDALONE_FILE={path}: can't be read: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        raise ConfigurationError(f"STANDALONE_FILE={path}: hotkey={validator.hotkey!r}: not an ss58 address") from error
    neurons = {own_hotkey: Neuron(uid=0, hotkey=own_hotkey, stake=0.0, validator_permit=False)}
    for uid, validator in enumerate(content.validators, start=1):
        neurons[validator.hotkey] = Neuron(uid, validator.hotkey, validator.stake, validator.permit)
    return Snapshot(block=0, taken_at=time.time(), neurons=MappingProxyType(neurons))


def own_wallet(state_dir: Path, role: str) -> "Wallet":
    """Return the throwaway wallet of the "miner" or the "validator", made on first use (key files of mode 0600).

    Raises:
        CouldNotStart: the state folder can't be written.
    """
    from bittensor import Wallet

    wallet = Wallet(name=WALLET_NAME, hotkey=role, path=str(state_dir / "wallets"))
    try:
        if not wallet.hotkey_file.exists_on_device():
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            wallet.create_new_hotkey(use_password=False, suppress=True)
            log.info("made a throwaway %s key in %s", role, state_dir)
        wallet.get_hotkey()
    except Exception as error:
        raise CouldNotStart(f"STATE_DIR={state_dir}: no key can be made or read there: {error}") from error
    return wallet


def own_hotkey(state_dir: Path, role: str) -> str:
    """Return the throwaway wallet's address; the SDK is imported only to make it, or to say what is wrong with it.

    Raises:
        CouldNotStart: as `own_wallet`.
    """
    path = state_dir / "wallets" / WALLET_NAME / "hotkeys" / role
    try:
        return str(bittensor_core.deserialize_keypair_from_keyfile_data(path.read_bytes()).ss58_address)
    except (OSError, ValueError, bittensor_core.KeyfileError):
        return str(own_wallet(state_dir, role).hotkey.ss58_address)


def standalone_file(state_dir: Path) -> Path:
    """Return the chain file of the state folder, made on first use with the throwaway validator in it.

    Raises:
        CouldNotStart: the state folder can't be written.
    """
    path = state_dir / CALLERS_FILE
    if not path.exists():
        hotkey = own_hotkey(state_dir, "validator")
        try:
            write_safely(path, TEMPLATE.format(wallet=WALLET_NAME, hotkey=hotkey).encode())
        except OSError as error:
            raise CouldNotStart(
                f"STATE_DIR={state_dir}: {CALLERS_FILE} can't be made there: {error.strerror}"
            ) from error
    return path
