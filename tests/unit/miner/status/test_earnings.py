"""The card *Earnings*, and the metrics behind it: what is known stands there, what is not is said or absent."""

import re
from typing import Any, get_args

import pytest

from miner.chain.earnings import Pay
from miner.formats import NO_VALUE
from miner.metrics import EARNINGS
from miner.status.earnings import PAY_WORDS, UNSAID, EarningsView, KeyEarnings, note, rows
from tests.expressions import rules

KEY = KeyEarnings(
    name="first", hotkey="5F", standing="rank 3 of 17 who earn", rank=3, shared=0, alpha_per_day=60.0, tao_per_day=3.0,
    immunity_seconds=0.0, registrations_to_replacement=88, replacement="number 88 of 200", collateral_alpha=0.0,
)  # fmt: skip
VIEW = EarningsView(
    age_seconds=42.0, fault=None, name="StreetVision", owner="5C", registered_at=500, pay="paid", burned=0.25,
    weights_age_seconds=600.0, earners=17, miners=200, registration_cost_tao=0.5, registration_cost_rise=1.0,
    registration_locked=0.0, alpha_price_tao=0.05, machine_cost_tao_per_month=None, keys=[KEY],
)  # fmt: skip


def view(**changes: Any) -> EarningsView:
    return VIEW.model_copy(update=changes)


def of_key(**changes: Any) -> EarningsView:
    return view(keys=[KEY.model_copy(update=changes)])


def shown(one: EarningsView) -> dict[str, str]:
    return dict(rows(one))


def test_a_miner_that_earns() -> None:
    card = shown(VIEW)
    assert list(card) == [
        "subnet", "pay", "rank", "alpha a day", "TAO a day", "TAO a month", "replaced", "burned", "weights set",
        "registration", "price of alpha",
    ]  # fmt: skip
    assert (card["alpha a day"], card["TAO a day"], card["TAO a month"]) == ("60", "3", "90")
    assert (card["registration"], card["price of alpha"]) == ("0.5 TAO", "0.05 TAO")
    assert (card["burned"], card["weights set"]) == ("25.0 %", "10 min ago")
    assert note(VIEW, "finney").startswith("as of 42 s")


@pytest.mark.parametrize(
    ("one", "row", "value"),
    [
        (view(name=None), "subnet", UNSAID),
        (view(pay=None), "pay", UNSAID),
        (view(burned=None), "burned", UNSAID),
        (view(registration_cost_tao=None), "registration", UNSAID),
        (view(alpha_price_tao=None), "price of alpha", UNSAID),
        (of_key(alpha_per_day=None), "alpha a day", UNSAID),
        (of_key(tao_per_day=None), "TAO a month", UNSAID),
        (of_key(replacement=None), "replaced", UNSAID),
        (of_key(registrations_to_replacement=None), "replaced", "not yet"),
        (of_key(registrations_to_replacement=1), "replaced", "as the next"),
        (of_key(rank=None, standing="earns nothing"), "standing", "earns nothing"),
        (of_key(standing=None), "standing", "not registered"),
        (of_key(immunity_seconds=7200.0), "immune for", "2.0 h"),
        (of_key(collateral_alpha=12.5), "collateral", "12.5 alpha"),
        (of_key(alpha_per_day=0.0), "alpha a day", "0"),
        (of_key(alpha_per_day=0.000123456), "alpha a day", "0.0001235"),
        (of_key(alpha_per_day=123456.7), "alpha a day", "123 457"),
        (view(registration_locked=0.2), "registration", "0.5 TAO, 20.0 % of it locked"),
        (view(registration_cost_rise=3.2), "registration", "0.5 TAO, 3.2 × the least of the last day"),
        (view(changed="owner"), "subnet", "StreetVision, changed hands"),
        (view(name="Widgets", is_named_as_ours=False), "subnet", "Widgets, not StreetVision's name"),
        (view(name=""), "subnet", "without a name"),
        (view(weights_age_seconds=None), "weights set", "never"),
        (view(machine_cost_tao_per_month=1.5), "left a month", "88.5 TAO"),
        (view(machine_cost_tao_per_month=100.0), "left a month", "−10 TAO"),
        (view(machine_cost_tao_per_month=1.5, keys=[]), "machine a month", "1.5 TAO"),
    ],
)  # fmt: skip
def test_a_row(one: EarningsView, row: str, value: str) -> None:
    assert shown(one)[row] == value
    assert NO_VALUE not in shown(one).values()


def test_several_hotkeys_have_their_own_rows_and_the_subnet_has_one() -> None:
    second = KEY.model_copy(update={"name": "second", "tao_per_day": 1.0})
    card = shown(view(keys=[KEY, second], machine_cost_tao_per_month=100.0))
    assert (card["first: TAO a day"], card["second: TAO a day"]) == ("3", "1")
    assert card["left a month"] == "20 TAO", "of what both earn"
    assert [name for name in card if name == "subnet"] == ["subnet"]


@pytest.mark.parametrize(
    ("one", "network", "words"),
    [
        (None, "standalone", "standalone"),
        (None, "finney", "not read yet"),
        (EarningsView(age_seconds=None, fault=None), "finney", "not read yet"),
        (EarningsView(age_seconds=None, fault="no answer within 30 s"), "finney", "no answer within 30 s"),
    ],
)
def test_without_a_read_there_is_one_line(one: EarningsView | None, network: str, words: str) -> None:
    assert rows(one) == []
    assert words in note(one, network)


def test_a_fault_and_a_change_are_said_below() -> None:
    said = note(view(fault="no answer within 30 s", changed="owner", changed_words="its owner is 5X"), "finney")
    assert "its owner is 5X" in said
    assert "no answer within 30 s" in said


def test_every_state_has_words_and_alerts_name_only_states_that_are() -> None:
    assert PAY_WORDS.keys() == set(get_args(Pay))
    text = "".join(rule["expr"] for rule in rules("alerts.yml"))
    (first, second) = re.findall(r'subnet_pay\{state=~"([\w|]+)"\}', text)
    told, fine = set(first.split("|")), set(second.split("|"))
    # What is burned, and where incentive says nothing, have their own alert and none.
    assert told | fine | {"burned", "no_consensus"} == set(get_args(Pay))
    assert not told & fine


def test_every_metric_of_money_is_in_the_table_once() -> None:
    names = [name for name, _, _ in EARNINGS]
    assert len(names) == len(set(names))
