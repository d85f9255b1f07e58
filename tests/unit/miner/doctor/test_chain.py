"""The check-up's judgements of the chain, as tables: facts in, a line out."""

import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from miner.axon.caller import Rules
from miner.chain.base import Neuron
from miner.chain.earnings import MachineCost, Metagraph, Ownership, SubnetMember
from miner.chain.market import MarketMemory
from miner.chain.queries import ChainHead, PublishedEndpoint, PublishedRecord
from miner.doctor import chain
from miner.doctor.findings import Level
from tests.unit.miner.doctor.test_here import expect

GB = 10**9
NOON = 1_800_000_000.0


def member(uid: int, hotkey: str, incentive: float = 0.0, *, permit: bool = False, update: int = 0) -> SubnetMember:
    neuron = Neuron(uid, hotkey, 10.0 * permit, permit, incentive=incentive, last_update=update)
    return SubnetMember(
        neuron, f"cold-{hotkey}", int(incentive * 1e9), registered_at=3_103 if hotkey == "ours" else 100 + uid
    )


OURS = PublishedEndpoint(ip_address("1.2.3.4"), 8091)
PRIVATE = PublishedEndpoint(ip_address("192.168.1.20"), 8091)
SIXTH = PublishedEndpoint(ip_address("2600::1"), 8091)
SUBNET = Metagraph(
    block=10_000,
    members=[
        member(0, "owner"),
        member(1, "validator", permit=True, update=9_900),
        member(2, "other", 0.6),
        member(3, "ours", 0.4),
    ],
    owner_hotkey="owner",
    owner_coldkey="cold-owner",
    name="StreetVision",
    registered_at=3_000,
    tempo=360,
    burned=0.0,
    cost=0.5,
    price=0.05,
    immunity=7_197,  # ours has 300 blocks left
    capacity=4,
    floor=0,
)
HEAD = ChainHead(spec_version=461, block=10_000, block_seconds=12.0, ahead=3.0, slack=6.0)
CHAIN = chain.ChainFacts("finney", HEAD, SUBNET, PublishedRecord(OURS, 9_000))
WHO = chain.ChainIdentity(72, "wallet", "ours", "finney")
NOBODY = replace(WHO, hotkey="")
DARK = chain.ChainFacts("finney", fault="no answer within 20 s")


def on(**changes: object) -> chain.ChainFacts:
    return replace(CHAIN, subnet=replace(SUBNET, **changes))  # type: ignore[arg-type]


def paid(*incentives: float) -> chain.ChainFacts:
    return on(
        members=[
            replace(one, neuron=replace(one.neuron, incentive=share), emission=int(share * 100))
            for one, share in zip(SUBNET.members, incentives, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("low", "high", "services", "level"),
    [
        (-3, 3, None, "ok"),
        (1, 7, None, "ok"),
        (6, 12, None, "warning"),  # perhaps it is 12 s
        (12, 18, None, "problem"),
        (-9, -3, None, "warning"),
        (-10, -4.5, None, "problem"),
        (54, 60, 0.3, "ok"),  # the node is behind, not we
        (-3, 3, 1.9, "ok"),
        (-3, 3, 2.5, "warning"),
        (-3, 3, 12, "problem"),
        (-3, 3, -4.5, "problem"),
    ],
)
def test_clock(low: float, high: float, services: float | None, level: Level) -> None:
    finding = chain.judge_clock(replace(HEAD, ahead=high, slack=high - low), services)
    expect(finding, level, r"\d s (ahead|behind) of (the chain|web services)")


def test_a_clock_that_nothing_was_compared_with() -> None:
    expect(chain.judge_clock(None, None), "warning", "not compared")
    expect(chain.judge_clock(None, 0.2), "ok", r"0\.2 s ahead of")


@pytest.mark.parametrize(
    ("services", "callers", "level"),
    [
        (None, 3600, "problem"),
        (3600, 3600, "problem"),
        (None, -5, "problem"),
        (0.2, 3600, "warning"),
        (0.2, 0.4, "ok"),
        (12, 0.4, "problem"),
    ],
)
def test_what_those_who_asked_the_running_miner_say_of_its_clock(
    services: float | None, callers: float, level: Level
) -> None:
    expect(chain.judge_clock(None, services, callers), level, r"\d s (ahead|behind) of (the callers|web services)")


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (CHAIN, "ok", r"2 of 4 .* 0% .*; we earn 8 alpha a day = 0\.4 TAO, 12 TAO a month"),
        (on(price=None), "ok", "we earn 8 alpha a day$"),
        (on(tempo=None), "ok", "0% of it is burned$"),
        (on(has_consensus=False, members=[]), "warning", "without consensus"),
        (paid(0, 0, 0, 0), "problem", "halted"),
        (paid(1, 0, 0, 0), "problem", "burning: 100%"),
        (paid(0.995, 0, 0.005, 0), "problem", "burning: (99|100)%"),
        (paid(0.9, 0, 0.05, 0.05), "warning", "90% of it"),
        (paid(0.1, 0, 0.5, 0.4), "ok", "10% of it"),
        (paid(0, 0, 1, 0), "problem", "goes to uid 2"),
        (paid(0, 0, 0, 1), "ok", "1 of 4"),  # it goes to us
        (on(burned=1.0), "problem", "burning: 100%"),
        (on(owner_hotkey="", owner_coldkey="cold-other", members=SUBNET.members[:3]), "problem", "burning: 100%"),
        (on(members=[replace(one, emission=0) for one in SUBNET.members]), "problem", "emits nothing"),
        (on(block=20_000), "warning", "no validator"),
        (DARK, "warning", "not read"),
    ],
)
def test_pay(facts: chain.ChainFacts, level: Level, words: str) -> None:
    expect(chain.judge_pay(facts, WHO), level, words)


@pytest.mark.parametrize(("cost", "level"), [(11.9, "ok"), (12.1, "warning")])
def test_pay_against_what_the_machine_costs(cost: float, level: Level) -> None:
    expect(chain.judge_pay(CHAIN, WHO, MachineCost(cost)), level, "12 TAO a month")
    assert chain.judge_pay(on(price=None), WHO, MachineCost(cost)).level == "ok", "nothing to compare with"


@pytest.mark.parametrize(("cost", "level"), [(29.9, "ok"), (30.1, "warning")])
def test_pay_of_several_hotkeys_is_what_all_of_them_earn(cost: float, level: Level) -> None:
    who = replace(WHO, others=("other", "nowhere"))
    expect(chain.judge_pay(CHAIN, who, MachineCost(cost)), level, "2 hotkeys .* 30 TAO a month")


def test_a_subnet_that_pays_another_hotkey_of_ours_alone_pays_us() -> None:
    expect(chain.judge_pay(paid(0, 0, 1, 0), replace(WHO, others=("other",))), "ok", "1 of 4")


def test_pay_of_which_nobody_knows_how_much_is_burned_is_not_well() -> None:
    unsaid = on(owner_hotkey=None, owner_coldkey=None, burned=None)
    expect(chain.judge_pay(unsaid, WHO), "warning", "not known")


FIRST = Ownership("StreetVision", "cold-owner", 3_000, 1_700_000_000.0)


def remembered(first: Ownership | None = FIRST, *costs: float) -> MarketMemory:
    return MarketMemory(Path("market.json"), first, [(NOON - 60 * n, cost) for n, cost in enumerate(costs)])


@pytest.mark.parametrize(
    ("facts", "memory", "level", "words"),
    [
        (CHAIN, None, "ok", "72 is 'StreetVision', .*cold-owner, .* 3000$"),
        (CHAIN, remembered(), "ok", "^72 is"),
        (CHAIN, remembered(None), "ok", "^72 is"),
        (on(owner_coldkey="cold-buyer"), None, "ok", "owned by cold-buyer"),
        (
            on(owner_coldkey="cold-buyer"),
            remembered(),
            "warning",
            "changed hands: .*cold-buyer; on 2023-11-14 ",
        ),
        (on(registered_at=9_000), remembered(), "problem", "changed hands: .* since block 9000; .* of block 3000"),
        (on(name="NATIX Network"), remembered(), "ok", "'NATIX Network'"),
        (on(name="Street Vision"), remembered(), "ok", "'Street Vision'"),
        (on(name="Widgets"), remembered(), "warning", "'Widgets'"),
        (on(name=""), remembered(), "ok", "no name on chain"),
        (on(name=None), remembered(), "ok", "no name on chain"),
        (on(owner_coldkey=None), remembered(), "warning", "does not say"),
        (DARK, None, "warning", "not read"),
    ],
)
def test_subnet(facts: chain.ChainFacts, memory: MarketMemory | None, level: Level, words: str) -> None:
    finding = chain.judge_subnet(replace(facts, memory=memory), WHO)
    expect(finding, level, words)
    if "changed" in words:
        assert finding.todo.endswith("delete market.json")


@pytest.mark.parametrize(
    ("facts", "memory", "level", "words"),
    [
        (CHAIN, None, "ok", r"^0\.5 TAO to register$"),
        (CHAIN, remembered(FIRST, 0.2, 0.4), "ok", "register$"),
        (CHAIN, remembered(FIRST, 0.4, 0.16), "warning", r"3\.1 times the least"),
        (CHAIN, remembered(FIRST, 0.4, *[0.4] * 1440, 0.16), "ok", "register$"),  # over a day ago
        (on(lock_share=0.25), None, "ok", "25% is locked"),
        (on(cost=None, unsaid={"cost": "no Burn"}), remembered(), "warning", "no Burn"),
        (DARK, None, "warning", "not read"),
    ],
)
def test_cost(facts: chain.ChainFacts, memory: MarketMemory | None, level: Level, words: str) -> None:
    expect(chain.judge_cost(replace(facts, memory=memory), NOON), level, words)


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        (CHAIN, "ok", r"1 of 1 .* 5000 blocks \(17 h\)"),
        (on(block=14_900), "ok", "1 of 1"),
        (on(block=14_901), "problem", "0 of 1"),
        (on(members=SUBNET.members[2:]), "problem", "0 of 0"),
        (DARK, "warning", "not read"),
    ],
)
def test_validators(facts: chain.ChainFacts, level: Level, words: str) -> None:
    expect(chain.judge_validators(facts), level, words)


@pytest.mark.parametrize(
    ("facts", "rules", "level"),
    [
        (CHAIN, Rules(), "ok"),
        (CHAIN, Rules(min_stake=10.5), "problem"),
        (CHAIN, Rules(deny=frozenset({"validator"})), "problem"),
        (on(members=[*SUBNET.members, member(9, "big", permit=True, update=9_999)]), Rules(True, False, 10.0), "ok"),
        (
            on(members=[*SUBNET.members, member(9, "shut out", permit=True, update=9_999)]),
            Rules(deny=frozenset({"shut out"})),
            "warning",
        ),
        (on(block=20_000), Rules(), "warning"),
        (DARK, Rules(), "warning"),
    ],
)
def test_rules(facts: chain.ChainFacts, rules: Rules, level: Level) -> None:
    assert chain.judge_rules(facts, rules).level == level


@pytest.mark.parametrize(
    ("facts", "who", "level", "words"),
    [
        (CHAIN, WHO, "ok", "uid 3 of 4 on subnet 72"),
        (CHAIN, replace(WHO, hotkey="stranger"), "problem", "not registered .* 72 of finney"),
        (CHAIN, NOBODY, "warning", "without a hotkey"),
        (DARK, WHO, "warning", "not read"),
    ],
)
def test_registration(facts: chain.ChainFacts, who: chain.ChainIdentity, level: Level, words: str) -> None:
    finding = chain.judge_registration(facts, who)
    expect(finding, level, words)
    if level == "problem":
        assert "btcli subnet register --netuid 72 --wallet wallet --hotkey stranger --network finney" in finding.todo


@pytest.mark.parametrize(
    ("facts", "who", "level", "words"),
    [
        (CHAIN, WHO, "ok", r"incentive 0\.4000, rank 2 of 2 who earn; immune for 60 min; not among those"),
        (on(capacity=9), WHO, "ok", "immune for 60 min"),
        (on(immunity=None), WHO, "ok", "who earn$"),
        (on(immunity=0), WHO, "warning", "no longer immune; number 2 of 3 to be replaced"),
        (on(immunity=0, capacity=6), WHO, "ok", "number 2 of 3 to be replaced and 2 free"),
        (on(immunity=0, floor=9), WHO, "ok", "no longer immune; not"),
        (paid(0, 0, 1, 0), WHO, "ok", "earns nothing, like 1 of 2"),
        (paid(1, 0, 0, 0), WHO, "ok", "nothing, like all others"),
        (CHAIN, replace(WHO, hotkey="stranger"), "warning", "not registered"),
        (CHAIN, NOBODY, "warning", "without a hotkey"),
        (DARK, WHO, "warning", "not read"),
    ],
)
def test_standing(facts: chain.ChainFacts, who: chain.ChainIdentity, level: Level, words: str) -> None:
    expect(chain.judge_standing(facts, who), level, words)


@pytest.mark.parametrize(
    ("published", "ours", "is_running", "level", "words"),
    [
        (OURS, OURS, True, "ok", r"1\.2\.3\.4:8091, published at block 9000"),
        (replace(OURS, protocol=0), OURS, True, "ok", "published"),
        (OURS, replace(OURS, port=8092), True, "problem", r"has 1\.2\.3\.4:8091, this machine is 1\.2\.3\.4:8092"),
        (OURS, replace(OURS, ip=ip_address("5.6.7.8")), False, "problem", "this machine is 5"),
        (None, OURS, True, "problem", "chain has none"),
        (None, OURS, False, "warning", "none on chain"),
        (OURS, "none of 5 services could tell", True, "problem", "none of 5 services could tell"),
        (PRIVATE, OURS, True, "problem", r"has 192\.168\.1\.20:8091 \(a private address, .*this machine is 1\.2\.3\.4"),
        (SIXTH, OURS, True, "problem", r"has \[2600::1\]:8091 \(an IPv6 address, .*this machine is 1\.2\.3\.4:8091"),
        (PRIVATE, "none of 5 services could tell", True, "problem", r"has 192\.168\.1\.20:8091 \(a private address"),
    ],
)  # fmt: skip
def test_address(
    published: PublishedEndpoint | None, ours: PublishedEndpoint | str, is_running: bool, level: Level, words: str
) -> None:
    facts = replace(CHAIN, published=PublishedRecord(published, 9000))
    expect(chain.judge_address(facts, WHO, ours, "0.0.0.0", running=is_running), level, words)


@pytest.mark.parametrize("address", ["192.168.1.20", "0.0.0.0", "127.0.0.1", "169.254.3.4", "fe80::1", "2600::1"])
@pytest.mark.parametrize("is_running", [True, False])
def test_an_address_that_nobody_reaches_is_promised_to_nobody(address: str, is_running: bool) -> None:
    """Whether it stands on chain, or not yet, or the chain was never read, or the hotkey is not registered."""
    ours = PublishedEndpoint(ip_address(address), 8091)
    stands, none = (replace(CHAIN, published=PublishedRecord(one, 9000)) for one in (ours, None))
    for facts in (stands, none, DARK):
        for who in (WHO, NOBODY, replace(WHO, hotkey="stranger")):
            finding = chain.judge_address(facts, who, ours, "0.0.0.0", running=is_running)
            expect(finding, "problem", "^" + re.escape(f"{ours}: "))
            assert "AXON_EXTERNAL_IP" in finding.todo


def test_an_ipv6_address_is_as_good_where_it_is_listened_on() -> None:
    for host in ("::", "2600::1"):
        facts = replace(CHAIN, published=PublishedRecord(SIXTH, 9000))
        expect(chain.judge_address(facts, WHO, SIXTH, host, running=True), "ok", r"\[2600::1\]:8091, published")


@pytest.mark.parametrize(
    ("facts", "version", "chain_level", "sdk_level"),
    [
        (CHAIN, "11.3.0", "ok", "ok"),
        (CHAIN, "11.10.2", "ok", "ok"),
        (CHAIN, "11.2.9", "ok", "problem"),
        (CHAIN, "10.5.0", "ok", "problem"),
        (CHAIN, "12.0.0", "ok", "problem"),
        (DARK, "11.3.0", "problem", "warning"),
        (
            replace(CHAIN, subnet=None, fault="an answer that can't be read (X: y)", is_unreadable=True),
            "11.3.0",
            "ok",
            "problem",
        ),
        (replace(CHAIN, subnet=None, fault="subnet 72 does not exist there"), "11.3.0", "problem", "ok"),
    ],
)
def test_chain_and_sdk(facts: chain.ChainFacts, version: str, chain_level: Level, sdk_level: Level) -> None:
    assert chain.judge_chain(facts).level == chain_level
    assert chain.judge_sdk(facts, version).level == sdk_level
