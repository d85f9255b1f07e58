"""One warning a minute about traffic that no validator sends, however much of it there is."""

import asyncio
import ipaddress
import logging
from collections import Counter

log = logging.getLogger(__name__)

WINDOW = 60.0  # seconds

# By outcome. Refusals (503) of proven callers are our own doing and have a metric; one who hangs up is no stranger yet.
WORDS = {
    "unproven": "refused before they had proven anything",
    "unauthorised": "refused as unauthorised",
    "forbidden": "forbidden",
    "bad_request": "not understood",
    "bad_image": "without a picture that may be opened",
    "stalled": "given up for a body that did not come",
    "not_found": "for paths there are not",
}


class Strangers:
    """Counts from the first odd request on and speaks when the window ends; then the next one begins a new window.

    Of who sent them nothing is kept but the address of the last.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self.window = window
        self._counts: Counter[str] = Counter()
        self._last = ""

    def saw(self, address: str, outcome: str) -> None:
        """Take notice of a request that ended; on the event loop."""
        if outcome not in WORDS:
            return
        if not self._counts:
            asyncio.get_running_loop().call_later(self.window, self._speak)
        self._counts[outcome] += 1
        self._last = address

    def _speak(self) -> None:
        counts, self._counts = self._counts, Counter()
        told = ", ".join(f"{count} {WORDS[outcome]}" for outcome, count in counts.most_common())
        log.warning(
            "requests in the last %s: %s; the last from %s",
            "minute" if self.window == WINDOW else f"{self.window:g} s", told, _plain(self._last),
        )  # fmt: skip


def _plain(address: str) -> str:
    """Return an IP address as it is; a proxy's header can hold anything, which is not repeated."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return "an address that is none"
