"""Money in sight: what becomes of a subnet shows on page, metrics and in the check-up of a running miner."""

from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.process.chain.checkup import Prober, Report, Setup
from tests.process.chain.conftest import miners
from tests.process.chain.live_node import NETUID, OWN_UID, SHARES, LiveNode, address_of, healthy_node
from tests.process.chain.scene import register, settled
from tests.process.daemon import Daemon, eventually
from tests.process.prometheus import Prometheus

TAO = 10**9
BUYER = address_of(3000)


class Watched:
    """A settled miner that reads its subnet's market once a second."""

    def __init__(self, node: LiveNode, daemon: Daemon, prober: Prober, prometheus: Prometheus) -> None:
        self.node = node
        self.daemon = daemon
        self.prober = prober
        self.prometheus = prometheus

    def earnings(self) -> dict[str, Any]:
        """Return the part of /status."""
        found: dict[str, Any] = self.daemon.page("/status").json()["earnings"]
        return found

    def card(self) -> str:
        """Return the card of the page, as text."""
        page = unescape(self.daemon.page("/").text)
        return page.partition("<h2>Earnings</h2>")[2].partition("</section>")[0]

    def metric(self, name: str, /, **labels: str) -> float | None:
        """Return a sample; None: it is absent."""
        return sample(self.daemon, name, labels)

    def alarms(self, name: str) -> None:
        """Wait until a real Prometheus, with the shipped rules, holds the alert to be true; it fires after its time."""
        alert = f'ALERTS{{alertname="RoadworkMiner{name}"}}'
        eventually(lambda: self.prometheus.ask(alert))

    def doctor(self) -> Report:
        return Setup(self.node, self.daemon, self.prober).doctor()


def sample(daemon: Daemon, name: str, labels: dict[str, str]) -> float | None:
    for family in text_string_to_metric_families(daemon.page("/metrics").text):
        for one in family.samples:
            if one.name == f"roadwork_miner_{name}" and one.labels.items() >= labels.items():
                return float(one.value)
    return None


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Watched]:
    node = healthy_node()
    prober = Prober()
    with miners(node, tmp_path_factory.mktemp("earnings"), model) as start:
        daemon = start(COST_PER_MONTH=300, TAO_PRICE=200)
        register(node, daemon)
        settled(node, daemon)
        eventually(lambda: daemon.page("/status").json()["earnings"]["age_seconds"] is not None)
        target = f"127.0.0.1:{daemon.status_port}"
        with Prometheus(tmp_path_factory.mktemp("prometheus"), [target]) as prometheus:
            yield Watched(node, daemon, prober, prometheus.scrapes(target))
    prober.server_close()
    node.stop()


@pytest.fixture(autouse=True)
def healthy(watched: Watched) -> Iterator[None]:
    """Put the subnet back as it was."""
    node = watched.node
    members = {uid: vars(member).copy() for uid, member in node.members.items()}
    yield
    for uid, before in members.items():
        vars(node.members[uid]).update(before)
    node.store("SubnetOwner", [NETUID], node.members[0].coldkey)
    node.store("NetworkRegisteredAt", [NETUID], 500)
    node.store("Burn", [NETUID], TAO // 2)
    node.name("StreetVision")
    node.price = 0.05
    for item in ("MinerBurned", "MaxAllowedUids", "ImmunityPeriod", "MinNonImmuneUids", "BlockAtRegistration"):
        params = [NETUID, OWN_UID] if item == "BlockAtRegistration" else [NETUID]
        node.store(item, params, None)
    eventually(lambda: watched.earnings()["pay"] == "paid" and not watched.earnings()["changed"])


def test_a_healthy_subnet(watched: Watched) -> None:
    own, node = watched.daemon.keys.miner.hotkey.ss58_address, watched.node
    earnings = watched.earnings()
    (key,) = earnings["keys"]
    emission, tempo, seconds = 100 * 1000 / TAO, 10, 0.25  # this chain's blocks are fast, its tempo the default
    alpha = emission * 86400 / (tempo * seconds)
    assert key["alpha_per_day"] == pytest.approx(alpha)
    assert key["tao_per_day"] == pytest.approx(alpha * 0.05)
    assert (key["rank"], key["shared"], earnings["earners"], earnings["miners"]) == (3, 0, 3, 4)
    assert (earnings["name"], earnings["owner"]) == ("StreetVision", node.members[0].coldkey)
    assert (earnings["registered_at"], earnings["changed"], earnings["pay"]) == (500, "", "paid")
    assert (earnings["registration_cost_tao"], earnings["machine_cost_tao_per_month"]) == (0.5, 1.5)
    assert watched.metric("income_tao_per_day", hotkey=own) == pytest.approx(alpha * 0.05)
    assert watched.metric("incentive_rank", hotkey=own) == 3
    assert watched.metric("subnet_pay", state="paid") == 1
    assert watched.metric("subnet_info", name="StreetVision", registered_at="500") == 1
    assert watched.metric("machine_cost_tao_per_day") == pytest.approx(0.05)
    assert "has_consensus" in earnings["unsaid"], "a runtime of 461 does not know it"


def test_burned_whole(watched: Watched) -> None:
    node = watched.node
    node.store("MinerBurned", [NETUID], {"bits": 2**32})
    eventually(lambda: watched.earnings()["pay"] == "burned")
    assert watched.earnings()["burned"] == 1
    assert "burned: miners get nothing" in watched.card()
    assert watched.metric("subnet_burned_ratio") == 1
    assert (watched.metric("subnet_pay", state="burned"), watched.metric("subnet_pay", state="paid")) == (1, 0)
    watched.alarms("Burned")
    report = watched.doctor()
    assert report.levels["pay"] == "problem"
    assert "100%" in report.words["pay"]


def test_halted(watched: Watched) -> None:
    own = watched.daemon.keys.miner.hotkey.ss58_address
    for member in watched.node.members.values():
        member.incentive = 0
    eventually(lambda: watched.earnings()["pay"] == "halted")
    assert "halted" in watched.card()
    assert watched.metric("subnet_pay", state="halted") == 1
    assert watched.metric("income_alpha_per_day", hotkey=own) == 0
    assert watched.metric("incentive_rank", hotkey=own) is None, "there is no rank among none"
    assert watched.metric("subnet_miners", earns="yes") == 0
    watched.alarms("SubnetPaysNobody")
    report = watched.doctor()
    assert report.levels["pay"] == "problem"
    assert "halted" in report.words["pay"]
    assert "earns nothing" in report.words["standing"]


def test_sold_to_another_owner(watched: Watched) -> None:
    node = watched.node
    before = node.members[0].coldkey
    node.store("SubnetOwner", [NETUID], BUYER)
    eventually(lambda: watched.earnings()["changed"] == "owner")
    for name in (before, BUYER):
        assert name in watched.earnings()["changed_words"]
        assert name in watched.card()
        assert name in watched.doctor().words["subnet"]
    assert (watched.metric("subnet_changed", what="owner"), watched.metric("subnet_info", owner=BUYER)) == (1, 1)
    assert watched.doctor().levels["subnet"] == "warning"
    watched.alarms("SubnetChangedHands")
    assert "changed hands" in watched.daemon.log


def test_another_subnet_under_its_number(watched: Watched) -> None:
    watched.node.store("NetworkRegisteredAt", [NETUID], 900)
    watched.node.name("Widgets")
    eventually(lambda: watched.earnings()["changed"] == "registration")
    assert "Widgets" in watched.card()
    assert watched.metric("subnet_changed", what="registration") == 1
    assert watched.doctor().levels["subnet"] == "problem"


def test_about_to_be_replaced(watched: Watched) -> None:
    own, node = watched.daemon.keys.miner.hotkey.ss58_address, watched.node
    node.members[OWN_UID].incentive = 0
    node.store("MaxAllowedUids", [NETUID], len(node.members))
    node.store("ImmunityPeriod", [NETUID], 10)
    node.store("MinNonImmuneUids", [NETUID], 0)
    node.store("BlockAtRegistration", [NETUID, OWN_UID], 0)
    eventually(lambda: (watched.metric("registrations_to_replacement", hotkey=own) or 99) <= 3)
    (key,) = watched.earnings()["keys"]
    assert key["registrations_to_replacement"] <= 3
    count = key["registrations_to_replacement"]
    assert f"{count} registration{'s' * (count != 1)}" in watched.card()
    assert watched.metric("immunity_seconds", hotkey=own) == 0
    watched.alarms("AboutToBeReplaced")
    report = watched.doctor()
    assert report.levels["standing"] == "warning"
    assert "no longer immune" in report.words["standing"]


def test_a_registration_costs_three_times_as_much(watched: Watched) -> None:
    watched.node.store("Burn", [NETUID], 3 * TAO // 2)
    eventually(lambda: (watched.earnings()["registration_cost_rise"] or 0) >= 3)
    assert "1.5 TAO, 3.0 ×" in watched.card()
    assert watched.metric("registration_cost_tao") == 1.5
    assert watched.metric("registration_cost_rise") == 3
    watched.alarms("RegistrationCostTripled")
    report = watched.doctor()
    assert report.levels["cost"] == "warning"
    assert "3.0 times" in report.words["cost"]


def test_a_price_that_the_node_does_not_tell_is_absent_and_said(watched: Watched) -> None:
    own = watched.daemon.keys.miner.hotkey.ss58_address
    watched.node.price = None
    eventually(lambda: watched.earnings()["alpha_price_tao"] is None)
    assert "price" in watched.earnings()["unsaid"]
    assert "the chain doesn't say" in watched.card()
    assert watched.metric("alpha_price_tao") is None
    assert watched.metric("income_tao_per_day", hotkey=own) is None
    assert watched.metric("income_alpha_per_day", hotkey=own) is not None


def test_shares_are_of_all(watched: Watched) -> None:
    """Two that earn the same share a rank."""
    for uid in (2, 3):
        assert watched.node.members[uid].incentive == SHARES // 3
    watched.node.members[OWN_UID].incentive = SHARES // 3
    eventually(lambda: watched.earnings()["keys"][0]["shared"] == 2)
    assert watched.earnings()["keys"][0]["rank"] == 1
    assert "1 of 3 who earn, shared with 2" in watched.card()
