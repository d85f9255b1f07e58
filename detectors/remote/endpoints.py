"""The choice of endpoints: which is asked, for how long, and when a failed one is tried again.

Decisions without a clock: times come in as arguments, so that a test needs no waiting.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args
from urllib.parse import urlsplit

from detectors.redact import shown

State = Literal["up", "suspect", "down"]
STATES: tuple[State, ...] = get_args(State)

MARGIN = 0.05  # seconds of a request's time kept back for what comes after the scores
LEAST_RESERVE = 0.25  # seconds kept for asking another endpoint; less is not worth a second try
PATIENCE, LEAST_PATIENCE = 8, 2.0  # times the usual, and seconds, after which an endpoint is taken to hang
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before an endpoint that failed is looked at again
LONGEST_REASON = 300  # characters of what a server may have us say in the log and on the pages


@dataclass(slots=True)
class Endpoint:
    """One address: how it does, and how much is on its way there."""

    index: int  # in the operator's list; metrics name it by this
    address: str = field(repr=False)  # may hold a password: `name` is for others
    state: State = "down"
    reason: str = "not looked at yet"  # why it is not up
    busy: int = 0  # pictures on their way
    turn: int = 0  # when it was last asked, counted in pictures
    misses: int = 0  # proofs failed in a row
    due: float = 0.0  # when it is looked at next, on the engine's clock

    @property
    def name(self) -> str:
        """Its address as others may see it."""
        return shown(self.address)

    def trust(self, next_look: float) -> None:
        """It has proven itself."""
        self.state, self.reason, self.misses, self.due = "up", "", 0, next_look

    def suspect(self, reason: str, now: float) -> None:
        """One request failed: asked only if nothing better is there, and to prove itself at once."""
        if self.state != "down":
            self.state, self.reason, self.due = "suspect", legible(reason), now

    def give_up(self, reason: str, now: float) -> None:
        """Nobody is there, or a proof failed: left alone for a while."""
        self.misses += 1
        self.state, self.reason, self.due = "down", legible(reason), now + pause(self.misses)


def legible(text: str) -> str:
    """Return a text that fits on a line, whatever a server has put into it."""
    line = "".join(character if character.isprintable() else " " for character in text[: LONGEST_REASON + 1])
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"


def choose(endpoints: Iterable[Endpoint], tried: Collection[int] = ()) -> Endpoint | None:
    """Return the one to ask: not tried yet, trusted, the least busy, the longest not asked; None: all are down.

    One that was tried is better than none: behind a single address there may be many machines.
    """
    usable = [endpoint for endpoint in endpoints if endpoint.state != "down"]
    return min(usable, key=lambda one: (one.index in tried, one.state != "up", one.busy, one.turn), default=None)


def time_limit(left: float, usual: float, another: bool) -> float:
    """Return the seconds one endpoint may take for a picture.

    Args:
        left: what is left of the request's time.
        usual: what a picture usually takes.
        another: whether another endpoint could be asked afterwards. Then one that hangs must not use up all of the
            time, nor hold one of our slots for long: a second try is left twice the usual, but no more than half.
    """
    if not another:
        return left
    reserve = min(left / 2, max(2 * usual, LEAST_RESERVE))
    return min(left - reserve, max(LEAST_PATIENCE, PATIENCE * usual))


def is_patient(seconds: float, usual: float) -> bool:
    """Return whether an answer that did not come within these seconds says something about the endpoint.

    A request that had little of its time left does not: a healthy endpoint may take that long.
    """
    return seconds >= PATIENCE * usual


def pause(misses: int) -> float:
    """Return the seconds to leave an endpoint alone after so many failures in a row: twice as long each time."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(misses - 1, 10)))


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
