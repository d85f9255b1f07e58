"""Who is answered, and in which order."""

from dataclasses import dataclass

from miner.chain.base import Snapshot
from miner.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules."""

    require_permit: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """The caller may ask; a higher priority (stake) keeps its place in a full queue."""

    uid: int
    priority: float


def judge(hotkey: str, snapshot: Snapshot, rules: Rules) -> Verdict:
    """Judge an authenticated hotkey.

    Raises:
        Forbidden: it is not registered on the subnet, or lacks the permit the rules require.
    """
    neuron = snapshot.neurons.get(hotkey)
    if neuron is None:
        raise Forbidden("your hotkey is not registered on this subnet")
    if rules.require_permit and not neuron.validator_permit:
        raise Forbidden("your hotkey holds no validator permit")
    return Verdict(uid=neuron.uid, priority=neuron.stake)
