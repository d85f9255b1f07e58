"""Who asks, and until when, once that is proven."""

from dataclasses import dataclass
from typing import Literal

from miner.errors import BadRequest, Unauthorised

Wire = Literal["dendrite", "btauth"]
SR25519 = 1  # the scheme of every hotkey here, whatever a header says
DEFAULT_TIMEOUT = 9.0  # StreetVision's validators; for callers that do not say


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: its hotkey, its nonce (ns since 1970), and how long it waits (s)."""

    hotkey: str
    nonce: int
    uuid: str
    timeout: float
    wire: Wire


@dataclass(frozen=True, slots=True)
class Window:
    """How far a nonce may lie before and after our clock, in ns."""

    past: int
    future: int

    def holds(self, ahead: int) -> bool:
        """Return whether a nonce by which our clock is `ahead`, in ns, is fresh."""
        return -self.future <= ahead <= self.past


class StaleNonce(Unauthorised):
    """A proven caller's nonce is not fresh by our clock."""

    def __init__(self, caller: Caller, ahead: int) -> None:
        super().__init__(f"the nonce {'is too old' if ahead > 0 else 'lies in the future'}; is the clock right?")
        self.caller = caller


def check_fresh(caller: Caller, window: Window, now_ns: int) -> None:
    """Check a proven caller's nonce against our clock, ns since 1970.

    Raises:
        StaleNonce: it is too old, or lies in the future.
    """
    ahead = now_ns - caller.nonce
    if not window.holds(ahead):
        raise StaleNonce(caller, ahead)


def read_timeout(text: str | None) -> float:
    """Read the `timeout` header, seconds.

    Raises:
        BadRequest: not a positive number.
    """
    if text is None:
        return DEFAULT_TIMEOUT
    try:
        timeout = float(text)
    except ValueError:
        raise BadRequest("the timeout header is not a number") from None
    if not 0 < timeout < float("inf"):
        raise BadRequest("the timeout header is not a positive number")
    return timeout
