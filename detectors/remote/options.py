"""What the operator says of the engine, and who wants to know what becomes of it."""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from detectors.remote.endpoints import State


class Observer(Protocol):
    """Told of every picture, from any thread."""

    def answered(self, index: int, seconds: float) -> None:
        """An endpoint gave the scores of a picture."""
        ...

    def failed(self, index: int) -> None:
        """An endpoint did not."""
        ...

    def changed(self, index: int, state: State) -> None:
        """An endpoint came into this state."""
        ...

    def served_locally(self) -> None:
        """No endpoint could be asked, so this machine ran the graph."""
        ...


class Nobody:
    """Wants to know nothing."""

    def answered(self, index: int, seconds: float) -> None:
        """Let it pass."""

    def failed(self, index: int) -> None:
        """Let it pass."""

    def changed(self, index: int, state: State) -> None:
        """Let it pass."""

    def served_locally(self) -> None:
        """Let it pass."""


NOBODY = Nobody()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the graph runs.

    Attributes:
        endpoints: `http://host:port`, with a path where the engine has one.
        model: its name there; empty: as in the manifest.
        fallback: the backend that runs the graph here while no endpoint can be asked; None: refuse.
        fallback_threads: for it.
    """

    endpoints: tuple[str, ...]
    model: str = ""
    fallback: str | None = None
    fallback_threads: int = 1
    observer: Observer = NOBODY


def check_addresses(text: str) -> str:
    """Return a comma-separated list of addresses without its spaces and repetitions.

    Raises:
        ValueError: one of them is none; the message names it.
    """
    addresses = [part for part in (part.strip() for part in text.split(",")) if part]
    for address in addresses:
        if not _is_address(address):
            raise ValueError(f"http(s)://host:port, with commas between them, is allowed; {address!r} is none")
    return ",".join(dict.fromkeys(address.rstrip("/") for address in addresses))


def _is_address(text: str) -> bool:
    try:
        found = urlsplit(text)
        return found.scheme in ("http", "https") and bool(found.hostname) and (found.port or 1) > 0 and not found.query
    except ValueError:  # the port
        return False
