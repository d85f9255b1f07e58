"""What the log says of requests: a line each at DEBUG, and at INFO one a minute about those of proven callers."""

import asyncio
import logging

from miner import formats
from miner.status.history import Entry, Minute, quantile

log = logging.getLogger(__name__)

WINDOW = 60.0  # seconds
SHOWN = 8  # characters of a hotkey: enough to find it among 256


class Traffic:
    """Counts from the first request on and speaks when the minute ends; the next request begins a new one.

    Nothing is said while nobody asks. Strangers have a line of their own (`miner.axon.strangers`).
    """

    def __init__(self, window: float = WINDOW) -> None:
        self.window = window
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._minute = Minute(0)
        self._positive = 0
        self._predicted = 0
        self._callers: set[int] = set()  # by uid

    def saw(self, entry: Entry) -> None:
        """Take notice of a proven caller's request that ended; on the event loop."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.window, self.tell)
        self._minute.take(entry)
        if entry.uid is not None:
            self._callers.add(entry.uid)
        if entry.outcome == "ok" and entry.prediction is not None:
            self._predicted += 1
            self._positive += entry.prediction > 0.5

    def tell(self) -> None:
        """Say what came since the last line, if anything did: when the minute is over, or at the end."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        outcomes = self._minute.outcomes
        p50, p95 = (quantile([self._minute], share) for share in (0.5, 0.95))
        share = self._positive / self._predicted if self._predicted else None
        known = {"answered": outcomes["ok"], "refused": outcomes["refused"], "late": outcomes["expired"]}
        others = {name: count for name, count in outcomes.items() if name not in ("ok", "refused", "expired")}
        asked, callers = outcomes.total(), len(self._callers)
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in (known | others).items())
        log.info(
            "requests in the last %s: %d asked, %s; p50 %s, p95 %s; %s over 0.5; by %d validator%s",
            "minute" if self.window == WINDOW else f"{self.window:g} s",
            asked, counts, formats.duration(p50), formats.duration(p95), formats.share(share), callers,
            "s" * (callers != 1),
            extra={
                "fields": {"asked": asked, **known, **others}
                | {"p50_seconds": p50, "p95_seconds": p95, "positive_share": share, "validators": callers}
            },
        )  # fmt: skip
        self._begin()


def tell_of(entry: Entry, hotkey: str | None) -> None:
    """Say what became of one request; `hotkey` of None: its caller has not proven who it is."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    fields = {
        "uid": entry.uid,
        "hotkey": hotkey[:SHOWN] if hotkey is not None else None,
        "wire": entry.wire,
        "outcome": entry.outcome,
        "reason": entry.reason or None,
        "seconds": round(entry.seconds, 6),
        "prediction": entry.prediction,
    }
    uid = "" if entry.uid is None else f"uid {entry.uid} "
    who = f"{uid}{fields['hotkey']}…" if hotkey is not None else "unproven"
    said = "" if entry.prediction is None else f", prediction {entry.prediction:.4f}"
    why = f": {entry.reason}" if entry.reason else ""
    log.debug(
        "%s %s %s in %.1f ms%s%s", entry.wire, who, entry.outcome, entry.seconds * 1e3, said, why,
        extra={"fields": {name: value for name, value in fields.items() if value is not None}},
    )  # fmt: skip
