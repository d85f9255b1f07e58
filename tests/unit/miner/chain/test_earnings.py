"""What a subnet pays, and whom, as tables: a metagraph in, a judgement out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miner.chain.base import Neuron
from miner.chain.earnings import (
    MachineCost,
    Metagraph,
    Ownership,
    Pay,
    SubnetMember,
    burned_share,
    change_since,
    immune_blocks,
    income_of,
    is_named_as_ours,
    miners_of,
    pay_of,
    replacement_of,
    standing_of,
    weights_age,
)
from miner.chain.market import ITEMS, MarketMemory

NOW = 1_800_000_000.0
HOUR = 3600.0


def member(
    uid: int,
    incentive: float = 0.0,
    *,
    began: int | None = 0,
    permit: bool = False,
    coldkey: str = "",
    emission: int = -1,
) -> SubnetMember:
    """Return the neuron `h<uid>`; what it gets is by its incentive, unless said."""
    neuron = Neuron(uid, f"h{uid}", 10.0 * permit, permit, incentive=incentive, last_update=9_990 * permit)
    return SubnetMember(neuron, coldkey or f"c{uid}", int(incentive * 1e9) if emission < 0 else emission, began)


def graph(*members: SubnetMember, **changes: Any) -> Metagraph:
    """Return a subnet of owner `h0`, a validator `h1` and these."""
    whole = Metagraph(
        block=10_000, members=[member(0), member(1, permit=True), *members], owner_hotkey="h0", owner_coldkey="c0",
        name="StreetVision", registered_at=500, tempo=360, burned=0.0, cost=0.5, price=0.05, immunity=100,
        capacity=256, floor=0, owner_places=1,
    )  # fmt: skip
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("subnet", "ours", "pay"),
    [
        (graph(member(2, 0.6), member(3, 0.4)), (), "paid"),
        (graph(member(2, 0.6), member(3, 0.4), burned=0.5), (), "half_burned"),
        (graph(member(2, 0.6), member(3, 0.4), burned=0.99), (), "burned"),
        (graph(member(2, 0.6), member(3, 0.4), burned=None), (), "paid"),
        (graph(member(2, 0.01), member(3, 0.99, coldkey="c0"), burned=None), (), "burned"),
        (graph(member(2, 0.6), member(3, 0.4), burned=None, owner_hotkey=None, owner_coldkey=None), (), None),
        (graph(member(2, 1.0), member(3)), (), "one_paid"),
        (graph(member(2, 1.0), member(3)), ("h2",), "paid"),
        (graph(member(2), member(3)), (), "halted"),
        (graph(member(2, 0.5, emission=0), member(3, 0.5, emission=0)), (), "nothing_emitted"),
        (graph(member(2, 0.6), member(3, 0.4), block=20_000), (), "no_validators"),
        (graph(member(2), member(3), has_consensus=True), (), "halted"),
        (graph(member(2), member(3), has_consensus=False), (), "no_consensus"),
        (graph(member(2, 1.0), has_consensus=False, block=20_000), (), "no_consensus"),
    ],
)
def test_how_a_subnet_pays(subnet: Metagraph, ours: tuple[str, ...], pay: Pay | None) -> None:
    assert pay_of(subnet, ours) == pay


@pytest.mark.parametrize(
    ("owners", "counted", "share"), [(0.0, None, 0.0), (0.5, None, 0.5), (0.25, 0.75, 0.75), (0.75, 0.25, 0.75)]
)
def test_the_share_that_is_burned_is_the_greater_of_both(owners: float, counted: float | None, share: float) -> None:
    subnet = graph(member(2, 1 - owners), member(3, owners, coldkey="c0"), burned=counted)
    assert burned_share(subnet) == pytest.approx(share)


def test_without_an_owner_or_a_count_nobody_knows_what_is_burned() -> None:
    unowned = graph(member(2, 1.0), burned=None, owner_hotkey=None, owner_coldkey=None)
    assert burned_share(unowned) is None
    assert burned_share(replace(unowned, burned=0.3)) == 0.3
    assert burned_share(replace(unowned, owner_hotkey="h2")) == 1.0


def test_without_incentive_or_a_count_nobody_knows_what_is_burned() -> None:
    assert burned_share(graph(member(2), burned=None)) is None
    assert burned_share(graph(member(2), burned=0.3)) == 0.3


# Of 43 of whom one earns, "rank 2" would be none.
@pytest.mark.parametrize(
    ("incentives", "rank", "shared", "earners", "words"),
    [
        ([0.0, 0.5, *[0.0] * 41], None, 41, 1, "earns nothing, like 42 of 43"),
        ([0.0] * 43, None, 42, 0, "nothing, like all others"),
        ([0.5, 0.9, 0.7, 0.1, 0.0], 3, 0, 4, "rank 3 of 4 who earn"),
        ([0.5, 0.9, *[0.5] * 4], 2, 4, 6, "shared with 4"),
        ([0.5], 1, 0, 1, "of 1 who earns"),
    ],
)
def test_the_rank_is_among_those_who_earn(
    incentives: list[float], rank: int | None, shared: int, earners: int, words: str
) -> None:
    subnet = graph(*(member(uid, share) for uid, share in enumerate(incentives, start=2)))
    standing = standing_of(subnet, "h2")
    assert standing is not None
    assert (standing.rank, standing.shared, standing.earners, standing.miners) == (
        rank, shared, earners, len(incentives)
    )  # fmt: skip
    assert str(standing).endswith(words)


def test_neither_the_owners_keys_nor_validators_without_incentive_are_miners() -> None:
    subnet = graph(member(2, 0.3), member(3, 0.6, coldkey="c0"), member(4, 0.1, permit=True), member(5, permit=True))
    assert miners_of(subnet) == (2, 2)
    assert miners_of(subnet, ["h5"]) == (2, 3), "ours mines, whoever gave it a permit"
    assert standing_of(subnet, "h9") is None


def test_what_is_earned_is_the_last_payment_as_often_as_a_day_has_it() -> None:
    subnet = graph(member(2, 0.5, emission=3 * 10**9), price=0.05)
    income = income_of(subnet, subnet.members[2])
    assert income is not None
    assert (income.alpha, income.tao) == (60.0, 3.0)  # 7200 blocks of 12 s, 20 tempos of 360
    assert MachineCost(90.0).is_covered(income) is True
    assert MachineCost(90.1).is_covered(income) is False
    unpriced = income_of(replace(subnet, price=None), subnet.members[2])
    assert unpriced is not None
    assert (unpriced.tao, MachineCost(1.0).is_covered(unpriced)) == (None, None)
    assert income_of(replace(subnet, tempo=None), subnet.members[2]) is None
    assert income_of(replace(subnet, block_seconds=0.0), subnet.members[2]) is None
    assert income_of(replace(subnet, has_consensus=False), subnet.members[2]) is None
    owned = income_of(replace(subnet, owner_coldkey="c2"), subnet.members[2])
    assert owned is not None
    assert owned.alpha == 0, "what the owner's keys get is burned"


@pytest.mark.parametrize(
    ("month", "price", "tao"), [(0.0, 0.0, None), (0.0, 200.0, None), (2.0, 0.0, 2.0), (300.0, 200.0, 1.5)]
)
def test_what_the_machine_costs_is_in_tao_or_by_what_a_tao_is_worth(
    month: float, price: float, tao: float | None
) -> None:
    cost = MachineCost.of(month, price)
    assert (cost.tao if cost is not None else None) == tao


FULL = {"capacity": 6}  # with the four below


@pytest.mark.parametrize(
    ("ours", "others", "changes", "place", "registrations"),
    [
        # Who earns least goes first, then the oldest, then the lowest uid.
        (member(2, 0.1, began=5), [member(3, 0.2), member(4, 0.3), member(5)], FULL, 3, 3),
        (member(2, 0.1, began=5), [member(3, 0.1, began=4), member(4, 0.1, began=6), member(5, 0.2)], FULL, 3, 3),
        (member(2, began=5), [member(3, began=5), member(4, 0.3), member(5)], FULL, 3, 3),
        # As many registrations more as there are places.
        (member(2, began=5), [member(3, 0.1), member(4, 0.3), member(5, 0.1)], {"capacity": 9}, 2, 5),
        # Whoever is immune is spared while there are enough others.
        (member(2, began=9_901), [member(3, 0.1), member(4, 0.3), member(5, 0.1)], FULL, None, None),
        (member(2, began=9_900), [member(3, 0.1), member(4, 0.3), member(5, 0.1)], FULL, 2, 2),
        (member(2, began=9_901), [member(3, 0.1), member(4, 0.3), member(5)], FULL | {"floor": 4}, 1, 1),
        (member(2, began=5), [member(3, 0.1), member(4, 0.3), member(5)], FULL | {"floor": 5}, None, None),
        # The owner's hotkey, and its oldest others, are never replaced.
        (member(2, coldkey="c0", began=1), [member(3), member(4), member(5)], FULL, 5, 5),
        (member(2, coldkey="c0", began=1), [member(3), member(4), member(5)], FULL | {"owner_places": 2}, None, None),
    ],
)
def test_who_is_replaced_next(
    ours: SubnetMember,
    others: list[SubnetMember],
    changes: Mapping[str, Any],
    place: int | None,
    registrations: int | None,
) -> None:
    risk = replacement_of(graph(ours, *others, **changes), "h2")
    assert risk is not None
    assert (risk.place, risk.registrations) == (place, registrations)
    assert risk.is_near is (registrations is not None and registrations <= 3)


@pytest.mark.parametrize("item", ["capacity", "immunity"])
def test_a_risk_that_the_chain_does_not_tell_is_not_guessed(item: str) -> None:
    assert replacement_of(graph(member(2), **{item: None}), "h2") is None
    assert replacement_of(graph(member(2), member(3, began=None)), "h2") is None
    assert replacement_of(graph(member(2)), "h9") is None


def test_immunity_ends_after_its_blocks() -> None:
    subnet = graph()
    assert [immune_blocks(subnet, member(2, began=began)) for began in (9_950, 9_900, 0, None)] == [50, 0, 0, None]
    assert immune_blocks(replace(subnet, immunity=None), member(2)) is None


def test_when_weights_were_set_last() -> None:
    assert weights_age(graph()) == 10 * 12.0
    assert weights_age(Metagraph(10_000, [member(2, 1.0)])) is None


FIRST = Ownership("StreetVision", "c0", 500, NOW)


@pytest.mark.parametrize(
    ("changes", "first", "change"),
    [
        ({}, FIRST, ""),
        ({"owner_hotkey": "h9", "name": "Natix"}, FIRST, ""),
        ({"owner_coldkey": "c9"}, FIRST, "owner"),
        ({"owner_coldkey": "c9", "registered_at": 900}, FIRST, "registration"),
        ({"owner_coldkey": "c9"}, None, ""),
        ({"owner_coldkey": None}, FIRST, ""),
        ({"registered_at": None}, FIRST, ""),
    ],
)
def test_what_became_of_a_subnet(changes: dict[str, Any], first: Ownership | None, change: str) -> None:
    assert change_since(first, graph(**changes)) == change


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("StreetVision", True),
        ("Street Vision by NATIX", True),
        ("natix", True),
        ("Widgets", False),
        ("", None),
        (None, None),
    ],
)
def test_the_name_tells_whose_subnet_it_is(name: str | None, ours: bool | None) -> None:
    assert is_named_as_ours(graph(name=name)) is ours


# The SDK hands an enumeration out as a name, a number, or a name with no content.
@pytest.mark.parametrize(
    ("value", "has"),
    [("Yuma", True), ({"Yuma": None}, True), (0, True), ("Null", False), ({"Null": ()}, False), (1, False)],
)
def test_a_subnet_without_consensus_is_recognised(value: Any, has: bool) -> None:
    assert ITEMS["has_consensus"][1](value) is has


def test_costs_count_for_a_day_and_are_kept_where_they_jump() -> None:
    memory = MarketMemory(Path("unused"))
    assert memory.rise(0.5, NOW) is None
    for at, cost, is_kept in [
        (0, 0.5, True),
        (60, 0.49, False),
        (120, 0.4, True),
        (1200, 0.4, True),
        (1260, 1.2, True),
    ]:
        assert memory.take(graph(cost=cost), NOW + at) is is_kept
    assert memory.rise(1.2, NOW + 1260) == pytest.approx(3.0)
    memory.take(graph(cost=1.0), NOW + 25 * HOUR)
    assert memory.rise(1.0, NOW + 25 * HOUR) == 1.0
    assert memory.rise(None, NOW + 25 * HOUR) is None
    # A clock that was set back: what seems to be of the future is no cost of the last day.
    assert memory.rise(1.0, NOW - 1) is None


def test_whose_subnet_it_was_is_kept_from_the_first_read_that_tells() -> None:
    memory = MarketMemory(Path("unused"))
    memory.take(graph(owner_coldkey=None), NOW)
    assert memory.first is None
    memory.take(graph(), NOW + 1)
    memory.take(graph(owner_coldkey="c9"), NOW + 2)
    assert memory.first == replace(FIRST, seen_at=NOW + 1)
