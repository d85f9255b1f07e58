"""What a setting must be, alone and beside others: each check returns it, or raises a ValueError that says why not.

A check beside another setting stands at the later of the two and is its fault, so it is told together with all others.
"""

import difflib
import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from pydantic import ValidationInfo

from detectors.registry import BACKENDS, DETECTORS, FUSED, PRECISIONS
from miner.settings.addresses import PUBLIC_NETWORKS, why_unreachable
from miner.settings.hotkeys import split_places

AUTO = "auto"
REMOTE = "remote"
NETWORKS = ("standalone", "local", "test", "finney")
BACKEND_CHOICES = (AUTO, *BACKENDS)
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with
FORKS_FUSED = "inceptionfusion"
VALIDATORS_WAIT = 9.0  # seconds
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
LEVEL_NAMES = {"TRACE": "DEBUG", "NOTSET": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}  # as others call them
DEVICE = re.compile(r"(cpu|cuda|gpu|mps|auto)(?::\d+)?")  # as torch writes them, and some operators
# A page of a model: an address, or `owner/name` on Hugging Face.
PAGE = re.compile(r"(?:https?://)?[^\s/#\"'<>]+(?:/[^\s\"'<>]*)?")


def one_of(value: str, allowed: Sequence[str]) -> str:
    """Return the name as the list spells it; large and small letters are the same.

    Raises:
        ValueError: it is not allowed; the message lists what is, and what is near.
    """
    spelt = next((name for name in allowed if name.lower() == value.strip().lower()), None)
    if spelt is None:
        near = nearest(value, allowed)
        raise ValueError(f"allowed: {', '.join(allowed)}" + (f" (did you mean {near}?)" if near else ""))
    return spelt


def nearest(value: str, allowed: Sequence[str]) -> str | None:
    """Return the name that was probably meant, or None."""
    return next(iter(difflib.get_close_matches(value, allowed, n=1)), None)


def is_loopback(host: str) -> bool:
    """Return whether what listens there is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_detector(value: str) -> str:
    """Allow the kinds of detectors; a fork's name for an ensemble is one, too, and its YAML file says the rest."""
    return FUSED if value.casefold() == FORKS_FUSED else one_of(value, tuple(DETECTORS))


def known_detector_or_none(value: str) -> str:
    """Allow the kinds of detectors, or nothing."""
    return known_detector(value) if value else value


def known_backend(value: str) -> str:
    """Allow the backends."""
    return one_of(value, BACKEND_CHOICES)


def known_precision(value: str) -> str:
    """Allow the precisions."""
    return one_of(value, (AUTO, *PRECISIONS))


def needed_for_remote(value: str, info: ValidationInfo) -> str:
    """Want an endpoint where the graph runs elsewhere."""
    if not value and info.data.get("image_detector_backend") == REMOTE:
        raise ValueError(f"with IMAGE_DETECTOR_BACKEND={REMOTE} at least one http://host:port is needed")
    return value


def known_network(value: str) -> str:
    """Allow the networks and addresses of nodes."""
    return value if value.startswith(("ws://", "wss://")) else one_of(value, (*NETWORKS, "ws://…", "wss://…"))


def websocket(value: str) -> str:
    """Allow a node's address, or nothing."""
    if value and not value.startswith(("ws://", "wss://")):
        raise ValueError("an address that begins with ws:// or wss:// is allowed")
    return value


def address(value: str) -> str:
    """Allow an IP address, or nothing."""
    try:
        return value and str(ip_address(value))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address is allowed") from None


def reachable(value: str, info: ValidationInfo) -> str:
    """Want an address that validators reach, where they are not on a chain of one's own."""
    if value and info.data.get("subtensor_network") in PUBLIC_NETWORKS:
        why = why_unreachable(value, info.data.get("miner_axon_host", ""))
        if why is not None:
            raise ValueError(f"a public address that MINER_AXON_HOST takes connections for is allowed; this is {why}")
    return value


def own_ports(value: str, info: ValidationInfo) -> str:
    """Want no published port of all where each hotkey has its own."""
    if value and info.data.get("axon_external_port") is not None:
        raise ValueError("each hotkey publishes the port it listens on: leave AXON_EXTERNAL_PORT empty")
    return value


def free_of_validators(value: int, info: ValidationInfo) -> int:
    """Want the operator's port to be none of the validators', where both are on one address."""
    hosts = {info.data.get("miner_axon_host"), info.data.get("status_host")}
    if len(hosts) == 2 and not hosts & {*EVERYWHERE}:
        return value
    places = split_places(info.data.get("wallet_hotkeys", ""))
    ports: list[object] = [place.port for place in places] or [info.data.get("miner_axon_port")]
    if value in ports:
        whose = "one of WALLET_HOTKEYS" if places else "MINER_AXON_PORT"
        raise ValueError(f"the same port as {whose}; each needs one of its own")
    return value


def leaves_time(value: float, info: ValidationInfo) -> float:
    """Want time for a picture: the margin is kept back of the caller's time, which both sides limit."""
    whole = min(VALIDATORS_WAIT, info.data.get("deadline_cap_seconds", VALIDATORS_WAIT))
    if value >= whole:
        raise ValueError(
            f"less than {whole:g} is allowed, or no time is left for a picture: of DEADLINE_CAP_SECONDS and the "
            f"{VALIDATORS_WAIT:g} s for which validators wait, the smaller one holds"
        )
    return value


def device(value: object) -> object:
    """Take `cuda:1` and `gpu` for cuda: which of them is meant makes no difference here."""
    known = DEVICE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    return value if known is None else "cuda" if known[1] == "gpu" else known[1]


def level(value: object) -> object:
    """Take the names and numbers that others give to levels; a number between two means the higher one's lines."""
    if not isinstance(value, (str, int)):
        return value
    name = str(value).strip().upper()
    if name.isdecimal():
        return next((known for known, number in LEVELS.items() if number >= int(name)), "CRITICAL")
    name = LEVEL_NAMES.get(name, name)
    return name if name in LEVELS else value


def page(value: str) -> str:
    """Allow the address of a page or the name of a repository, or nothing: validators get it as it stands."""
    value = value.strip()
    if value and not PAGE.fullmatch(value):
        raise ValueError("an https:// address or owner/name is allowed, without spaces or a comment")
    return value


def lower(value: object) -> object:
    """Take large letters for small ones."""
    return value.lower() if isinstance(value, str) else value


def at_home(value: Path | None) -> Path | None:
    """Fill in `~`."""
    try:
        return value.expanduser() if value is not None else None
    except RuntimeError:  # whose words Python chose
        raise ValueError("nobody's home is known: set HOME, or give a path without ~") from None


def config_at_home(value: str) -> str:
    """Fill in `~` where a name may be a path."""
    return str(at_home(Path(value))) if value.startswith("~") else value
