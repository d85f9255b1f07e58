"""The validators of settings, alone and beside others; a ValueError says what is allowed.

A check beside another setting stands at the later of the two and is its fault, so it is told together with all others.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ValidationInfo

from detectors.redact import shown_within
from detectors.registry import BACKENDS, DETECTORS, FUSED, PRECISIONS
from miner.settings.addresses import PUBLIC_NETWORKS, why_unreachable

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KEY_BYTES, CHECK_BYTES = 32, 2
NETWORK = 42  # the address format of every Bittensor key

AUTO = "auto"
REMOTE = "remote"
NO_FALLBACK = "refuse"
NETWORKS = ("standalone", "local", "test", "finney")
BACKEND_CHOICES = (AUTO, *BACKENDS)
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with
FORKS_FUSED = "inceptionfusion"
VALIDATORS_WAIT = 9.0  # seconds
StageMode = Literal["adaptive", "cheapest", "all"]
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
LEVEL_NAMES = {"TRACE": "DEBUG", "NOTSET": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}  # as others call them
DEVICE = re.compile(r"(cpu|cuda|gpu|mps|auto)(?::\d+)?")  # as torch writes them, and some operators
# A page of a model: an address, or `owner/name` on Hugging Face.
PAGE = re.compile(r"(?:https?://)?[^\s/#\"'<>]+(?:/[^\s\"'<>]*)?")


@dataclass(frozen=True, slots=True)
class HotkeyPort:
    """A hotkey's name in its wallet, and the port its validators ask."""

    name: str
    port: int


def check_places(text: str) -> str:
    """Return a comma-separated list of names with ports without its spaces.

    Raises:
        ValueError: one is no name with a port, or a name or a port is there twice; the message names it.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*):([0-9]{1,5})", part)
        if not found or not 1 <= int(found[2]) <= 65535:
            raise ValueError(
                f"names with a port each, as first:8091,second:8092, are allowed; {shown_within(part)!r} is none"
            )
    places = split_places(",".join(parts))
    for kind, values in (("name", [place.name for place in places]), ("port", [str(place.port) for place in places])):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"each hotkey needs a name and a port of its own; the {kind} {twice} is there twice")
    return ",".join(parts)


def split_places(checked: str) -> tuple[HotkeyPort, ...]:
    """Return the names and ports of a checked list."""
    pairs = (part.rpartition(":") for part in checked.split(",") if part)
    return tuple(HotkeyPort(name, int(port)) for name, _, port in pairs)


def check_hotkeys(text: str) -> str:
    """Return a comma-separated list of hotkeys without its spaces and repetitions.

    Raises:
        ValueError: one of them is no ss58 address; the message names it.
    """
    hotkeys = list(dict.fromkeys(part for part in (part.strip() for part in text.split(",")) if part))
    for hotkey in hotkeys:
        if not is_hotkey(hotkey):
            raise ValueError(f"hotkeys as ss58 addresses with commas between them are allowed; {hotkey!r} is none")
    return ",".join(hotkeys)


def split_hotkeys(checked: str) -> frozenset[str]:
    """Return the hotkeys of a checked list."""
    return frozenset(checked.split(",")) if checked else frozenset()


def is_hotkey(text: str) -> bool:
    """Return whether a text is the ss58 address of a key: one byte of network, 32 of key, two of checksum."""
    number = 0
    for character in text:
        place = ALPHABET.find(character)
        if place < 0:
            return False
        number = number * 58 + place
    size = 1 + KEY_BYTES + CHECK_BYTES
    if number >> 8 * size:
        return False
    data = number.to_bytes(size, "big")
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    return body[0] == NETWORK and hashlib.blake2b(b"SS58PRE" + body).digest()[:CHECK_BYTES] == check


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


def listed(names: Iterable[str]) -> str:
    """Return names for a table of Markdown: the last one after an `or`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}"


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


def known_fallback(value: str) -> str:
    """Allow to refuse, and the backends that may serve in place of remote ones."""
    return one_of(value, (NO_FALLBACK, *(name for name, entry in BACKENDS.items() if entry.stands_in)))


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


def web_address(value: str) -> str:
    """Allow the address of a server."""
    value = value.strip().rstrip("/")
    try:
        is_one = bool(re.fullmatch(r"https?://[^\s/@?#]+(?:/[^\s@?#]*)?", value)) and urlsplit(value).port != 0
    except ValueError:  # a port that is none, a bracket that is not closed
        is_one = False
    if not is_one:
        raise ValueError("an address that begins with https:// or http:// is allowed, without a password")
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


def is_file(place: Path) -> bool:
    """Return whether a file is there, for this user."""
    try:
        return place.is_file()
    except PermissionError:  # of a folder that this user may not enter, such as the one that sudo was called in
        return False
