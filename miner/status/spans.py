"""The views of an hour, a day and a week: all requests by the period, who asked, and which of our hotkeys was asked."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from miner.chain.base import Neuron
from miner.status.history import (
    OTHERS,
    SPANS,
    UNPERMITTED,
    Account,
    History,
    Period,
    answered_share,
    share_in_time,
)

SHOWN_CALLERS = 10  # the others are summed


class PeriodView(BaseModel):
    """One period: a minute of the hour, or more."""

    model_config = ConfigDict(frozen=True)

    at: int  # its beginning, seconds since 1970
    outcomes: dict[str, int]
    p50: float | None
    p95: float | None
    longest: float

    @classmethod
    def of(cls, period: Period, seconds: int) -> Self:
        """Sum a period of so many seconds up."""
        return cls(
            at=period.number * seconds,
            outcomes=dict(period.outcomes),
            p50=period.durations.quantile(0.5),
            p95=period.durations.quantile(0.95),
            longest=period.longest,
        )


class AccountView(BaseModel):
    """What somebody asked, or a hotkey of ours was asked; seconds since 1970 of the last time, None: never."""

    model_config = ConfigDict(frozen=True)

    asked: int = 0
    answered: int = 0
    refused: int = 0
    late: int = 0  # the time ended meanwhile, or the model failed
    p95: float | None = None
    last: float | None = None

    @classmethod
    def of(cls, account: Account, **more: object) -> Self:
        """Sum an account up."""
        outcomes = account.outcomes
        values = {
            "asked": outcomes.total(),
            "answered": outcomes["ok"],
            "refused": outcomes["refused"],
            "late": outcomes["expired"] + outcomes["failed"],
            "p95": account.durations.quantile(0.95),
            "last": account.last or None,
        }
        return cls.model_validate(values | more)

    @property
    def answered_share(self) -> float | None:
        """Of the requests that a validator may send, the share answered in time."""
        return share_in_time(self.answered, self.refused + self.late)


class CallerView(AccountView):
    """A validator; or several, summed up, without a uid."""

    uid: int | None = None
    stake: float | None = None  # None: not in the chain's snapshot
    count: int = 1  # of those summed up
    is_permitted: bool = True


class HotkeyView(AccountView):
    """What one of our hotkeys was asked."""

    hotkey: str


class Span(BaseModel):
    """The last hour, day or week."""

    model_config = ConfigDict(frozen=True)

    outcomes: dict[str, int]
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float
    callers: list[CallerView] = []  # of most requests first; the last ones may be several, summed up
    validators: int = 0  # different ones that asked
    last: float | None = None  # when one did, seconds since 1970
    hotkeys: list[HotkeyView] = []

    @property
    def asked(self) -> int:
        """How many requests there were."""
        return sum(self.outcomes.values())

    @property
    def percentiles(self) -> dict[str, float | None]:
        """Seconds of the answers by the percentile's name; None before the first."""
        longest = self.longest if self.p50 is not None else None
        return {"p50": self.p50, "p95": self.p95, "p99": self.p99, "max": longest}

    @property
    def answered_share(self) -> float | None:
        """Of the requests that a validator may send, the share answered in time."""
        return answered_share(self.outcomes)


class Hour(Span):
    """The last sixty minutes."""

    minutes: list[PeriodView]

    @classmethod
    def of(cls, history: History, neurons: Iterable[Neuron] = ()) -> Self:
        """Sum the hour up; with the subnet's hotkeys, for who asked."""
        return cls(**_sums(history, "hour", neurons), minutes=_periods(history, "hour"))


class LongSpan(Span):
    """The last day or week, in periods of so many seconds."""

    seconds: int
    periods: list[PeriodView]

    @classmethod
    def of(cls, history: History, span: str, neurons: Iterable[Neuron] = ()) -> Self:
        """Sum a day or a week up; with the subnet's hotkeys, for who asked."""
        return cls(
            **_sums(history, span, neurons), seconds=SPANS[span][0], periods=_periods(history, span)
        )  # fmt: skip


def _periods(history: History, span: str) -> list[PeriodView]:
    """Return the views of the periods, each made once unless it is the newest."""
    ring = history.rings[span]

    def views(periods: Iterable[Period]) -> list[PeriodView]:
        return [PeriodView.of(period, ring.seconds) for period in periods]

    before, newest = ring.split("views", history.clock(), views)
    return sorted([*before, *views(newest)], key=lambda view: view.at)


def _sums(history: History, span: str, neurons: Iterable[Neuron]) -> dict[str, Any]:
    total, accounts = history.total(span), history.callers(span)
    whole = total.durations
    validators = [account for uid, account in accounts.items() if uid != UNPERMITTED]
    return {
        "outcomes": dict(total.outcomes),
        "p50": whole.quantile(0.5),
        "p95": whole.quantile(0.95),
        "p99": whole.quantile(0.99),
        "longest": whole.longest,
        "callers": callers(accounts, neurons),
        "validators": len(validators),
        "last": max((account.last for account in validators), default=None),
        "hotkeys": [HotkeyView.of(account, hotkey=key) for key, account in history.hotkeys(span).items() if key],
    }


def callers(accounts: Mapping[int, Account], neurons: Iterable[Neuron], most: int = SHOWN_CALLERS) -> list[CallerView]:
    """Return who asked, and who may and did not.

    Args:
        accounts: by uid.
        neurons: the subnet's hotkeys, for stakes, and for the validators that did not ask.
        most: of validators with a row of their own: those of most requests, then of most stake; the others are summed.
    """
    known = {neuron.uid: neuron for neuron in neurons}
    uids = {uid for uid in accounts if uid >= 0} | {uid for uid, neuron in known.items() if neuron.validator_permit}
    stakes = {uid: known[uid].stake for uid in uids if uid in known}
    asked = {uid: accounts[uid].outcomes.total() if uid in accounts else 0 for uid in uids}
    ranked = sorted(uids, key=lambda uid: (-asked[uid], -stakes.get(uid, 0.0), uid))
    rest, beyond = ranked[most:], [accounts[OTHERS]] if OTHERS in accounts else []
    shown = [CallerView.of(accounts.get(uid, Account()), uid=uid, stake=stakes.get(uid)) for uid in ranked[:most]]
    if rest or beyond:
        others = Account.total([*(accounts[uid] for uid in rest if uid in accounts), *beyond])
        stake = sum(stakes[uid] for uid in rest if uid in stakes)
        shown.append(CallerView.of(others, stake=stake or None, count=len(rest) or 1))
    if UNPERMITTED in accounts:
        shown.append(CallerView.of(accounts[UNPERMITTED], is_permitted=False))
    return shown
