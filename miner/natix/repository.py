"""The published model's name on the hub, out of what an operator gives for it."""

import re

from detectors.redact import shown_within
from miner.errors import ConfigurationError

HUBS = ("huggingface.co/", "www.huggingface.co/", "hf.co/")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w", re.ASCII)
NO_MODELS = {"datasets", "spaces", "docs", "api", "collections"}


def repository_in(address: str) -> str | None:
    """Return `owner/name` of a model's address on the hub, or of the name itself; None: it is neither."""
    name, is_address = re.subn(r"^https?://", "", address.strip())
    hub = next((hub for hub in HUBS if name.startswith(hub)), "")
    if is_address and not hub:
        return None
    if hub:
        name = "/".join(name.removeprefix(hub).split("/")[:2])  # behind it: /tree/main
    name = name.rstrip("/")
    return name if REPOSITORY.fullmatch(name) and name.split("/")[0] not in NO_MODELS else None


def repository_of(key: str, address: str) -> str:
    """Return `owner/name` of what a flag or a setting holds.

    Raises:
        ConfigurationError: it names no model on the hub.
    """
    found = repository_in(address)
    if found is None:
        raise ConfigurationError(
            f"{key}={shown_within(address)}: owner/name of a published model, or its address on huggingface.co, is "
            "needed; `roadwork-miner publish` makes one"
        )
    return found
