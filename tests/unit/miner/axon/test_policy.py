"""Who is answered."""

import itertools

import pytest

from miner.axon.caller import Rules, judge
from miner.chain.base import Neuron, Snapshot
from miner.errors import Forbidden

NEURONS = {
    "validator": Neuron(uid=3, hotkey="validator", stake=1000.0, validator_permit=True),
    "small": Neuron(uid=4, hotkey="small", stake=5.0, validator_permit=True),
    "whale": Neuron(uid=5, hotkey="whale", stake=9000.0, validator_permit=False),
    "miner": Neuron(uid=7, hotkey="miner", stake=2.0, validator_permit=False),
}
SNAPSHOT = Snapshot(block=1, taken_at=0.0, neurons=NEURONS)
EVERYBODY = {*NEURONS, "stranger"}


def answered(rules: Rules) -> set[str]:
    found = set()
    for hotkey in EVERYBODY:
        try:
            judge(hotkey, SNAPSHOT, rules)
        except Forbidden:
            continue
        found.add(hotkey)
    return found


@pytest.mark.parametrize(
    ("permit", "strangers", "min_stake", "who"),
    [
        (True, False, 0, {"validator", "small"}),
        (True, False, 100, {"validator"}),
        (True, True, 0, {"validator", "small"}),  # who is not registered holds no permit either
        (True, True, 100, {"validator"}),
        (False, False, 0, {"validator", "small", "whale", "miner"}),
        (False, False, 100, {"validator", "whale"}),
        (False, True, 0, EVERYBODY),
        (False, True, 100, {"validator", "whale"}),  # nor any stake
    ],
)
def test_every_rule_must_hold(permit: bool, strangers: bool, min_stake: float, who: set[str]) -> None:
    assert answered(Rules(permit, strangers, min_stake)) == who


@pytest.mark.parametrize(
    ("permit", "strangers", "min_stake"), list(itertools.product((True, False), (True, False), (0.0, 1e6)))
)
def test_the_lists_settle_it_whatever_the_rules_say_and_deny_wins(
    permit: bool, strangers: bool, min_stake: float
) -> None:
    rules = Rules(permit, strangers, min_stake, allow=frozenset(EVERYBODY), deny=frozenset({"whale", "stranger"}))
    assert answered(rules) == EVERYBODY - {"whale", "stranger"}
    assert answered(Rules(permit, strangers, min_stake, deny=frozenset(EVERYBODY))) == set()


def test_an_allow_list_shuts_nobody_else_out() -> None:
    assert answered(Rules(allow=frozenset({"miner"}))) == {"validator", "small", "miner"}


@pytest.mark.parametrize(
    ("hotkey", "rules", "words"),
    [
        ("stranger", Rules(), "not registered"),
        ("miner", Rules(), "no validator permit"),
        ("small", Rules(min_stake=5.5), "minimum of 5.5"),
        ("validator", Rules(deny=frozenset({"validator"})), "not welcome"),
    ],
)
def test_the_refusal_says_which_rule(hotkey: str, rules: Rules, words: str) -> None:
    with pytest.raises(Forbidden, match=words):
        judge(hotkey, SNAPSHOT, rules)


@pytest.mark.parametrize(
    ("hotkey", "uid", "priority"), [("validator", 3, 1000.0), ("miner", 7, 2.0), ("stranger", None, 0.0)]
)
def test_the_priority_is_the_stake(hotkey: str, uid: int | None, priority: float) -> None:
    verdict = judge(hotkey, SNAPSHOT, Rules(allow=frozenset(EVERYBODY)))
    assert (verdict.uid, verdict.priority) == (uid, priority)


def test_a_minimum_that_is_just_reached_is_enough() -> None:
    assert judge("small", SNAPSHOT, Rules(min_stake=5.0)).uid == 4


def test_on_an_empty_snapshot_only_the_lists_and_open_doors_count() -> None:
    nobody = Snapshot(block=0, taken_at=0.0, neurons={})
    with pytest.raises(Forbidden, match="not registered"):
        judge("validator", nobody, Rules())
    assert judge("validator", nobody, Rules(allow=frozenset({"validator"}))).uid is None
