"""Who is answered."""

import pytest

from miner.chain.base import Neuron, Snapshot
from miner.errors import Forbidden
from miner.policy import Rules, judge

NEURONS = {
    "validator": Neuron(uid=3, hotkey="validator", stake=1000.0, validator_permit=True),
    "miner": Neuron(uid=7, hotkey="miner", stake=2.0, validator_permit=False),
}
SNAPSHOT = Snapshot(block=1, taken_at=0.0, neurons=NEURONS, uid=7)


def test_a_validator_is_answered_with_its_stake_as_priority() -> None:
    verdict = judge("validator", SNAPSHOT, Rules())
    assert (verdict.uid, verdict.priority) == (3, 1000.0)


def test_an_unknown_key_is_forbidden() -> None:
    with pytest.raises(Forbidden, match="not registered"):
        judge("stranger", SNAPSHOT, Rules(require_permit=False))


def test_a_permit_is_needed_only_where_the_rules_say_so() -> None:
    with pytest.raises(Forbidden, match="permit"):
        judge("miner", SNAPSHOT, Rules(require_permit=True))
    assert judge("miner", SNAPSHOT, Rules(require_permit=False)).uid == 7
