"""What the page and `top` show of each part, made at the moment they are asked."""

import math
import statistics
from collections.abc import Callable
from functools import partial

from detectors.machine import read_memory, read_throttling
from miner.chain.base import Chain, Neuron, active_validators
from miner.identities import Seat
from miner.inference.reload import Reloader
from miner.inference.service import Service
from miner.metrics import graph_hash
from miner.settings.validators import VALIDATORS_WAIT
from miner.shadow.shadow import Shadow
from miner.status.overview import ChainView, KeyView, MemoryUse, Model, Queue, ReloadView, ShadowView


def model_view(service: Service) -> Model:
    """Return the model that serves."""
    detector, model = service.detector, service.detector.manifest
    return Model(
        detector=model.detector,
        name=model.name,
        revision=model.revision,
        backend=detector.backend_words,
        precision=model.precision,
        threads=detector.options.threads,
        hash=graph_hash(model),
        roadwork=detector.roadwork,
    )


def reload_view(reloader: Reloader) -> ReloadView:
    """Return how the last reload went."""
    last = reloader.outcome
    return ReloadView(
        asked=reloader.asked,
        done=reloader.done,
        ok=last.ok if last is not None else None,
        text=last.text if last is not None else "",
        at=last.at if last is not None else None,
    )


def queue_view(service: Service) -> Queue:
    """Return the queue at this moment."""
    scheduler = service.scheduler
    return Queue(
        waiting=scheduler.waiting,
        limit=scheduler.queue.places(VALIDATORS_WAIT),
        running=scheduler.running,
        slots=scheduler.queue.slots,
        pace_seconds=scheduler.queue.pace,
        estimate_seconds=scheduler.estimate,
    )


def shadow_view(shadow: Shadow | None) -> ShadowView | None:
    """Return the second model, if there is one."""
    if shadow is None:
        return None
    tally = shadow.tally
    return ShadowView(
        name=shadow.name,
        config=shadow.job.config,
        compared=tally.same + tally.different,
        agreement=tally.agreement,
        failed=tally.failed,
        seconds=statistics.median(tally.recent) if tally.recent else None,
        tenths=tally.tenths,
        tenths_served=tally.tenths_served,
    )


def memory_view() -> MemoryUse:
    """Return what the machine says of memory and CPU."""
    memory = read_memory()
    return MemoryUse(
        resident=memory.resident,
        proportional=memory.proportional,
        peak=memory.peak,
        cgroup_usage=memory.cgroup_usage - memory.cgroup_reclaimable,
        cgroup_limit=finite(memory.cgroup_limit),
        machine_available=memory.machine_available,
        throttled_seconds=read_throttling().seconds,
    )


def key_view(seat: Seat) -> KeyView:
    """Return one hotkey."""
    chain = seat.chain
    return KeyView(
        name=seat.name,
        hotkey=seat.hotkey,
        port=seat.settings.miner_axon_port,
        obstacle=seat.obstacle,
        uid=chain.uid if chain is not None else None,
        incentive=finite(number_of(chain, lambda own: own.incentive)) if chain is not None else None,
        publication=chain.publication if chain is not None else "not published",
    )


def chain_view(chain: Chain) -> ChainView:
    """Return our place on the chain."""
    number = partial(number_of, chain)
    return ChainView(
        block=chain.snapshot.block,
        age_seconds=finite(chain.age),
        fault=chain.fault,
        uid=chain.uid,
        neurons=len(chain.snapshot.neurons),
        validators=len(validators(chain)),
        stake=finite(number(lambda own: own.stake)),
        incentive=finite(number(lambda own: own.incentive)),
        trust=finite(number(lambda own: own.trust)),
        publication=chain.publication,
    )


def validators(chain: Chain) -> list[Neuron]:
    """Return the hotkeys with a validator permit."""
    return [neuron for neuron in chain.snapshot.neurons.values() if neuron.validator_permit]


def active(chain: Chain) -> int:
    """Return how many of them set weights lately."""
    return len(active_validators(chain.snapshot.neurons.values(), chain.snapshot.block))


def number_of(chain: Chain, read: Callable[[Neuron], float]) -> float:
    """Return a number of our own neuron; NaN where the snapshot does not hold it."""
    own = chain.snapshot.neurons.get(chain.hotkey)
    return math.nan if own is None else read(own)


def finite(value: float) -> float | None:
    """Return a number, or None for NaN and infinity."""
    return value if math.isfinite(value) else None
