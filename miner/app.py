"""The composition root: builds everything in the order of the start, and takes it down in reverse."""

import asyncio
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from detectors.base import Detector
from miner import systemd
from miner.axon.app import Axon, Limits
from miner.chain.base import Chain
from miner.errors import StartError
from miner.metrics import Metrics
from miner.model import ModelLoader, in_words
from miner.policy import Rules
from miner.scheduler import Scheduler
from miner.service import Service
from miner.serving import listening
from miner.settings import Settings
from miner.status import status_app
from miner.threads import ThreadPlan, allowed_cores, make_plan

if TYPE_CHECKING:
    from bittensor import Wallet

log = logging.getLogger(__name__)


class Daemon:
    """One miner, from start to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.obstacle: str | None = "starting"  # the daemon's own; the chain may have one too
        self.chain: Chain | None = None
        self.loader: ModelLoader | None = None
        self.service: Service | None = None
        self._started = False

    async def run(self) -> None:
        """Start, answer until told to stop, drain.

        Raises:
            StartError: something is not as it must be.
        """
        settings, stop = self.settings, asyncio.Event()
        self._listen_to_signals(stop)
        async with AsyncExitStack() as stack:
            status = status_app(self.metrics.registry, self.why_not_ready)
            await stack.enter_async_context(
                listening(status, "STATUS_PORT", settings.status_host, settings.status_port)
            )
            plan = make_plan(allowed_cores(), settings.inference_slots, settings.inference_threads)
            self.metrics.planned(plan)
            wallet = await asyncio.to_thread(own_wallet, settings)
            self.obstacle = "loading the model"
            self.loader = ModelLoader(settings, self.metrics, plan.threads)
            detector, pace = await self.loader.load()
            scheduler = Scheduler(plan.slots, settings.queue_depth, pace)
            self.service = Service(detector, scheduler)
            stack.callback(self.service.close)
            self._watch(scheduler)

            self.obstacle = "reading the chain"
            self.chain = make_chain(settings, wallet)
            hotkey = wallet.hotkey.ss58_address
            stack.push_async_callback(self.chain.stop)  # first, so that a start that is cancelled closes its client
            await self.chain.start()

            limits = Limits(
                settings.max_body_bytes,
                settings.body_stall_seconds,
                settings.deadline_cap_seconds,
                settings.deadline_margin_seconds,
            )
            rules = Rules(require_permit=settings.blacklist_force_validator_permit)
            axon = Axon(self.service, self.chain, hotkey, rules, limits, self.metrics, settings.model_url)
            await stack.enter_async_context(
                listening(axon.asgi(), "MINER_AXON_PORT", settings.miner_axon_host, settings.miner_axon_port)
            )
            scheduler.open()
            self.obstacle = None
            stack.push_async_callback(self._drain)
            await self.chain.publish()
            self._say_ready(detector, plan, hotkey)
            self._started = True
            await stop.wait()
        log.info("stopped")

    def why_not_ready(self) -> str | None:
        """Return why no request is answered, or None."""
        return self.obstacle or (self.chain.obstacle if self.chain is not None else None)

    async def reload(self) -> None:
        """Load the model again beside the running one, which keeps serving if the new one fails (SIGHUP)."""
        if self.service is None or self.loader is None:
            log.warning("reload ignored: the first model is still loading")
            return
        try:
            detector, pace = await self.loader.load()
        except StartError as error:
            self.metrics.reloads.labels("failed").inc()
            log.error("reload failed, the old model keeps serving: %s", error)
            return
        self.service.detector, self.service.scheduler.pace = detector, pace
        self.metrics.reloads.labels("ok").inc()
        log.info("reloaded: %s", in_words(detector))

    async def _drain(self) -> None:
        assert self.service is not None
        scheduler = self.service.scheduler
        log.info("stopping: no new requests, finishing %d", scheduler.waiting + scheduler.running)
        systemd.notify("STOPPING=1")
        self.obstacle = "shutting down"
        scheduler.close("draining")
        if not await self.service.drain(self.settings.drain_seconds):
            log.warning("requests were still running after %.0f s", self.settings.drain_seconds)

    def _watch(self, scheduler: Scheduler) -> None:
        """Let the metrics read what is kept elsewhere, at the moment of the scrape."""
        metrics = self.metrics
        metrics.ready.set_function(lambda: float(self.why_not_ready() is None))
        metrics.queue_depth.set_function(lambda: scheduler.waiting)
        metrics.running.set_function(lambda: scheduler.running)
        metrics.pace.set_function(lambda: scheduler.pace)
        metrics.chain_block.set_function(lambda: self.chain.snapshot.block if self.chain else 0)
        metrics.chain_age.set_function(lambda: time.time() - self.chain.snapshot.taken_at if self.chain else 0)
        metrics.chain_neurons.set_function(lambda: len(self.chain.snapshot.neurons) if self.chain else 0)
        metrics.chain_uid.set_function(lambda: _uid(self.chain))

    def _say_ready(self, detector: Detector, plan: ThreadPlan, hotkey: str) -> None:
        settings = self.settings
        where = f"{settings.miner_axon_host}:{settings.miner_axon_port}"
        state = "ready" if self.why_not_ready() is None else f"not ready ({self.why_not_ready()})"
        line = (
            f"{state}: port {where}, {in_words(detector)}, {plan}, hotkey {hotkey}, {settings.subtensor_network} "
            f"netuid {settings.netuid}; status on {settings.status_host}:{settings.status_port}"
        )
        log.info("%s", line)
        systemd.notify(f"READY=1\nSTATUS={line}")

    def _listen_to_signals(self, stop: asyncio.Event) -> None:
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None
        reloads: set[asyncio.Task[None]] = set()

        def ask_to_stop(number: int) -> None:
            if stop.is_set():
                log.warning("stopped at once, on a second signal")
                os._exit(128 + number)
            stop.set()
            if not self._started:  # nothing to drain yet
                main.cancel()

        def ask_to_reload() -> None:
            task = asyncio.ensure_future(self.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ask_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, ask_to_reload)


def own_wallet(settings: Settings) -> "Wallet":
    """Return the miner's wallet: a throwaway one in standalone mode."""
    if settings.is_standalone:
        from miner.chain import standalone

        return standalone.own_wallet(settings.state_dir, "miner")
    from miner.chain.wallet import load_hotkey

    return load_hotkey(
        settings.wallet_path, settings.wallet_name, settings.wallet_hotkey, settings.wallet_hotkey_password_file
    )


def make_chain(settings: Settings, wallet: "Wallet") -> Chain:
    """Return the chain that the settings name."""
    if settings.is_standalone:
        from miner.chain.standalone import StandaloneChain, standalone_file

        path = settings.standalone_file or standalone_file(settings.state_dir)
        return StandaloneChain(path, wallet.hotkey.ss58_address)
    from miner.chain.publication import Axon as PublishedAxon
    from miner.chain.subtensor import SubtensorChain

    published = PublishedAxon(
        settings.axon_external_port or settings.miner_axon_port, ip=settings.axon_external_ip or None
    )
    return SubtensorChain(
        settings.chain_address,
        settings.netuid,
        wallet,
        settings.state_dir,
        published,
        sync_seconds=settings.chain_sync_seconds,
        max_age_seconds=settings.chain_max_age_hours * 3600,
    )


def _uid(chain: Chain | None) -> int:
    uid = chain.snapshot.uid if chain is not None else None
    return -1 if uid is None else uid
