"""What must not get out: the secrets of this machine, found where they lie, and whatever looks like one.

Two nets, one behind the other: settings are shown by a list of what is harmless, and every text then loses each known
secret and each thing that has the shape of one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

from miner.addresses import ADDRESSES, HIDDEN, secrets_within, shown_each
from miner.fields import Fields

SET = "(set, not shown)"
LARGEST = 2**16  # bytes of a key file
SHORTEST = 6  # characters; a shorter one would blot out half of every text
PUBLIC = ("accountId", "publicKey", "ss58Address")  # of a key file

# Free text that is harmless; numbers, switches and closed lists always are, and all else is hidden.
HARMLESS = {
    "image_detector", "image_detector_config", "image_detector_backend", "image_detector_precision", "wallet_name",
    "wallet_hotkey", "wallet_hotkeys", "wallet_path", "miner_axon_host", "axon_external_ip", "blacklist_allow_hotkeys",
    "blacklist_deny_hotkeys", "status_host", "state_dir", "models_dir", "standalone_file", "remote_model",
    "shadow_detector", "shadow_detector_config", "video_detector", "video_detector_config", "video_detector_device",
}  # fmt: skip

SHAPES = (
    (re.compile(r"(\w+://)[^\s/@\"'<>]+@"), rf"\1{HIDDEN}@"),  # user:password in an address
    (re.compile(r"(?i)([?&][\w-]*(?:key|token|secret|passw|auth|sig)[\w-]*=)[^\s&\"'<>]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\b[\w-]*(?:passw(?:or)?d|secret|token|mnemonic|api[_-]?key)[\w-]*[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]{6,}"),
     rf"\1{HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), HIDDEN),  # of Hugging Face
    (re.compile(r"(?i)\bbearer\s+[\w.~+/-]{8,}=*"), HIDDEN),
    (re.compile(r"\b0x[0-9a-fA-F]{64,}"), HIDDEN),  # seeds, private keys, signatures
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL), HIDDEN),
)  # fmt: skip


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
            yield text
            continue
        if isinstance(content, dict):
            yield from (str(value) for key, value in content.items() if key not in PUBLIC)


def key_files(settings: Fields) -> list[Path]:
    """Return every file of this machine that may hold a secret of the miner."""
    named = [settings.wallet_hotkey_file, settings.wallet_hotkey_password_file]
    folders = [settings.wallet_path / settings.wallet_name, settings.state_dir / "wallets"]
    found = [path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()]
    return [path for path in [*named, *found] if path is not None and not path.name.endswith("pub.txt")]


def scrubbed(text: str, secrets: Sequence[str]) -> str:
    """Return the text without any of the secrets, or anything of their shape."""
    for secret in sorted({one.strip() for one in secrets}, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            for form in (secret, json.dumps(secret)[1:-1]):
                text = text.replace(form, HIDDEN)
    for shape, instead in SHAPES:
        text = shape.sub(instead, text)
    return text
