"""What the metrics and the page read where it is kept, at the moment they are asked."""

import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

from miner import __version__
from miner.chain.base import Chain, Neuron, active_validators
from miner.drift import Drift
from miner.history import History
from miner.machine import read_memory, read_throttling
from miner.metrics import OUTCOMES, Metrics, graph_hash
from miner.overview import (
    ChainView,
    Hour,
    Identity,
    KeyView,
    MemoryUse,
    Model,
    Overview,
    Queue,
    ReloadView,
    RequestView,
    ShadowView,
)
from miner.recorder.flight import FlightRecorder
from miner.reload import Reloader
from miner.seats import Seat
from miner.service import Service
from miner.settings import Settings
from miner.shadow.shadow import Shadow


class Watch:
    """Looks at the parts of a daemon as they come into being."""

    def __init__(self, settings: Settings, metrics: Metrics, obstacle: Callable[[], str | None]) -> None:
        self.settings = settings
        self.metrics = metrics
        self.obstacle = obstacle
        self.history = History()
        self.service: Service | None = None
        self.seats: list[Seat] = []
        self.shadow: Shadow | None = None
        self.drift = Drift(lambda: self.service.detector.manifest.predictions if self.service is not None else None)
        metrics.drift.set_function(lambda: self.drift.index)
        self.reloader: Reloader | None = None
        metrics.ready.set_function(lambda: float(obstacle() is None))

    def see_service(self, service: Service) -> None:
        """Show the queue and the model from now on."""
        self.service = service
        metrics, scheduler = self.metrics, service.scheduler
        metrics.queue_depth.set_function(lambda: scheduler.waiting)
        metrics.running.set_function(lambda: scheduler.running)
        metrics.pace.set_function(lambda: scheduler.queue.pace)

    def see_shadow(self, shadow: Shadow) -> None:
        """Show the second model from now on."""
        self.shadow = shadow

    def see_flight(self, flight: FlightRecorder) -> None:
        """Show what is recorded from now on."""
        metrics, counts = self.metrics, flight.counts
        metrics.recorded.set_function(lambda: counts.written)
        metrics.unrecorded.set_function(lambda: counts.behind, "behind")
        metrics.unrecorded.set_function(lambda: counts.disk, "disk")
        metrics.recorder_bytes.set_function(lambda: flight.ring.bytes)

    def see_reloader(self, reloader: Reloader) -> None:
        """Show how reloads end from now on."""
        self.reloader = reloader

    def see_seats(self, seats: list[Seat]) -> None:
        """Show who we are, and our places on the chain, from now on."""
        self.seats = seats
        for seat in seats:
            self.metrics.hotkey_ready.labels(seat.name).set_function(partial(self._is_ready, seat))
            if seat.chain is not None:
                self._see_own(seat.chain)
        chain, metrics = self.chain, self.metrics
        if chain is None:
            return
        metrics.chain_block.set_function(lambda: chain.snapshot.block)
        metrics.chain_age.set_function(lambda: chain.age)
        metrics.chain_neurons.set_function(lambda: len(chain.snapshot.neurons))
        metrics.chain_validators.set_function(lambda: len(_validators(chain)))
        metrics.chain_validators_active.set_function(lambda: _active(chain))
        metrics.chain_syncs.set_function(lambda: chain.syncs)
        metrics.chain_failures.set_function(lambda: chain.failures)

    @property
    def chain(self) -> Chain | None:
        """The chain as the first hotkey sees it; what is not its own is the same for all."""
        return next((seat.chain for seat in self.seats if seat.chain is not None), None)

    def _is_ready(self, seat: Seat) -> float:
        return float((seat.obstacle or self.obstacle()) is None)

    def obstacles(self) -> dict[str, str | None]:
        """Return for each of several hotkeys why its validators are not answered, or None; by its name."""
        general = self.obstacle()
        return {seat.name: seat.obstacle or general for seat in self.seats} if len(self.seats) > 1 else {}

    def _see_own(self, chain: Chain) -> None:
        metrics, hotkey, number = self.metrics, chain.hotkey, partial(_number, chain)
        metrics.identity.labels(hotkey, self.settings.subtensor_network, str(self.settings.netuid)).set(1)
        metrics.chain_uid.labels(hotkey).set_function(lambda: -1 if chain.uid is None else chain.uid)
        metrics.chain_registered.labels(hotkey).set_function(lambda: chain.uid is not None)
        metrics.chain_published.labels(hotkey).set_function(lambda: chain.publication.startswith("published"))
        metrics.chain_stake.labels(hotkey).set_function(lambda: number(lambda own: own.stake))
        metrics.chain_incentive.labels(hotkey).set_function(lambda: number(lambda own: own.incentive))
        metrics.chain_trust.labels(hotkey).set_function(lambda: number(lambda own: own.trust))
        for outcome in OUTCOMES:
            metrics.by_hotkey.labels(hotkey, outcome)

    def count_from_zero(self) -> None:
        """Export a zero for each validator there is, so that its first request is an increase too."""
        chain = self.chain
        for neuron in _validators(chain) if chain is not None else []:
            self.metrics.by_validator.labels(str(neuron.uid))

    def overview(self) -> Overview:
        """Return all of it, for people."""
        obstacle, chain = self.obstacle(), self.chain
        return Overview(
            now=time.time(),
            started=self.metrics.started,
            ready=obstacle is None,
            obstacle=obstacle,
            identity=Identity(
                version=__version__,
                hotkey=chain.hotkey if chain is not None else "",
                network=self.settings.subtensor_network,
                netuid=self.settings.netuid,
                port=self.seats[0].settings.miner_axon_port if self.seats else self.settings.miner_axon_port,
                pid=os.getpid(),
            ),
            model=_model(self.service) if self.service is not None else None,
            reload=_reload(self.reloader) if self.reloader is not None else None,
            queue=_queue(self.service) if self.service is not None else None,
            shadow=_shadow(self.shadow) if self.shadow is not None else None,
            memory=_memory(),
            chain=_chain(chain) if chain is not None else None,
            keys=[_key(seat) for seat in self.seats],
            hour=Hour.of(self.history),
            recent=[RequestView.of(entry) for entry in self.history.recent()],
        )


def _model(service: Service) -> Model:
    detector, model = service.detector, service.detector.manifest
    return Model(
        detector=model.detector,
        name=model.name,
        revision=model.revision,
        backend=detector.backend_words,
        precision=model.precision,
        threads=detector.options.threads,
        hash=graph_hash(model),
    )


def _reload(reloader: Reloader) -> ReloadView:
    last = reloader.outcome
    return ReloadView(
        asked=reloader.asked,
        done=reloader.done,
        ok=last.ok if last is not None else None,
        text=last.text if last is not None else "",
        at=last.at if last is not None else None,
    )


def _queue(service: Service) -> Queue:
    scheduler = service.scheduler
    return Queue(
        waiting=scheduler.waiting,
        limit=scheduler.queue.depth,
        running=scheduler.running,
        slots=scheduler.queue.slots,
        pace_seconds=scheduler.queue.pace,
        estimate_seconds=scheduler.estimate,
    )


def _shadow(shadow: Shadow) -> ShadowView:
    tally = shadow.tally
    return ShadowView(
        name=shadow.name,
        config=shadow.job.config,
        compared=tally.same + tally.different,
        agreement=tally.agreement,
        failed=tally.failed,
        seconds=statistics.median(tally.recent) if tally.recent else None,
    )


def _memory() -> MemoryUse:
    memory = read_memory()
    return MemoryUse(
        resident=memory.resident,
        proportional=memory.proportional,
        peak=memory.peak,
        cgroup_usage=memory.cgroup_usage - memory.cgroup_reclaimable,
        cgroup_limit=_finite(memory.cgroup_limit),
        machine_available=memory.machine_available,
        throttled_seconds=read_throttling().seconds,
    )


def _key(seat: Seat) -> KeyView:
    chain = seat.chain
    return KeyView(
        name=seat.name,
        hotkey=seat.hotkey,
        port=seat.settings.miner_axon_port,
        obstacle=seat.obstacle,
        uid=chain.uid if chain is not None else None,
        incentive=_finite(_number(chain, lambda own: own.incentive)) if chain is not None else None,
        publication=chain.publication if chain is not None else "not published",
    )


def _chain(chain: Chain) -> ChainView:
    number = partial(_number, chain)
    return ChainView(
        block=chain.snapshot.block,
        age_seconds=_finite(chain.age),
        uid=chain.uid,
        neurons=len(chain.snapshot.neurons),
        validators=len(_validators(chain)),
        stake=_finite(number(lambda own: own.stake)),
        incentive=_finite(number(lambda own: own.incentive)),
        trust=_finite(number(lambda own: own.trust)),
        publication=chain.publication,
    )


def _validators(chain: Chain) -> list[Neuron]:
    return [neuron for neuron in chain.snapshot.neurons.values() if neuron.validator_permit]


def _active(chain: Chain) -> int:
    return len(active_validators(chain.snapshot.neurons.values(), chain.snapshot.block))


def _number(chain: Chain, read: Callable[[Neuron], float]) -> float:
    """Return a number of our own neuron; NaN where the snapshot does not hold it."""
    own = chain.snapshot.neurons.get(chain.hotkey)
    return math.nan if own is None else read(own)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
