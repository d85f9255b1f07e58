"""What metrics and page read of the parts of a daemon, from before they are there."""

from dataclasses import replace
from math import inf, isnan
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest

from miner.axon.clock import ClockWatch
from miner.chain.base import EMPTY, Neuron, Snapshot
from miner.chain.earnings import Metagraph
from miner.chain.identities import Identity
from miner.chain.market import Market, MarketMemory
from miner.chain.queries import Subnet
from miner.chain.sync import SubnetReader
from miner.metrics import Metrics
from miner.natix.registration import Registration
from miner.settings.settings import Settings
from miner.status.overview import memory_view
from miner.status.watch import Watch
from tests.labels import label, record


class FakeChain:
    """A chain that was never read, until it is."""

    obstacle: ClassVar[str | None] = None
    fault: str | None = None
    age = inf
    publication = "not published: not tried yet"
    is_published = False
    syncs = failures = 0

    hotkey = "own"

    def __init__(self) -> None:
        self.snapshot = EMPTY

    @property
    def uid(self) -> int | None:
        return self.snapshot.uid_of(self.hotkey)

    def read(self) -> None:
        neurons = {
            "own": Neuron(4, "own", 12.5, False, incentive=0.25, trust=0.5),
            "v": Neuron(9, "v", 1000.0, True, last_update=7000),
            "asleep": Neuron(10, "asleep", 1000.0, True, last_update=2000),
        }
        self.snapshot = Snapshot(7700, 0.0, MappingProxyType(neurons))
        self.age, self.publication = 3.0, "published 203.0.113.7:8091"
        self.is_published = True
        self.syncs, self.failures = 5, 2

    async def start(self) -> None: ...

    async def publish(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.fixture
def watch() -> Watch:
    return Watch(Settings(), Metrics(), lambda: "starting", ClockWatch())


def value(watch: Watch, name: str, /, **labels: str) -> float | None:
    found: float | None = watch.metrics.registry.get_sample_value(f"roadwork_miner_{name}", labels)
    return found


def test_a_daemon_that_has_just_started(watch: Watch) -> None:
    shown = watch.overview(memory_view())
    assert (shown.ready, shown.obstacle) == (False, "starting")
    assert (shown.model, shown.queue, shown.chain) == (None, None, None)
    assert shown.memory.resident > 0
    assert value(watch, "ready") == 0


def test_a_chain_that_was_never_read_has_no_numbers_rather_than_wrong_ones(watch: Watch) -> None:
    watch.see_identities([Identity(watch.settings, chain=FakeChain())])
    assert value(watch, "chain_age_seconds") == inf
    assert value(watch, "chain_registered", hotkey="own") == 0
    assert value(watch, "chain_syncs_total") == 0
    assert value(watch, "chain_uid", hotkey="own") == -1
    assert value(watch, "hotkey_info", name="default", hotkey="own", uid="") == 1
    stake = value(watch, "chain_stake", hotkey="own")
    assert stake is not None
    assert isnan(stake)
    shown = watch.overview(memory_view()).chain
    assert shown is not None
    assert (shown.age_seconds, shown.stake, shown.uid) == (None, None, None)
    assert watch.overview(memory_view()).model_dump_json()  # infinity is no JSON


def test_a_chain_that_is_read_is_shown_from_then_on(watch: Watch) -> None:
    chain = FakeChain()
    watch.see_identities([Identity(watch.settings, chain=chain)])
    chain.read()
    watch.count_from_zero()
    assert value(watch, "chain_age_seconds") == 3
    assert value(watch, "chain_block") == 7700
    assert value(watch, "chain_uid", hotkey="own") == 4
    assert value(watch, "hotkey_info", name="default", hotkey="own", uid="4") == 1
    assert value(watch, "hotkey_info", name="default", hotkey="own", uid="") is None
    assert value(watch, "chain_registered", hotkey="own") == 1
    assert value(watch, "chain_published", hotkey="own") == 1
    assert value(watch, "chain_stake", hotkey="own") == 12.5
    assert value(watch, "chain_incentive", hotkey="own") == 0.25
    assert value(watch, "chain_trust", hotkey="own") == 0.5
    assert value(watch, "chain_neurons") == 3
    assert value(watch, "chain_validators") == 2
    assert value(watch, "chain_validators_active") == 1
    assert value(watch, "chain_syncs_total") == 5
    assert value(watch, "chain_failures_total") == 2
    assert value(watch, "validator_requests_total", uid="9") == 0
    assert value(watch, "identity_info", hotkey="own", network="standalone", netuid="323") == 1
    shown = watch.overview(memory_view()).chain
    assert shown is not None
    assert shown.publication == "published 203.0.113.7:8091"
    assert watch.freshness() == {"age_seconds": 3, "fault": None, "publication": shown.publication}
    assert (shown.incentive, shown.trust) == (0.25, 0.5)


def test_whether_natix_knows_each_hotkey_follows_the_file_and_the_uid(tmp_path: Path) -> None:
    settings = Settings(subtensor_network="finney", netuid=72, state_dir=tmp_path)
    watch, chain = Watch(settings, Metrics(), lambda: None, ClockWatch()), FakeChain()
    watch.see_identities([Identity(settings, chain=chain)])

    def shown() -> tuple[float | None, str, str]:
        whole = watch.overview(memory_view())
        assert whole.chain is not None
        assert whole.chain.natix is not None
        assert whole.keys[0].natix == whole.chain.natix
        natix = whole.chain.natix
        return value(watch, "natix_registered", hotkey="own"), natix.standing, natix.command

    assert shown() == (0, "unknown", ""), "a uid comes first"
    chain.read()
    assert shown()[:2] == (0, "unknown")
    assert "--status" in shown()[2]
    kept = Registration(progress="succeeded", netuid=72, uid=4, sent=5.0, since=5.0, at=5.0)
    watch.registrations.keep("own", kept)
    assert shown() == (1, "yes", "")
    own = chain.snapshot.neurons["own"]
    moved = MappingProxyType(dict(chain.snapshot.neurons) | {"own": replace(own, uid=5)})
    chain.snapshot = replace(chain.snapshot, neurons=moved)
    assert shown() == (0, "due", "roadwork-miner register")
    watch.registrations.keep("own", kept.model_copy(update={"uid": 5, "progress": "failed"}))
    assert shown()[:2] == (0, "no")


def test_without_a_chain_natix_is_nobodys_business(watch: Watch) -> None:
    watch.see_identities([Identity(watch.settings, chain=FakeChain())])
    assert value(watch, "natix_registered", hotkey="own") is None
    shown = watch.overview(memory_view())
    assert shown.chain is not None
    assert shown.chain.natix is None


@pytest.mark.parametrize(
    ("network", "netuid", "name", "shown"),
    [
        ("finney", 72, "StreetVision by NATIX", 0),
        ("finney", 72, "Widgets", 1),
        ("finney", 72, "", None),
        ("finney", 72, None, None),
        ("finney", 7, "Widgets", None),
        ("test", 323, "Widgets", 1),
        ("ws://127.0.0.1:9944", 72, "Widgets", None),
    ],
)
def test_the_subnets_name_is_told_where_streetvision_is(
    network: str, netuid: int, name: str | None, shown: float | None, tmp_path: Path
) -> None:
    settings = Settings(subtensor_network=network, netuid=netuid, state_dir=tmp_path)
    watch, market = Watch(settings, Metrics(), lambda: None, ClockWatch()), market_of(settings)
    watch.see_identities([Identity(settings, chain=FakeChain(), market=market)])
    assert value(watch, "subnet_changed", what="name") is None, "not read yet"
    market.graph = Metagraph(1, [], name=name)
    assert value(watch, "subnet_changed", what="name") == shown
    earnings = watch.overview(memory_view()).earnings
    assert earnings is not None
    assert earnings.is_named_as_ours == (None if shown is None else not shown)


def test_every_read_of_the_chain_has_natixs_registration_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(subtensor_network="finney", netuid=72, state_dir=tmp_path)
    watch, market, chain = Watch(settings, Metrics(), lambda: None, ClockWatch()), market_of(settings), FakeChain()
    watch.see_identities([Identity(settings, chain=chain, market=market)])
    chain.read()
    for tell in market.reader.told:
        tell(Subnet(7700, {}, {}))
    assert [record.name for record in caplog.records] == ["miner.natix.registration"]


def market_of(settings: Settings) -> Market:
    reader = SubnetReader(settings.chain_address, settings.netuid, settings.state_dir)
    return Market(reader, MarketMemory(settings.state_dir / "market.json"), 60.0)


def test_photos_that_wait_are_counted_before_a_model_is_there(tmp_path: Path) -> None:
    watch = Watch(Settings(state_dir=tmp_path), Metrics(), lambda: "starting", ClockWatch())
    watch.read_traffic()
    assert watch.overview(memory_view()).traffic is None
    assert (value(watch, "unlabelled_photos"), value(watch, "labelled_photos", **{"class": "roadwork"})) == (0, 0)
    record(tmp_path, 2, first=0)
    label(tmp_path, 1, first=10)
    watch.read_traffic()
    shown = watch.overview(memory_view()).traffic
    assert shown is not None
    assert (shown.photos.waiting, shown.model) == (2, None)
    assert (value(watch, "unlabelled_photos"), value(watch, "labelled_photos", **{"class": "roadwork"})) == (2, 1)
    for name in ("traffic_accuracy_ratio", "promised_accuracy_ratio", "last_improvement_timestamp_seconds"):
        assert value(watch, name) is None
    assert value(watch, "traffic_below_promise") is None
