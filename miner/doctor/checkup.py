"""The order of the check-up: facts are read under a time limit each, a minute in all, and judged as they come."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

from miner.axon.caller import Rules
from miner.chain.client import CLOSE_SECONDS, GRACE_SECONDS, ChainClient, ChainFault
from miner.chain.earnings import MachineCost
from miner.chain.market import load_memory, read_metagraph
from miner.chain.publication import AddressUnknown, find_external_ip
from miner.chain.queries import UNPUBLISHED, PublishedEndpoint, read_head, read_published
from miner.chain.sync import SnapshotStore
from miner.doctor import chain, daemon, machine, model, natix
from miner.doctor import settings as files
from miner.doctor.findings import Finding, asked_in_time, in_time, judged, late, ok
from miner.inference.loader import seconds_allowed
from miner.natix.registration import Registrations
from miner.settings.settings import Settings

# In all 55 s at the worst; the pictures are timed while others are waited for.
WALLET_SECONDS = 6.0  # an encrypted key takes two
SUMS_SECONDS = 8.0
LOCAL_SECONDS = 3.0
NETWORK_SECONDS = 18.0  # a block takes 12
CHAIN_SECONDS = NETWORK_SECONDS + GRACE_SECONDS + CLOSE_SECONDS
SERVICES_SECONDS = 6.0  # all are asked at once
HUB_SECONDS = natix.HUB_SECONDS + 2  # beside them; a slow name server is left behind
INFERENCE_SECONDS = 35.0

STANDALONE = ok("chain", "standalone: no chain is contacted, nothing is published, nothing is earned")


@dataclass(frozen=True, slots=True)
class CheckStep:
    """What is looked at next, for the progress display."""

    words: str


@dataclass(slots=True)
class CheckUp:
    """One run; `is_running` and `clock_ahead` are known once the miner was asked."""

    settings: Settings
    probe: str | None = None
    pictures: Path | None = None  # labelled photos
    others: Sequence[Settings] = ()  # of the other hotkeys that the miner serves
    is_running: bool = False
    clock_ahead: float | None = None  # of those who asked the running miner, seconds

    async def examine(self) -> AsyncIterator[CheckStep | Finding]:
        """Yield each step before it is taken, and each finding as soon as it is judged."""
        settings = self.settings
        yield CheckStep("the keys")
        wallet = await in_time(
            partial(files.read_wallet, settings), WALLET_SECONDS, lambda words: files.WalletFacts(fault=words)
        )
        yield judged("hotkey", lambda: files.judge_hotkey(wallet))
        yield judged("coldkey", lambda: files.judge_coldkey(wallet))

        yield CheckStep("the machine and the model's sums")
        miner = await in_time(
            partial(daemon.read_running, settings), LOCAL_SECONDS, lambda words: daemon.RunningFacts(fault=words)
        )
        found_there, miner = miner, daemon.own_facts(miner, wallet.hotkey)
        self.is_running, self.clock_ahead = miner.running, miner.clock_ahead
        prepared = await self._read_model()
        yield judged("cpu", lambda: machine.judge_cpu(machine.read_cpu(settings, miner)))
        yield judged("memory", lambda: machine.judge_memory(machine.read_memory_facts(prepared.bytes, miner)))
        yield judged(
            "disk", lambda: machine.judge_disk(machine.read_disks(settings, prepared=prepared.manifest is not None))
        )
        found = judged("model", lambda: model.judge_model(prepared, settings.subtensor_network))
        yield found

        yield CheckStep(f"{model.INFERENCES} pictures through the model, the chain, the way to us")
        measuring = asyncio.ensure_future(self._measure(found, prepared))
        try:
            chain_findings, registered, address = await self._examine_chain(wallet.hotkey)
            port = await in_time(
                partial(daemon.read_port, settings, running=miner.running),
                LOCAL_SECONDS,
                lambda words: daemon.PortFacts(settings.miner_axon_host, settings.miner_axon_port, words),
            )
            reach = await self._reach(address)
            for judgement in await measuring:
                yield judgement
        finally:
            measuring.cancel()
        now = time.time()
        yield judged("miner", lambda: daemon.judge_running(found_there, wallet.hotkey, registered=registered))
        yield judged("port", lambda: daemon.judge_port(port, running=miner.running))
        if self._host is not None or isinstance(address, PublishedEndpoint):  # somebody is to come from elsewhere
            yield judged("reachable", lambda: daemon.judge_reach(reach, miner, now, wallet.hotkey, self._host))
        yield judged("asked", lambda: daemon.judge_asked(miner, now))
        for finding in chain_findings:
            yield finding

    async def _read_model(self) -> model.ModelFacts:
        settings = self.settings
        none = model.ModelFacts(settings.detector_config, settings.image_detector)
        prepared = await in_time(
            partial(model.read_model, settings),
            LOCAL_SECONDS,
            lambda words: replace(none, fault=words),
            lambda words: replace(none, unchecked=words),
        )
        if prepared.manifest is None or prepared.fault:
            return prepared
        return await in_time(
            partial(model.check_sums, settings, prepared),
            SUMS_SECONDS,
            lambda words: replace(prepared, fault=words),
            lambda words: replace(prepared, unchecked=words),
        )

    async def _measure(self, found: Finding, prepared: model.ModelFacts) -> list[Finding]:
        settings = self.settings
        allowed = seconds_allowed(settings)
        if found.level == "problem":
            return [model.judge_inference(None, allowed)]
        measured = await model.read_inference(settings, INFERENCE_SECONDS, self.pictures)
        pace = judged("inference", lambda: model.judge_inference(measured, allowed))
        counted = model.judge_class(prepared, measured)
        return [pace] if counted is None else [pace, counted]

    @property
    def _host(self) -> str | None:
        return None if self.settings.is_standalone else self.settings.miner_axon_host

    async def _reach(self, address: PublishedEndpoint | str) -> daemon.ReachFacts:
        if isinstance(address, str):
            return daemon.ReachFacts(f"ADDRESS:{self.settings.axon_external_port or self.settings.miner_axon_port}")
        return await asked_in_time(
            partial(daemon.read_reach, str(address), str(address.ip), address.port, self.probe),
            daemon.PROBE_SECONDS,
            lambda words: daemon.ReachFacts(str(address), None, words),
        )

    async def _examine_chain(self, hotkey: str) -> tuple[list[Finding], bool | None, PublishedEndpoint | str]:
        settings = self.settings
        if settings.is_standalone:
            return [STANDALONE], None, _local_address(settings)
        facts, services, ours, published, others = await asyncio.gather(
            _read_chain(settings, hotkey), _ask_services(settings), _own_address(settings), _read_published(settings),
            in_time(partial(files.read_addresses, self.others), CHAIN_SECONDS, lambda _: ()),
        )  # fmt: skip
        who = chain.ChainIdentity(settings.netuid, settings.wallet_name, hotkey, settings.chain_address, others)
        judges = {
            "chain": lambda: chain.judge_chain(facts),
            "sdk": lambda: chain.judge_sdk(facts, version("bittensor")),
            "clock": lambda: chain.judge_clock(facts.head, services, self.clock_ahead),
            "registration": lambda: chain.judge_registration(facts, who),
            "standing": lambda: chain.judge_standing(facts, who),
            "address": lambda: chain.judge_address(facts, who, ours, settings.miner_axon_host, running=self.is_running),
            "validators": lambda: chain.judge_validators(facts),
            "rules": lambda: chain.judge_rules(facts, Rules.of(settings)),
            "pay": lambda: chain.judge_pay(facts, who, MachineCost.of(settings.cost_per_month, settings.tao_price)),
            "subnet": lambda: chain.judge_subnet(facts, who),
            "cost": lambda: chain.judge_cost(facts, time.time()),
            "natix": lambda: natix.judge_natix(facts.subnet, who, Registrations(settings.state_dir)),
            "published": lambda: natix.judge_published(published, hotkey),
        }
        registered = chain.own_uid(facts.subnet, hotkey) is not None if facts.subnet is not None else None
        return [judged(name, judge) for name, judge in judges.items()], registered, ours


async def _read_chain(settings: Settings, hotkey: str) -> chain.ChainFacts:
    address = settings.chain_address
    store = SnapshotStore(settings.state_dir, address, settings.netuid)

    async def read() -> chain.ChainFacts:
        head = None
        with tempfile.TemporaryDirectory() as cache:  # not the miner's own: this may run as another user
            client = ChainClient(address, Path(cache))
            try:
                async with asyncio.timeout(NETWORK_SECONDS):
                    head = await client.call(read_head, NETWORK_SECONDS)
                    graph = partial(read_metagraph, netuid=settings.netuid, hotkeys=[hotkey])
                    subnet = await client.call(graph, NETWORK_SECONDS)
                    record = partial(read_published, record="axon", netuid=settings.netuid, hotkey=hotkey)
                    published = await client.call(record, NETWORK_SECONDS) if hotkey else UNPUBLISHED
                    return chain.ChainFacts(address, head, subnet, published, load_memory(store))
            except ChainFault as fault:
                return chain.ChainFacts(
                    address, head, fault=str(fault), is_unreadable=head is not None and fault.is_unreadable
                )
            except TimeoutError:
                return chain.ChainFacts(address, head, fault=late(NETWORK_SECONDS))
            finally:
                await client.close()

    return await asked_in_time(read, CHAIN_SECONDS, lambda words: chain.ChainFacts(address, fault=words))


async def _read_published(settings: Settings) -> natix.PublishedFacts:
    return await in_time(
        partial(natix.read_published, settings), HUB_SECONDS, lambda words: natix.no_facts(settings, words)
    )


async def _ask_services(settings: Settings) -> float | None:
    """Compare clocks with the services that the miner asks for its address; none where it asks none."""
    if settings.axon_external_ip:
        return None
    return await asked_in_time(chain.ask_services, SERVICES_SECONDS, lambda _: None)


async def _own_address(settings: Settings) -> PublishedEndpoint | str:
    if settings.axon_external_ip:
        return _local_address(settings)
    port = settings.axon_external_port or settings.miner_axon_port

    async def find() -> PublishedEndpoint | str:
        try:
            return PublishedEndpoint(ip_address(await find_external_ip()), port)
        except AddressUnknown as error:
            return str(error)

    return await asked_in_time(find, SERVICES_SECONDS, lambda words: f"the services for our address: {words}")


def _local_address(settings: Settings) -> PublishedEndpoint | str:
    if not settings.axon_external_ip:
        return "not published"
    return PublishedEndpoint(
        ip_address(settings.axon_external_ip), settings.axon_external_port or settings.miner_axon_port
    )
