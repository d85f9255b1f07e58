"""Who is answered, and in which order."""

from dataclasses import dataclass

from miner.chain.base import Snapshot
from miner.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules; all of them must hold, except that `deny` and then `allow` settle a hotkey by its name."""

    require_permit: bool = True
    allow_non_registered: bool = False
    min_stake: float = 0.0  # in the units of `Neuron.stake`
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()


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
