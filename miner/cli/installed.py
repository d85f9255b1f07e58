"""A service of this machine, as `make install-service` puts it there: for commands that say `--service testnet`.

Its unit sets these over the settings file; a test holds the two together.
"""

import os
import re
from pathlib import Path

from miner.errors import ConfigurationError

ETC = Path("etc/roadwork-miner")
STATE = Path("var/lib/roadwork-miner")
MODELS = Path("opt/roadwork-miner/models")
CREDENTIALS = Path("run/credentials")
NAME = re.compile(r"[a-z][a-z0-9]*")  # as the installer allows


def settings_file(service: str, root: Path = Path("/")) -> Path:
    """Return the settings file of a service.

    Raises:
        ConfigurationError: there is none, or this user may not read it.
    """
    file = root / ETC / f"{service}.env"
    if not NAME.fullmatch(service) or not file.exists():
        found = ", ".join(sorted(path.stem for path in (root / ETC).glob("*.env"))) or "none"
        raise ConfigurationError(f"--service={service}: there is no {file}; installed: {found}")
    if not os.access(file, os.R_OK):
        raise ConfigurationError(f"--service={service}: {file} is for root to read: call this with sudo")
    return file


def unit_settings(service: str, root: Path = Path("/")) -> dict[str, str]:
    """Return what the unit sets: of a key the file that systemd copies, of several keys the copies, while it runs."""
    keys = root / ETC / f"{service}.hotkey"
    copies = root / CREDENTIALS / f"roadwork-miner@{service}.service"
    passwords = keys.with_name(f"{service}.hotkey-password")
    if any(copies.glob("hotkey_*")):  # as systemd names the files of a folder
        keys, passwords = copies / "hotkey", copies / "hotkey-password"
    return {
        "wallet_hotkey_file": str(keys),
        "wallet_hotkey_password_file": str(passwords),
        "state_dir": str(root / STATE / service),
        "models_dir": str(root / MODELS),
    }
