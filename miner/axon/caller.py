"""Who asks, and until when, once that is proven."""

from dataclasses import dataclass
from typing import Literal

from miner.errors import BadRequest

Wire = Literal["dendrite", "btauth"]
DEFAULT_TIMEOUT = 9.0  # StreetVision's validators; for callers that do not say


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: its hotkey, its nonce (ns since 1970), and how long it waits (s)."""

    hotkey: str
    nonce: int
    uuid: str
    timeout: float
    wire: Wire


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
