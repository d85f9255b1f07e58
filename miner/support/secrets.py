"""What must not get out: the secrets of this machine, found where they lie, and whatever looks like one.

Two nets, one behind the other: settings are shown by a list of what is harmless, and every text then loses each known
secret and each thing that has the shape of one (`sieve`).
"""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_origin

from miner.settings.fields import Fields
from miner.settings.secrets import ADDRESSES, secrets_within, shown_each

SET = "(set, not shown)"
LARGEST = 2**16  # bytes of a key file
MOST = 10_000  # files in a wallets folder; who named another folder by mistake shall not wait for all of it
PUBLIC = ("accountId", "publicKey", "ss58Address", "address", "cryptoType", "encoding", "meta")  # of a key file

# Free text that is harmless; numbers, switches and closed lists always are, and all else is hidden.
HARMLESS = {
    "image_detector", "image_detector_config", "image_detector_backend", "image_detector_precision", "wallet_name",
    "wallet_hotkey", "wallet_hotkeys", "wallet_path", "miner_axon_host", "axon_external_ip", "blacklist_allow_hotkeys",
    "blacklist_deny_hotkeys", "status_host", "status_allowed_hosts", "state_dir", "models_dir", "standalone_file",
    "remote_model", "shadow_detector", "shadow_detector_config", "video_detector", "video_detector_config",
    "video_detector_device",
}  # fmt: skip


def shown_settings(settings: Fields) -> dict[str, Any]:
    """Return the settings by name, with what could be a secret hidden."""
    return {name.upper(): _shown(name, getattr(settings, name)) for name in type(settings).model_fields}


def _shown(name: str, value: Any) -> Any:
    if value is None or value == "" or isinstance(value, (bool, int, float)):
        return value
    if name in ADDRESSES:
        return shown_each(str(value))
    is_closed = get_origin(Fields.model_fields[name].annotation) is Literal
    return str(value) if name in HARMLESS or is_closed else SET


def secrets_of_addresses(settings: Fields) -> Iterator[str]:
    """Yield what the addresses hold that others may not see; the model's page is there to be seen."""
    for name in ADDRESSES - {"model_url"}:
        for address in str(getattr(settings, name)).split(","):
            yield from secrets_within(address)


def secrets_in(files: Iterable[Path]) -> Iterator[str]:
    """Yield the secrets of key and password files: each text in a key's JSON but the public ones, or the whole file."""
    for file in files:
        try:
            data = file.read_bytes() if file.stat().st_size <= LARGEST else b""
            text = data.decode("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        try:
            content = json.loads(text)
        except ValueError:
            content = text
        yield from _texts_of(content if isinstance(content, dict) else text)


def _texts_of(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in PUBLIC:
                yield from _texts_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts_of(value)
    else:
        yield str(content)


def key_files(settings: Fields) -> list[Path]:
    """Return every file of this machine that may hold a secret of the miner."""
    named = [settings.wallet_hotkey_file, settings.wallet_hotkey_password_file]
    folders = [settings.wallet_path, settings.state_dir / "wallets"]  # also the wallets that serve no request here
    found = [path for folder in folders for path in islice(_files_below(folder), MOST)]
    return [path for path in [*named, *found] if path is not None and not path.name.endswith("pub.txt")]


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield every file there is to be seen: what may not be entered is passed over."""
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)
