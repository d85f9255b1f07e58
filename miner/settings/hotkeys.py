"""Hotkeys in settings: ss58 addresses, checked without the SDK, which takes a second to import; names with ports."""

import hashlib
import re
from dataclasses import dataclass

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KEY_BYTES, CHECK_BYTES = 32, 2
NETWORK = 42  # the address format of every Bittensor key


@dataclass(frozen=True, slots=True)
class Place:
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
            raise ValueError(f"names with a port each, as first:8091,second:8092, are allowed; {part!r} is none")
    places = split_places(",".join(parts))
    for kind, values in (("name", [place.name for place in places]), ("port", [str(place.port) for place in places])):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"each hotkey needs a name and a port of its own; the {kind} {twice} is there twice")
    return ",".join(parts)


def split_places(checked: str) -> tuple[Place, ...]:
    """Return the names and ports of a checked list."""
    pairs = (part.rpartition(":") for part in checked.split(",") if part)
    return tuple(Place(name, int(port)) for name, _, port in pairs)


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
