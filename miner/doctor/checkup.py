"""The check-up in its order: facts are read under a time limit each, a minute in all, and judged as they come."""

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from miner.chain.checkup import read_head, read_standing
from miner.chain.client import ChainClient, ChainFault
from miner.chain.external_address import AddressUnknown, find_external_ip
from miner.chain.reads import Endpoint
from miner.doctor import chain, clock, files, machine, model, running
from miner.doctor.report import Finding, ok
from miner.model import VALIDATORS_WAIT
from miner.requests import rules_of
from miner.settings import Settings

T = TypeVar("T")

# In all 55 s at the worst; the pictures are timed while others are waited for.
WALLET_SECONDS = 6.0  # an encrypted key takes two
MODEL_SECONDS = 8.0
LOCAL_SECONDS = 3.0
NETWORK_SECONDS = 18.0  # a block takes 12
INFERENCE_SECONDS = 35.0


@dataclass(frozen=True, slots=True)
class Step:
    """What is looked at next, for the progress display."""

    words: str


@dataclass(slots=True)
class CheckUp:
    """One run; `is_running` is known once the miner was asked."""

    settings: Settings
    probe: str | None = None
    is_running: bool = False

    async def examine(self) -> AsyncIterator[Step | Finding]:
        """Yield each step before it is taken, and each finding as soon as it is judged."""
        settings = self.settings
        yield Step("the keys")
        wallet = await in_time(
            partial(files.read_wallet, settings), WALLET_SECONDS, files.WalletFacts(fault=_late(WALLET_SECONDS))
        )
        yield files.judge_hotkey(wallet)
        yield files.judge_coldkey(wallet)

        yield Step("the machine and the model's sums")
        late = model.ModelFacts(settings.detector_config, settings.image_detector, fault=_late(MODEL_SECONDS))
        prepared = await in_time(partial(model.read_model, settings), MODEL_SECONDS, late)
        miner = await in_time(partial(running.read_running, settings), LOCAL_SECONDS, running.RunningFacts())
        self.is_running = miner.running
        yield machine.judge_cpu(machine.read_cpu(settings))
        yield machine.judge_memory(machine.read_memory_facts(prepared.bytes, miner.running))
        yield machine.judge_disk(machine.read_disks(settings, prepared=prepared.manifest is not None))
        found = model.judge_model(prepared, settings.subtensor_network)
        yield found

        yield Step(f"{model.INFERENCES} pictures through the model, the chain, the way to us")
        measuring = asyncio.ensure_future(self._measure(found))
        try:
            chain_findings, registered, address = await self._examine_chain(wallet.hotkey)
            port = await in_time(
                partial(running.read_port, settings, running=miner.running),
                LOCAL_SECONDS,
                running.PortFacts(settings.miner_axon_host, settings.miner_axon_port, _late(LOCAL_SECONDS)),
            )
            reach = await self._reach(address)
            yield await measuring
        finally:
            measuring.cancel()
        now = time.time()
        yield running.judge_running(miner, wallet.hotkey, registered=registered)
        yield running.judge_port(port, running=miner.running)
        yield running.judge_reach(reach, miner, now, wallet.hotkey)
        yield running.judge_asked(miner, now)
        for finding in chain_findings:
            yield finding

    async def _measure(self, prepared: Finding) -> Finding:
        settings, measured = self.settings, None
        if prepared.level != "problem":
            measured = await model.read_inference(settings, INFERENCE_SECONDS)
        allowed = min(VALIDATORS_WAIT, settings.deadline_cap_seconds) - settings.deadline_margin_seconds
        return model.judge_inference(measured, allowed)

    async def _reach(self, address: Endpoint | str) -> running.ReachFacts:
        if isinstance(address, Endpoint):
            return await running.read_reach(str(address), str(address.ip), address.port, self.probe)
        return running.ReachFacts(f"ADDRESS:{self.settings.axon_external_port or self.settings.miner_axon_port}")

    async def _examine_chain(self, hotkey: str) -> tuple[list[Finding], bool | None, Endpoint | str]:
        settings = self.settings
        if settings.is_standalone:
            return [STANDALONE], None, _local_address(settings)
        facts, services, ours = await asyncio.gather(
            _read_chain(settings, hotkey), _ask_services(settings), _own_address(settings)
        )
        who = chain.Identity(settings.netuid, settings.wallet_name, hotkey, settings.chain_address)
        findings = [
            chain.judge_chain(facts),
            chain.judge_sdk(facts, version("bittensor")),
            clock.judge_clock(facts.head, services),
            chain.judge_registration(facts, who),
            chain.judge_standing(facts, who),
            chain.judge_address(facts, who, ours, running=self.is_running),
            chain.judge_validators(facts),
            chain.judge_rules(facts, rules_of(settings)),
            chain.judge_pay(facts, who),
        ]
        registered = chain.own_uid(facts.subnet, hotkey) is not None if facts.subnet is not None else None
        return findings, registered, ours


STANDALONE = ok("chain", "standalone: no chain is contacted, nothing is published, nothing is earned")


async def in_time(read: Callable[[], T], seconds: float, otherwise: T) -> T:
    """Read in a thread that may be left behind: a disk or a library that hangs shall not hold up the rest."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = read(), None
        except Exception as raised:  # noqa: BLE001 - handed over to who waits
            result, error = None, raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        return otherwise


async def _read_chain(settings: Settings, hotkey: str) -> chain.ChainFacts:
    address, head = settings.chain_address, None
    with tempfile.TemporaryDirectory() as cache:  # not the miner's own: this may run as another user
        client = ChainClient(address, Path(cache))
        try:
            async with asyncio.timeout(NETWORK_SECONDS):
                head = await client.call(read_head, NETWORK_SECONDS)
                read = partial(read_standing, netuid=settings.netuid, hotkey=hotkey)
                return chain.ChainFacts(address, head, await client.call(read, NETWORK_SECONDS))
        except ChainFault as fault:
            return chain.ChainFacts(address, head, fault=str(fault))
        except TimeoutError:
            return chain.ChainFacts(address, head, fault=_late(NETWORK_SECONDS))
        finally:
            await client.close()


async def _ask_services(settings: Settings) -> float | None:
    """Compare clocks with the services that the miner asks for its address; none where it asks none."""
    return await clock.ask_services() if not settings.axon_external_ip else None


async def _own_address(settings: Settings) -> Endpoint | str:
    port = settings.axon_external_port or settings.miner_axon_port
    try:
        return Endpoint(ip_address(settings.axon_external_ip or await find_external_ip()), port)
    except AddressUnknown as error:
        return str(error)
    except ValueError:
        return f"AXON_EXTERNAL_IP={settings.axon_external_ip} is no address"


def _local_address(settings: Settings) -> Endpoint | str:
    if not settings.axon_external_ip:
        return "not published"
    return Endpoint(ip_address(settings.axon_external_ip), settings.axon_external_port or settings.miner_axon_port)


def _late(seconds: float) -> str:
    return f"no answer within {seconds:g} s"
