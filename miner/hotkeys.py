"""Hotkeys in settings: ss58 addresses, checked without the SDK, which takes a second to import."""

import hashlib

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KEY_BYTES, CHECK_BYTES = 32, 2
NETWORK = 42  # the address format of every Bittensor key


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
