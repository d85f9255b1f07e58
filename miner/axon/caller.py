"""The caller of a request: its identity, how fresh its signature is, and whether it is answered."""

from dataclasses import dataclass
from typing import Self

from miner.chain.base import Snapshot
from miner.errors import BadRequest, Forbidden, Unauthorised
from miner.recorder.records import Wire
from miner.settings.settings import Settings
from miner.settings.validators import VALIDATORS_WAIT, split_hotkeys

SR25519 = 1  # the scheme of every hotkey here, whatever a header says
DEFAULT_TIMEOUT = VALIDATORS_WAIT  # for callers that do not say


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


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules; all of them must hold, except that `deny` and then `allow` settle a hotkey by its name."""

    require_permit: bool = True
    allow_non_registered: bool = False
    min_stake: float = 0.0  # in the units of `Neuron.stake`
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those that the operator has set."""
        return cls(
            require_permit=settings.blacklist_force_validator_permit,
            allow_non_registered=settings.blacklist_allow_non_registered,
            min_stake=settings.blacklist_min_stake,
            allow=split_hotkeys(settings.blacklist_allow_hotkeys),
            deny=split_hotkeys(settings.blacklist_deny_hotkeys),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The caller may ask; a higher priority (stake) keeps its place in a full queue."""

    uid: int | None  # None: not registered
    priority: float


def judge(hotkey: str, snapshot: Snapshot, rules: Rules) -> Verdict:
    """Judge an authenticated hotkey; one that is not registered has neither stake nor permit.

    Raises:
        Forbidden: a rule does not let it in; the message says which.
    """
    if hotkey in rules.deny:
        raise Forbidden("your hotkey is not welcome here")
    neuron = snapshot.neurons.get(hotkey)
    stake = neuron.stake if neuron is not None else 0.0
    verdict = Verdict(neuron.uid if neuron is not None else None, stake)
    if hotkey in rules.allow:
        return verdict
    if neuron is None and not rules.allow_non_registered:
        raise Forbidden("your hotkey is not registered on this subnet")
    if rules.require_permit and not (neuron is not None and neuron.validator_permit):
        raise Forbidden("your hotkey holds no validator permit")
    if stake < rules.min_stake:
        raise Forbidden(f"your stake is below this miner's minimum of {rules.min_stake:g}")
    return verdict
