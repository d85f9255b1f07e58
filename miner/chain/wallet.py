"""The miner's hotkey: the one key file that has to be on this machine."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from miner.errors import ConfigurationError

if TYPE_CHECKING:
    from bittensor import Wallet

log = logging.getLogger(__name__)


def load_hotkey(
    wallet_path: Path, name: str, hotkey: str, password_file: Path | None = None, key_file: Path | None = None
) -> "Wallet":
    """Return a wallet whose hotkey can sign; never asks for a password.

    An encrypted key takes about two seconds to open. `key_file` stands in for the hotkey's file in the wallet.

    Raises:
        ConfigurationError: the file is missing, unreadable or no key, or the password is missing or wrong.
    """
    from bittensor import Wallet
    from bittensor.keyfiles import Keyfile, KeyfileError, WrongPasswordError

    key = f"WALLET_HOTKEY={hotkey}" if key_file is None else f"WALLET_HOTKEY_FILE={key_file}"
    file = key_file or wallet_path / name / "hotkeys" / hotkey
    try:
        wallet = Wallet(name=name, hotkey=hotkey, path=str(wallet_path))
        if key_file is not None:
            wallet._hotkey_file = Keyfile(key_file, hotkey)  # the SDK has no other door for a key outside a wallet
        if not file.exists():
            raise ConfigurationError(
                f"{key}: there is no {file}; copy the hotkey's file there, or make one: "
                f"btcli wallet new-hotkey --wallet {name} --wallet-hotkey {hotkey} --wallet-path {wallet_path}"
            )
        data = file.read_bytes()
        # The SDK asks on the terminal where it is given no password, so an encrypted key always gets one.
        password = _password(file, password_file) if _is_encrypted(data) else None
        keypair = wallet.get_hotkey(password)
        keypair.sign(b"roadwork-miner")
        _warn(wallet_path, file)
    except OSError as error:
        raise ConfigurationError(f"{key}: {file} can't be read: {error.strerror or error}") from error
    except WrongPasswordError:
        # Not chained: nothing of the password may get into a traceback.
        raise ConfigurationError(f"WALLET_HOTKEY_PASSWORD_FILE={password_file}: not the password of {file}") from None
    except (KeyfileError, ValueError) as error:
        raise ConfigurationError(f"{key}: {file} holds no key that can sign: {error}") from error
    return wallet


def find_coldkeys(wallet_path: Path) -> tuple[list[Path], list[Path]]:
    """Return the coldkeys of every wallet in a folder, and the folders that this user may not look into."""
    found, closed = [], []
    try:
        wallets = sorted(wallet_path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError:
        return [], [wallet_path]
    for wallet in wallets:
        coldkey = wallet / "coldkey"
        try:
            coldkey.stat()
            found.append(coldkey)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            closed.append(wallet)
    return found, closed


def _is_encrypted(data: bytes) -> bool:
    from bittensor.sp_core import keyfile_data_is_encrypted

    return bool(keyfile_data_is_encrypted(data))


def _password(file: Path, password_file: Path | None) -> str:
    if password_file is None:
        raise ConfigurationError(
            f"WALLET_HOTKEY_PASSWORD_FILE: {file} is encrypted; name a file that holds its password, readable by this "
            "user alone (a systemd credential is one)"
        )
    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(f"WALLET_HOTKEY_PASSWORD_FILE={password_file}: can't be read: {reason}") from None
    if not password:
        raise ConfigurationError(f"WALLET_HOTKEY_PASSWORD_FILE={password_file}: the file is empty")
    return password


def _warn(wallet_path: Path, hotkey: Path) -> None:
    """Say what a thief would be glad of."""
    for coldkey in find_coldkeys(wallet_path)[0]:
        log.warning(
            "THE COLDKEY IS ON THIS MACHINE: %s. It owns your funds and the miner never needs it; whoever breaks in "
            "here has it. Move it to a machine that serves nothing (coldkeypub.txt may stay).",
            coldkey,
        )
    if hotkey.stat().st_mode & 0o077:
        log.warning("other users of this machine can read the hotkey: chmod 600 %s", hotkey)
