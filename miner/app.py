"""The composition root of the daemon.

Everything is built in the order of the start and taken down in reverse, so that nothing outlives what it uses.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from detectors.base import RunOptions
from miner import systemd
from miner.axon import btauth
from miner.axon.app import Axon
from miner.axon.body import Limits
from miner.axon.caller import Rules
from miner.axon.clock import ClockWatch
from miner.chain.base import Chain
from miner.chain.identities import Identity, find_places_on_chain, leave_out, open_identities
from miner.chain.identities import in_words as why_none
from miner.errors import RefusalReason, StartError, Stuck
from miner.http.connections import Connections, Guard
from miner.http.server import listening
from miner.inference import memory
from miner.inference.health import Health
from miner.inference.loader import ModelLoader, in_words, seconds_allowed
from miner.inference.plan import planned_paces
from miner.inference.queue import Queue
from miner.inference.reload import Reloader
from miner.inference.scheduler import Scheduler
from miner.inference.service import Service
from miner.inference.watchdog import StateReporter, beat, end
from miner.lock import alone
from miner.metrics import Metrics
from miner.recorder import FOLDER
from miner.recorder.recorder import make_recorder
from miner.recorder.records import RequestListener
from miner.settings.addresses import own_names
from miner.settings.settings import Settings
from miner.shadow.shadow import ShadowKeeper
from miner.status.app import status_app
from miner.status.archive import checkup_file
from miner.status.request_log import AbuseLog, RequestLog
from miner.status.watch import Watch

log = logging.getLogger(__name__)

SDK_SECONDS, SETTLED_SECONDS = 1.0, 2.0  # after the start; the first answer comes first
# A signal to the process group arrives twice where `make`, or another parent, hands its own on.
ONE_SIGNAL_SECONDS = 1.0
UNWATCHED_SECONDS = 60.0  # without a watchdog: a quiet model proves itself twice in these all the same


def listen(stop: asyncio.Event, is_started: Callable[[], bool], reload: Callable[[], None]) -> None:
    """Listen from now on; a start that is not over yet is cancelled, as there is nothing to drain."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    asked: tuple[int, float] = (0, 0.0)  # the first signal, and when
    assert main is not None

    def ask_to_stop(number: int) -> None:
        nonlocal asked
        if stop.is_set():
            if asked[0] == number and loop.time() - asked[1] < ONE_SIGNAL_SECONDS:
                return
            log.warning("stopped at once, on a second signal")
            logging.shutdown()
            os._exit(128 + number)
        stop.set()
        asked = (number, loop.time())
        if not is_started():
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, number)
    loop.add_signal_handler(signal.SIGHUP, reload)


class Daemon:
    """One miner, from start to stop."""

    def __init__(self, settings: Settings, loader: ModelLoader, reread: Callable[[], Settings] | None = None) -> None:
        self.settings = settings
        self.loader = loader  # it may have begun
        self.reread = reread or (lambda: settings)  # for a reload
        self.metrics = Metrics()
        self.obstacle: str | None = "starting"  # the daemon's own; the chain may have one too
        self.identities: list[Identity] = []
        self.service: Service | None = None
        self.health: Health | None = None
        self.reloader: Reloader | None = None
        self.clock = ClockWatch()
        self.clock.told += [self.metrics.clock_was_set, self._read_chain_again]
        self.watch = Watch(settings, self.metrics, self.why_not_ready, self.clock)
        self.states = StateReporter(self.why_not_ready)
        self.hung = False  # whether a picture was still worked on when the drain ended
        self.stuck = ""  # why it ended by itself
        self._started = False
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Start, answer until told to stop, drain.

        Raises:
            StartError: something is not as it must be.
            Stuck: there is nothing more to be done without a restart.
        """
        settings = self.settings
        loop = asyncio.get_running_loop()
        self.metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        listen(self._stop, lambda: self._started, self.reload)
        async with AsyncExitStack() as stack:
            stack.enter_context(alone(settings.state_dir))
            watch = self.watch
            stack.push_async_callback(watch.archive.stop)
            await watch.archive.start()
            status = status_app(
                self.metrics.registry, self.why_not_ready, watch.overview, watch.obstacles, watch.freshness,
                own_names(settings.status_host, settings.status_allowed_hosts), checkup_file(settings), watch.read_day,
                watch.read_traffic,
            )  # fmt: skip
            await stack.enter_async_context(
                listening(status, "STATUS_PORT", settings.status_host, settings.status_port)
            )
            stack.push_async_callback(end, asyncio.create_task(self.states.watch(), name="states"))
            stack.push_async_callback(end, asyncio.create_task(self.clock.watch(), name="clock"))
            self.obstacle = "loading the model"
            loader = self.loader
            loader.show_in(self.metrics)
            # Side by side: importing the SDK takes as long as checking and loading a large model.
            self.identities, loaded = await asyncio.gather(asyncio.to_thread(open_identities, settings), loader.load())
            loader.show(loaded)
            memory.keep_pictures_together()
            plan = loader.split
            self.metrics.planned(plan.slots, plan.threads)
            pace, *further = planned_paces(settings.inference_stages, loaded.paces)
            queue = Queue(
                plan.slots, pace, settings.queue_depth, settings.queue_share,
                # The answers' way gets the other half at least.
                leeway=settings.deadline_margin_seconds / 2, further=further,
            )  # fmt: skip
            shadows = ShadowKeeper(queue, self.metrics)
            scheduler = Scheduler(queue, veto=self._veto, admitted=shadows.hold)
            self.service = Service(loaded.detector, scheduler, settings.inference_stages)
            del loaded  # a reload shall free it
            stack.callback(self.service.close)
            limits, rules = Limits.of(settings), Rules.of(settings)
            stack.callback(limits.unpacker.shutdown, wait=False)
            reloader = self._look_after(self.service, loader, limits, shadows, stack)

            self.obstacle = "reading the chain"
            find_places_on_chain(settings, self.identities)
            self.watch.see_identities(self.identities)
            for chain in self._chains():
                stack.push_async_callback(chain.stop)  # first, so that a start that is cancelled closes its client
                await chain.start()
            self.watch.count_from_zero()

            connections = Connections(Guard.of(settings), lambda reason: self.metrics.dropped.labels(reason).inc())
            self.metrics.connections.set_function(lambda: len(connections))
            stack.push_async_callback(shadows.end)
            listeners = self._listeners(shadows, stack)
            for identity in self.identities:
                if identity.chain is not None:
                    axon = Axon(self.service, identity.chain, rules, limits, listeners, settings.model_url, self.clock)
                    await self._listen(stack, identity, axon, connections)
            scheduler.open()
            self.obstacle = None
            stack.push_async_callback(self._drain)
            for chain in self._chains():
                await chain.publish()
            self.states.started(lambda: self._summary(plan))
            self._started = True
            shadows.begin(reloader.loader.settings)  # of a model that was loaded meanwhile, if there was one
            # The SDK, where it is not there yet; what the start and the first request took, 13 MB. In threads, for
            # either can take a while; a stop takes them back, as there are no threads then.
            for seconds, work in ((SDK_SECONDS, btauth.load_sdk), (SETTLED_SECONDS, memory.give_back)):
                stack.callback(loop.call_later(seconds, loop.run_in_executor, None, work).cancel)
            await self._stop.wait()
        if self.stuck:
            raise Stuck(self.stuck)
        log.info("stopped")

    def _look_after(
        self, service: Service, loader: ModelLoader, limits: Limits, shadows: ShadowKeeper, stack: AsyncExitStack
    ) -> Reloader:
        """Have the model looked after: its health, its replacement, its life signs; return what replaces it."""
        settings = self.settings
        limit, allowed = settings.inference_limit_seconds, seconds_allowed(settings)
        health = Health(service, limit, allowed, self._give_up, limits.budget, changed=self.reload)
        stack.push_async_callback(end, asyncio.create_task(health.watch(), name="health"))

        async def replaced(now: Settings) -> None:
            self.watch.see_stages()
            if self._started:  # the second model begins after the start, for whichever serves then
                await shadows.renew(now)

        reloader = Reloader(loader, service, self.metrics, self.reread, replaced)
        stack.push_async_callback(reloader.stop)
        strikes = systemd.watchdog_seconds() or UNWATCHED_SECONDS
        stack.push_async_callback(end, asyncio.create_task(beat(service, strikes), name="beat"))
        self.health, self.reloader = health, reloader
        self.watch.see_service(service, reloader, shadows)
        return reloader

    async def _listen(self, stack: AsyncExitStack, identity: Identity, axon: Axon, connections: Connections) -> None:
        """Open a hotkey's port; of several, one whose port can't be had is left out."""
        host, port = self.settings.miner_axon_host, identity.settings.miner_axon_port
        try:
            await stack.enter_async_context(listening(axon.asgi(), "MINER_AXON_PORT", host, port, connections))
        except StartError as error:
            if len(self.identities) == 1:
                raise
            leave_out(identity, str(error))
            if all(one.fault for one in self.identities):
                raise

    def why_not_ready(self) -> str | None:
        """Return why no request is answered, or None."""
        parts = (self.service, self.health)
        model = next((part.obstacle for part in parts if part is not None and part.obstacle), None)
        return self.obstacle or why_none(self.identities) or model or self.clock.obstacle

    def _veto(self) -> RefusalReason | None:
        """Return why requests are refused for the model's sake, or None."""
        return self.health.refusal if self.health is not None else None

    def _chains(self) -> list[Chain]:
        return [identity.chain for identity in self.identities if identity.chain is not None and identity.fault is None]

    def _read_chain_again(self, _: float) -> None:
        """Read it soon: by a clock that was set forward, what was read before is old."""
        for identity in self.identities:
            if identity.market is not None:
                identity.market.reader.read_soon()

    def reload(self) -> None:
        """Load the model again beside the running one (SIGHUP)."""
        if self.reloader is None:
            log.warning("reload ignored: the first model is still loading")
        else:
            self.reloader.ask()

    def _give_up(self, reason: str) -> None:
        self.stuck = reason
        self._stop.set()

    async def _drain(self) -> None:
        assert self.service is not None
        scheduler = self.service.scheduler
        log.info("stopping: no new requests, finishing %d", scheduler.waiting + scheduler.running)
        self.obstacle = "shutting down"
        self.states.stopping()
        scheduler.close("draining")
        seconds = 0.0 if self.stuck else self.settings.drain_seconds
        if not await self.service.drain(seconds):
            log.warning("the drain time of %.0f s is over; requests that still run are dropped", seconds)
            self.hung = True

    def _listeners(self, shadows: ShadowKeeper, stack: AsyncExitStack) -> list[RequestListener]:
        """Return whoever is told of ended requests."""
        settings, requests = self.settings, RequestLog()
        stack.callback(requests.tell)
        history, drift = self.watch.history, self.watch.drift
        stages = self.watch.stages
        listeners: list[RequestListener] = [self.metrics, stages, history, drift, shadows, AbuseLog(), requests]
        flight = make_recorder(
            settings.recorder,
            settings.state_dir / FOLDER,
            settings.recorder_max_mb * 10**6,
            settings.recorder_max_hours * 3600,
        )
        if flight is not None:
            flight.start()
            stack.callback(flight.close)
            self.watch.see_flight(flight)
            shadows.told.append(flight.take_shadow)
            listeners.append(flight)
        return listeners

    def _summary(self, plan: RunOptions) -> str:
        """Return in one line what is served, where and as whom."""
        assert self.service is not None
        settings = self.settings
        served = [identity for identity in self.identities if identity.fault is None]
        ports = ", ".join(f"{settings.miner_axon_host}:{identity.settings.miner_axon_port}" for identity in served)
        hotkeys = ", ".join(identity.hotkey for identity in served)
        return (
            f"port {ports}, {in_words(self.service.detector)}, {plan}, "
            f"hotkey {hotkeys}, {settings.shown_network} netuid {settings.netuid}; "
            f"status on {settings.status_host}:{settings.status_port}"
        )
