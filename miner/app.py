"""The composition root: builds everything in the order of the start, and takes it down in reverse."""

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack

from miner import memory, systemd
from miner.axon.app import Axon, Limits
from miner.chain.base import Chain
from miner.connections import Connections, Guard
from miner.errors import StartError
from miner.heartbeat import States, beat, end
from miner.hotkeys import split_hotkeys
from miner.metrics import Metrics
from miner.model import ModelLoader, in_words
from miner.policy import Rules
from miner.queue import Queue
from miner.recorder import FOLDER
from miner.recorder.flight import FlightRecorder, make_recorder
from miner.scheduler import Scheduler
from miner.seats import Seat, find_places_on_chain, leave_out, open_seats
from miner.seats import in_words as why_none
from miner.service import Service
from miner.serving import listening
from miner.settings import Settings
from miner.status import status_app
from miner.strangers import Strangers
from miner.threads import ThreadPlan
from miner.watch import Watch

log = logging.getLogger(__name__)


class Daemon:
    """One miner, from start to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.obstacle: str | None = "starting"  # the daemon's own; the chain may have one too
        self.seats: list[Seat] = []
        self.loader: ModelLoader | None = None
        self.service: Service | None = None
        self.watch = Watch(settings, self.metrics, self.why_not_ready)
        self.states = States(self.why_not_ready)
        self.hung = False  # whether a picture was still worked on when the drain ended
        self._started = False

    async def run(self) -> None:
        """Start, answer until told to stop, drain.

        Raises:
            StartError: something is not as it must be.
        """
        memory.keep_large_blocks_apart()
        settings, stop = self.settings, asyncio.Event()
        self._listen_to_signals(stop)
        async with AsyncExitStack() as stack:
            status = status_app(self.metrics.registry, self.why_not_ready, self.watch.overview, self.watch.obstacles)
            await stack.enter_async_context(
                listening(status, "STATUS_PORT", settings.status_host, settings.status_port)
            )
            stack.push_async_callback(end, asyncio.create_task(self.states.watch(), name="states"))
            self.obstacle = "loading the model"
            self.loader = ModelLoader(settings, self.metrics)
            # Side by side: importing the SDK takes as long as checking and loading a large model.
            self.seats, (detector, pace) = await asyncio.gather(
                asyncio.to_thread(open_seats, settings), self.loader.load()
            )
            memory.give_back()
            plan = ThreadPlan(detector.options.slots, detector.options.threads)
            self.metrics.planned(plan, settings.queue_depth)
            scheduler = Scheduler(Queue(plan.slots, settings.queue_depth, settings.queue_share_places, pace))
            self.service = Service(detector, scheduler)
            stack.callback(self.service.close)
            if (allowed := systemd.watchdog_seconds()) is not None:
                stack.push_async_callback(end, asyncio.create_task(beat(self.service, allowed), name="beat"))
            self.watch.see_service(self.service)

            self.obstacle = "reading the chain"
            find_places_on_chain(settings, self.seats)
            self.watch.see_seats(self.seats)
            for chain in self._chains():
                stack.push_async_callback(chain.stop)  # first, so that a start that is cancelled closes its client
                await chain.start()
            self.watch.count_from_zero()

            limits = Limits(
                settings.max_body_bytes,
                settings.body_stall_seconds,
                settings.deadline_cap_seconds,
                settings.deadline_margin_seconds,
            )
            rules = rules_of(settings)
            guard = Guard(settings.max_connections, settings.max_connections_per_address, settings.header_seconds)
            connections = Connections(guard, lambda reason: self.metrics.dropped.labels(reason).inc())
            self.metrics.connections.set_function(lambda: len(connections))
            flight = self._start_recorder(stack)
            strangers, history = Strangers(), self.watch.history
            for seat in self.seats:
                if seat.chain is not None:
                    axon = Axon(self.service, seat.chain, rules, limits, self.metrics, history, settings.model_url)
                    axon.recorder.ended = strangers.saw
                    axon.recorder.predicted = self.watch.drift.take
                    if flight is not None:
                        axon.recorder.keep = flight.take
                    await self._listen(stack, seat, axon, connections)
            scheduler.open()
            self.obstacle = None
            stack.push_async_callback(self._drain)
            for chain in self._chains():
                await chain.publish()
            self.states.started(lambda: self._summary(plan))
            self._started = True
            await stop.wait()
        log.info("stopped")

    async def _listen(self, stack: AsyncExitStack, seat: Seat, axon: Axon, connections: Connections) -> None:
        """Open a hotkey's port; of several, one whose port can't be had is left out."""
        host, port = self.settings.miner_axon_host, seat.settings.miner_axon_port
        try:
            await stack.enter_async_context(listening(axon.asgi(), "MINER_AXON_PORT", host, port, connections))
        except StartError as error:
            leave_out(seat, str(error))
            if all(one.fault for one in self.seats):
                raise

    def why_not_ready(self) -> str | None:
        """Return why no request is answered, or None."""
        return self.obstacle or why_none(self.seats) or (self.service.obstacle if self.service is not None else None)

    def _chains(self) -> list[Chain]:
        return [seat.chain for seat in self.seats if seat.chain is not None and seat.fault is None]

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
        # No picture outlives its deadline, so by then none is scored by the old one any more.
        asyncio.get_running_loop().call_later(self.settings.deadline_cap_seconds, self.service.detector.close)
        self.service.detector, self.service.scheduler.queue.pace = detector, pace
        memory.give_back()
        self.metrics.reloads.labels("ok").inc()
        log.info("reloaded: %s", in_words(detector))

    async def _drain(self) -> None:
        assert self.service is not None
        scheduler = self.service.scheduler
        log.info("stopping: no new requests, finishing %d", scheduler.waiting + scheduler.running)
        self.obstacle = "shutting down"
        self.states.stopping()
        scheduler.close("draining")
        if not await self.service.drain(self.settings.drain_seconds):
            log.warning("requests were still running after %.0f s; leaving them", self.settings.drain_seconds)
            self.hung = True

    def _start_recorder(self, stack: AsyncExitStack) -> FlightRecorder | None:
        """Have ended requests written down from now on, if that is wanted."""
        settings = self.settings
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
        return flight

    def _summary(self, plan: ThreadPlan) -> str:
        """Return in one line what is served, where and as whom."""
        assert self.service is not None
        settings = self.settings
        served = [seat for seat in self.seats if seat.fault is None]
        ports = ", ".join(f"{settings.miner_axon_host}:{seat.settings.miner_axon_port}" for seat in served)
        hotkeys = ", ".join(seat.hotkey for seat in served)
        return (
            f"port {ports}, {in_words(self.service.detector)}, {plan}, "
            f"hotkey {hotkeys}, {settings.subtensor_network} netuid {settings.netuid}; "
            f"status on {settings.status_host}:{settings.status_port}"
        )

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


def rules_of(settings: Settings) -> Rules:
    """Return the operator's rules."""
    return Rules(
        require_permit=settings.blacklist_force_validator_permit,
        allow_non_registered=settings.blacklist_allow_non_registered,
        min_stake=settings.blacklist_min_stake,
        allow=split_hotkeys(settings.blacklist_allow_hotkeys),
        deny=split_hotkeys(settings.blacklist_deny_hotkeys),
    )
