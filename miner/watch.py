"""What the metrics and the page read where it is kept, at the moment they are asked."""

import math
import time
from collections.abc import Callable
from functools import partial

from miner import __version__
from miner.chain.base import Chain, Neuron, active_validators
from miner.drift import Drift
from miner.history import History
from miner.machine import read_memory, read_throttling
from miner.metrics import Metrics, graph_hash
from miner.overview import ChainView, Hour, Identity, MemoryUse, Model, Overview, Queue, RequestView
from miner.recorder.flight import FlightRecorder
from miner.service import Service
from miner.settings import Settings


class Watch:
    """Looks at the parts of a daemon as they come into being."""

    def __init__(self, settings: Settings, metrics: Metrics, obstacle: Callable[[], str | None]) -> None:
        self.settings = settings
        self.metrics = metrics
        self.obstacle = obstacle
        self.history = History()
        self.hotkey = ""
        self.service: Service | None = None
        self.chain: Chain | None = None
        self.drift = Drift(lambda: self.service.detector.manifest.predictions if self.service is not None else None)
        metrics.drift.set_function(lambda: self.drift.index)
        metrics.ready.set_function(lambda: float(obstacle() is None))

    def see_hotkey(self, hotkey: str) -> None:
        """Show who we are from now on."""
        self.hotkey = hotkey
        self.metrics.identity.labels(hotkey, self.settings.subtensor_network, str(self.settings.netuid)).set(1)

    def see_service(self, service: Service) -> None:
        """Show the queue and the model from now on."""
        self.service = service
        metrics, scheduler = self.metrics, service.scheduler
        metrics.queue_depth.set_function(lambda: scheduler.waiting)
        metrics.running.set_function(lambda: scheduler.running)
        metrics.pace.set_function(lambda: scheduler.queue.pace)

    def see_flight(self, flight: FlightRecorder) -> None:
        """Show what is recorded from now on."""
        metrics, counts = self.metrics, flight.counts
        metrics.recorded.set_function(lambda: counts.written)
        metrics.unrecorded.set_function(lambda: counts.behind, "behind")
        metrics.unrecorded.set_function(lambda: counts.disk, "disk")
        metrics.recorder_bytes.set_function(lambda: flight.ring.bytes)

    def see_chain(self, chain: Chain) -> None:
        """Show our place on the chain from now on."""
        self.chain = chain
        metrics, number = self.metrics, partial(_number, chain, self.hotkey)
        metrics.chain_block.set_function(lambda: chain.snapshot.block)
        metrics.chain_age.set_function(lambda: chain.age)
        metrics.chain_neurons.set_function(lambda: len(chain.snapshot.neurons))
        metrics.chain_validators.set_function(lambda: len(_validators(chain)))
        metrics.chain_validators_active.set_function(lambda: _active(chain))
        metrics.chain_syncs.set_function(lambda: chain.syncs)
        metrics.chain_failures.set_function(lambda: chain.failures)
        metrics.chain_uid.set_function(lambda: -1 if chain.uid is None else chain.uid)
        metrics.chain_registered.set_function(lambda: chain.uid is not None)
        metrics.chain_published.set_function(lambda: chain.publication.startswith("published"))
        metrics.chain_stake.set_function(lambda: number(lambda own: own.stake))
        metrics.chain_incentive.set_function(lambda: number(lambda own: own.incentive))
        metrics.chain_trust.set_function(lambda: number(lambda own: own.trust))

    def count_from_zero(self) -> None:
        """Export a zero for each validator there is, so that its first request is an increase too."""
        for neuron in _validators(self.chain) if self.chain is not None else []:
            self.metrics.by_validator.labels(str(neuron.uid))

    def overview(self) -> Overview:
        """Return all of it, for people."""
        obstacle = self.obstacle()
        return Overview(
            now=time.time(),
            started=self.metrics.started,
            ready=obstacle is None,
            obstacle=obstacle,
            identity=Identity(
                version=__version__,
                hotkey=self.hotkey,
                network=self.settings.subtensor_network,
                netuid=self.settings.netuid,
                port=self.settings.miner_axon_port,
            ),
            model=_model(self.service) if self.service is not None else None,
            queue=_queue(self.service) if self.service is not None else None,
            memory=_memory(),
            chain=_chain(self.chain, self.hotkey) if self.chain is not None else None,
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


def _chain(chain: Chain, hotkey: str) -> ChainView:
    number = partial(_number, chain, hotkey)
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


def _number(chain: Chain, hotkey: str, read: Callable[[Neuron], float]) -> float:
    """Return a number of our own neuron; NaN where the snapshot does not hold it."""
    own = chain.snapshot.neurons.get(hotkey)
    return math.nan if own is None else read(own)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
