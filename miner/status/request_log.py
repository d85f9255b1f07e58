"""The log's lines about requests: one a minute of proven callers, one a minute of others, each at DEBUG."""

import asyncio
import ipaddress
import logging
from collections import Counter

from miner import formats
from miner.recorder.records import RequestRecord
from miner.status.history import Period, quantile

log = logging.getLogger(__name__)

SUMMARY_SECONDS = 60.0  # seconds
SHOWN_CHARACTERS = 8  # characters of a hotkey: enough to find it among 256

# By outcome. Refusals (503) of proven callers are our own doing and have a metric; who hangs up may yet have proved it.
OUTCOME_WORDS = {
    "unproven": "refused before they had proven anything",
    "unauthorised": "refused as unauthorised",
    "forbidden": "forbidden",
    "bad_request": "not understood",
    "bad_image": "without a picture that may be opened",
    "stalled": "given up for a body that did not come",
    "not_found": "for paths there are not",
}


class RequestLog:
    """Counts from the first request on and speaks when the minute ends; the next request begins a new one.

    Nothing is said while nobody asks. Unproven callers have a line of their own (`AbuseLog`).
    """

    def __init__(self, window: float = SUMMARY_SECONDS) -> None:
        self.window = window
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._minute = Period(0)
        self._positive = 0
        self._predicted = 0
        self._callers: set[int] = set()  # by uid

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Take notice of a request; those of callers who have proved nothing are counted elsewhere (`AbuseLog`)."""
        if record.wire == "none":
            return
        tell_of(record)
        if not record.caller:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.window, self.tell)
        self._minute.take(record)
        if record.uid is not None:
            self._callers.add(record.uid)
        if record.outcome == "ok" and record.prediction is not None:
            self._predicted += 1
            self._positive += record.prediction > 0.5

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
        stages = {name: one.answers.total() for name, one in self._minute.stages.items()}
        by_stage = ", ".join(f"{count} by {name}" for name, count in stages.items())
        log.info(
            "requests in the last %s: %d asked, %s%s; p50 %s, p95 %s; %s over 0.5; by %d validator%s",
            "minute" if self.window == SUMMARY_SECONDS else f"{self.window:g} s",
            asked, counts, by_stage and f" ({by_stage})",
            formats.duration(p50), formats.duration(p95), formats.share(share), callers,
            "s" * (callers != 1),
            extra={
                "fields": {"asked": asked, **known, **others}
                | {"p50_seconds": p50, "p95_seconds": p95, "positive_share": share, "validators": callers}
                | ({"answers_by_stage": stages} if stages else {})
            },
        )  # fmt: skip
        self._begin()


def tell_of(record: RequestRecord) -> None:
    """Say what became of one request."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    fields = {
        "uid": record.uid,
        "hotkey": record.caller[:SHOWN_CHARACTERS] or None,
        "wire": record.wire,
        "outcome": record.outcome,
        "reason": record.reason or None,
        "seconds": round(record.seconds, 6),
        "prediction": record.prediction,
        "stage": record.stage,
        "branches": record.branches or None,
        "stop": record.stop or None,
        "left_seconds": None if record.left is None else round(record.left, 6),
    }
    uid = "" if record.uid is None else f"uid {record.uid} "
    who = f"{uid}{fields['hotkey']}…" if record.caller else "unproven"
    said = "" if record.prediction is None else f", prediction {record.prediction:.4f}"
    stage = "" if record.stage is None else f" of stage {record.stage} ({record.stop}), {record.left:.1f} s left"
    why = f": {record.reason}" if record.reason else ""
    log.debug(
        "%s %s %s in %.1f ms%s%s%s", record.wire, who, record.outcome, record.seconds * 1e3, said, stage, why,
        extra={"fields": {name: value for name, value in fields.items() if value is not None}},
    )  # fmt: skip


class AbuseLog:
    """Counts from the first odd request on and speaks when the window ends; then the next one begins a new window.

    Of who sent them nothing is kept but the address of the last.
    """

    def __init__(self, window: float = SUMMARY_SECONDS) -> None:
        self.window = window
        self._counts: Counter[str] = Counter()
        self._last = ""

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Take notice of a request that no validator sends."""
        if record.outcome not in OUTCOME_WORDS:
            return
        if not self._counts:
            asyncio.get_running_loop().call_later(self.window, self._speak)
        self._counts[record.outcome] += 1
        self._last = record.address

    def _speak(self) -> None:
        counts, self._counts = self._counts, Counter()
        told = ", ".join(f"{count} {OUTCOME_WORDS[outcome]}" for outcome, count in counts.most_common())
        log.warning(
            "requests in the last %s: %s; the last from %s",
            "minute" if self.window == SUMMARY_SECONDS else f"{self.window:g} s", told, _plain(self._last),
        )  # fmt: skip


def _plain(address: str) -> str:
    """Return an IP address as it is; a proxy's header can hold anything, which is not repeated."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return "an address that is none"
