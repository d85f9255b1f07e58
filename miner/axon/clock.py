"""Clock skew, measured by the times that validators sign: a wrong clock costs every request."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low

from miner import formats
from miner.axon import btauth, dendrite
from miner.axon.caller import Caller, Window

log = logging.getLogger(__name__)

SECOND_NS = 10**9  # ns
MEMORY_NS = 3600 * SECOND_NS  # for which what a caller's nonce said counts
MIN_REQUESTS = 3  # requests that have to agree
AGREEMENT = 4 * SECOND_NS  # of one caller's nonces about its clock: they are on their way for as long, at most
MAX_CALLERS = 256  # callers, beyond which old ones are dropped
STEP_NS = SECOND_NS  # a change of the wall clock that is told
LOOK_SECONDS = 1.0
LOG_PAUSE_NS = 60 * SECOND_NS  # between two lines about refused nonces


@dataclass(slots=True)
class _Heard:
    """What one caller's nonces say: its clock less our monotonic one, in ns, by the request that came quickest."""

    apart: int
    at: int  # on our monotonic clock
    nonce: int  # the newest
    window: Window
    count: int = 1


class ClockWatch:
    """Compares our wall clock with the nonces of callers who are proven and may ask, and notices when it is set.

    What a nonce says is kept against the monotonic clock. So a clock that is set right makes the miner ready at once,
    and one that is set wrong is told before anybody is refused. Of one caller the last fresh nonce counts, or else the
    newest: requests that were held up, or are sent again, say nothing. No request is refused for what is found here.
    """

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Read `wall` (ns since 1970) and `monotonic` (ns)."""
        self.now = wall
        self.monotonic = monotonic
        self.told: list[Callable[[float], None]] = []  # told by how many seconds the clock was set forward
        self._heard: dict[str, _Heard] = {}
        self._offset = wall() - monotonic()
        self._refused = 0
        self._said_at: int | None = None

    def heard(self, caller: Caller) -> None:
        """Take the nonce of a proven caller who may ask, whether it was fresh or not."""
        at = self.monotonic()
        new, known = _Heard(caller.nonce - at, at, caller.nonce, window_of(caller)), self._heard.get(caller.hotkey)
        if known is None or known.at < at - MEMORY_NS:
            self._heard[caller.hotkey] = new
        elif abs(new.apart - known.apart) <= AGREEMENT:
            if new.nonce > known.nonce:
                new.apart, new.count = max(new.apart, known.apart), known.count + 1
                self._heard[caller.hotkey] = new
        elif self._is_fresh(new) or (new.apart > known.apart and not self._is_fresh(known)):
            self._heard[caller.hotkey] = new
        if len(self._heard) > MAX_CALLERS:
            self._heard = {hotkey: one for hotkey, one in self._heard.items() if one.at >= at - MEMORY_NS}

    def refused(self, caller: Caller) -> None:
        """Take a nonce that was refused for its time, of a proven caller who may ask; says so once a minute."""
        self.heard(caller)
        self._refused += 1
        at = self.monotonic()
        if self._said_at is not None and at - self._said_at < LOG_PAUSE_NS:
            return
        off = formats.age(abs(self.now() - caller.nonce) / SECOND_NS)
        reason = self.obstacle or "either clock may be wrong"
        log.warning(
            "%d signed requests of allowed callers were refused for clock skew, the last off by %s: %s",
            self._refused, off, reason,
        )  # fmt: skip
        self._said_at, self._refused = at, 0

    @property
    def ahead(self) -> float | None:
        """Seconds by which our clock is ahead of the callers' of the last hour, their median; None: nobody asked."""
        aheads = self._aheads(self._lately())
        return median_low(aheads) / SECOND_NS if aheads else None

    @property
    def obstacle(self) -> str | None:
        """Why every validator is refused, if that is for our clock; None as long as one of the last hour is not."""
        lately = self._lately()
        if sum(one.count for one in lately) < MIN_REQUESTS:
            return None
        if any(map(self._is_fresh, lately)):
            return None
        aheads = self._aheads(lately)
        if min(aheads) < 0 < max(aheads):
            return None
        off = median_low(aheads) / SECOND_NS
        side, look = ("ahead of", "stale") if off > 0 else ("behind", "as if from the future")
        return f"this machine's clock is {formats.age(abs(off))} {side} the validators': their requests look {look}"

    def look(self) -> None:
        """Look whether the clock was set, and say so."""
        before = self.monotonic()
        wall = self.now()
        if self.monotonic() - before > STEP_NS // 10:  # this thread was held up between the two
            return
        step = wall - before - self._offset
        if abs(step) >= STEP_NS:
            where = "forward" if step > 0 else "back"
            log.warning("the clock of this machine was set %s by %s", where, formats.age(abs(step) / SECOND_NS))
            for tell in self.told:
                tell(step / SECOND_NS)
        self._offset = wall - before

    async def watch(self) -> None:
        """Look again and again; ends with its task."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def _is_fresh(self, one: _Heard) -> bool:
        return one.window.holds(self.now() - self.monotonic() - one.apart)

    def _lately(self) -> list[_Heard]:
        horizon = self.monotonic() - MEMORY_NS
        # A copy: metrics are read in a thread, while the loop hears of others.
        return [one for one in list(self._heard.values()) if one.at >= horizon]

    def _aheads(self, heard: list[_Heard]) -> list[int]:
        offset = self.now() - self.monotonic()
        return [offset - one.apart for one in heard]


def window_of(caller: Caller) -> Window:
    """Return how far its nonce may be from our clock."""
    return btauth.WINDOW if caller.wire == "btauth" else dendrite.window(caller.timeout)
