"""The observation of a running daemon: what metrics and page read at the moment they are asked."""

import os
import time
from collections.abc import Callable
from functools import partial
from math import nan

from detectors.photos.labelled import CLASSES
from miner import __version__, logs
from miner.axon.clock import ClockWatch
from miner.cascade import CascadeMetrics, stage_rewards
from miner.chain.base import Chain
from miner.chain.identities import Identity
from miner.feedback.answers import detector_fingerprint, promise_of
from miner.feedback.standing import ModelStanding, StandingView, StandingWatch
from miner.inference.reload import Reloader
from miner.inference.service import Service
from miner.metrics import Metrics
from miner.natix.registration import RegistrationLog, Registrations
from miner.recorder.recorder import FlightRecorder
from miner.recorder.records import OUTCOMES
from miner.settings.settings import Settings
from miner.settings.validators import VALIDATORS_WAIT
from miner.shadow.shadow import ShadowKeeper
from miner.status.archive import Archive, CheckupView, history_file
from miner.status.earnings import earnings_view, show_earnings
from miner.status.history import Drift, History
from miner.status.overview import (
    IdentityView,
    MemoryUse,
    NatixView,
    Overview,
    RequestView,
    active,
    cascade_view,
    chain_view,
    finite,
    key_view,
    model_view,
    number_of,
    queue_view,
    reload_view,
    shadow_view,
    validators,
)
from miner.status.spans import Hour, LongSpan


class Watch:
    """Looks at the parts of a daemon as they come into being: its port answers before there is a model or a chain."""

    def __init__(
        self, settings: Settings, metrics: Metrics, obstacle: Callable[[], str | None], clock: ClockWatch
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.obstacle = obstacle
        self.history = History()
        self.archive = Archive(self.history, history_file(settings))
        self.stages = CascadeMetrics(metrics.registry)
        self.service: Service | None = None
        self.identities: list[Identity] = []
        self.registrations = Registrations(settings.state_dir)
        self.shadows: ShadowKeeper | None = None
        self.drift = Drift(lambda: self.service.detector.manifest.predictions if self.service is not None else None)
        metrics.drift.set_function(lambda: self.drift.index)
        self.reloader: Reloader | None = None
        self.labels = StandingWatch(settings.state_dir)
        self.traffic: StandingView | None = None
        self._see_traffic()
        metrics.ready.set_function(lambda: float(obstacle() is None))
        metrics.log_dropped.set_function(logs.dropped)
        metrics.clock_ahead.set_function(lambda: nan if (ahead := clock.ahead) is None else ahead)

    def see_service(self, service: Service, reloader: Reloader, shadows: ShadowKeeper) -> None:
        """Show the queue, the model, its reloads and the second model from now on."""
        self.service, self.reloader, self.shadows = service, reloader, shadows
        self.see_stages()
        metrics, scheduler = self.metrics, service.scheduler
        metrics.queue_depth.set_function(lambda: scheduler.waiting)
        metrics.queue_limit.set_function(lambda: scheduler.queue.places(VALIDATORS_WAIT))
        metrics.running.set_function(lambda: scheduler.running)
        metrics.pace.set_function(lambda: scheduler.queue.pace)

    def see_stages(self) -> None:
        """Show the stages of the model that serves from now on, if it is a cascade."""
        assert self.service is not None
        self.stages.see(self.service.detector.stages, stage_rewards(self.service.detector), self.service.mode)

    def read_day(self) -> None:
        """Have the metrics know what the last day would have earned; on the event loop, where the history lives."""
        if self.service is not None and (cascade := cascade_view(self.service.detector, self.history)) is not None:
            self.stages.earned([stage.earned for stage in cascade.stages], cascade.earned)

    def read_traffic(self) -> None:
        """Read how right the model was found to be on real traffic, off the event loop: it lists folders."""
        self.labels.read()
        if self.service is None:
            self.traffic = self.labels.view
        else:
            detector = self.service.detector
            self.traffic = self.labels.of(detector_fingerprint(detector), promise_of(detector))

    def _see_traffic(self) -> None:
        """Show what is known of real traffic, at whatever time it was read last."""
        add = {name: readings.add for name, readings in self.metrics.traffic.items()}
        for kind in CLASSES:
            add["labelled_photos"](partial(self._labelled, kind), kind)
        add["unlabelled_photos"](lambda: self.traffic.photos.waiting if self.traffic is not None else 0)
        add["traffic_photos"](lambda: model.photos if (model := self._judged()) is not None else 0)
        for name, end in (("", "value"), ("_low", "low"), ("_high", "high")):
            add[f"traffic_accuracy{name}_ratio"](partial(self._accuracy, end))
        add["promised_accuracy_ratio"](self._promised)
        add["traffic_below_promise"](self._below)
        add["last_improvement_timestamp_seconds"](
            lambda: self.traffic.improvement.at if self.traffic is not None and self.traffic.improvement else None
        )

    def _labelled(self, kind: str) -> float:
        return self.traffic.photos.labelled.get(kind, 0) if self.traffic is not None else 0

    def _judged(self) -> ModelStanding | None:
        """Return what is known of the model that serves, not of one that did."""
        return self.traffic.model if self.traffic is not None and self.traffic.is_current else None

    def _accuracy(self, end: str) -> float | None:
        model = self._judged()
        return getattr(model.accuracy, end) if model is not None and model.accuracy is not None else None

    def _below(self) -> float | None:
        model = self._judged()
        return None if model is None or model.accuracy is None or model.promised is None else model.is_below_promise

    def _promised(self) -> float | None:
        promised = promise_of(self.service.detector) if self.service is not None else None
        return promised.value if promised is not None else None

    def see_flight(self, flight: FlightRecorder) -> None:
        """Show what is recorded from now on."""
        metrics, counts = self.metrics, flight.counts
        metrics.recorded.set_function(lambda: counts.written)
        metrics.unrecorded.set_function(lambda: counts.behind, "behind")
        metrics.unrecorded.set_function(lambda: counts.disk, "disk")
        metrics.recorder_bytes.set_function(lambda: flight.ring.bytes)

    def see_identities(self, identities: list[Identity]) -> None:
        """Show who we are, and our places on the chain, from now on."""
        self.identities = identities
        for identity in identities:
            self.metrics.hotkey_ready.labels(identity.name).set_function(partial(self._is_ready, identity))
            if identity.chain is not None:
                self._see_own(identity.name, identity.chain)
                if identity.market is not None:
                    identity.market.reader.told.append(self._tell_of_natix(identity.chain))
        chain, metrics = self.chain, self.metrics
        market = next((identity.market for identity in identities if identity.market is not None), None)
        if market is not None:
            show_earnings(metrics, market, identities, self.settings)
        if chain is None:
            return
        metrics.chain_block.set_function(lambda: chain.snapshot.block)
        metrics.chain_age.set_function(lambda: chain.age)
        metrics.chain_neurons.set_function(lambda: len(chain.snapshot.neurons))
        metrics.chain_validators.set_function(lambda: len(validators(chain)))
        metrics.chain_validators_active.set_function(lambda: active(chain))
        metrics.chain_syncs.set_function(lambda: chain.syncs)
        metrics.chain_failures.set_function(lambda: chain.failures)

    @property
    def chain(self) -> Chain | None:
        """The chain as the first hotkey sees it; what is not its own is the same for all."""
        return next((identity.chain for identity in self.identities if identity.chain is not None), None)

    def _is_ready(self, identity: Identity) -> float:
        return float((identity.obstacle or self.obstacle()) is None)

    def obstacles(self) -> dict[str, str | None]:
        """Return for each of several hotkeys why its validators are not answered, or None; by its name."""
        general = self.obstacle()
        return (
            {identity.name: identity.obstacle or general for identity in self.identities}
            if len(self.identities) > 1
            else {}
        )

    def freshness(self) -> dict[str, float | str | None]:
        """Return how old what we know of the chain is, and why, and whether we stand there; empty before a look."""
        chain = self.chain
        if chain is None:
            return {}
        return {"age_seconds": finite(chain.age), "fault": chain.fault, "publication": chain.publication}

    def _natix(self, chain: Chain | None) -> NatixView | None:
        if chain is None or self.settings.is_standalone:
            return None
        return NatixView.of(chain, self.registrations, self.settings.netuid, time.time())

    def _tell_of_natix(self, chain: Chain) -> Callable[[object], None]:
        told = RegistrationLog(self.registrations, chain.hotkey, self.settings.netuid)
        return lambda _: told.see(chain.uid)

    def _see_own(self, name: str, chain: Chain) -> None:
        self.metrics.hotkeys.add(lambda: (name, chain.hotkey, "" if chain.uid is None else str(chain.uid)))
        metrics, hotkey, number = self.metrics, chain.hotkey, partial(number_of, chain)
        metrics.identity.labels(hotkey, self.settings.shown_network, str(self.settings.netuid)).set(1)
        metrics.chain_uid.labels(hotkey).set_function(lambda: -1 if chain.uid is None else chain.uid)
        metrics.chain_registered.labels(hotkey).set_function(lambda: chain.uid is not None)
        metrics.chain_published.labels(hotkey).set_function(lambda: chain.is_published)
        metrics.chain_stake.labels(hotkey).set_function(lambda: number(lambda own: own.stake))
        metrics.chain_incentive.labels(hotkey).set_function(lambda: number(lambda own: own.incentive))
        metrics.chain_trust.labels(hotkey).set_function(lambda: number(lambda own: own.trust))
        if not self.settings.is_standalone:
            netuid, registrations = self.settings.netuid, self.registrations
            metrics.natix_registered.labels(hotkey).set_function(
                lambda: registrations.standing(hotkey, netuid, chain.uid) == "yes"
            )
        for outcome in OUTCOMES:
            metrics.by_hotkey.labels(hotkey, outcome)

    def count_from_zero(self) -> None:
        """Export a zero for each validator there is, so that its first request is an increase too."""
        chain = self.chain
        for neuron in validators(chain) if chain is not None else []:
            self.metrics.by_validator.labels(str(neuron.uid))

    def overview(self, memory: MemoryUse, checkup: CheckupView | None = None) -> Overview:
        """Return all of it, for people; with what is read off the event loop: the kernel's files, and doctor's."""
        obstacle, chain = self.obstacle(), self.chain
        neurons = list(chain.snapshot.neurons.values()) if chain is not None else []
        return Overview(
            now=time.time(),
            started=self.metrics.started,
            ready=obstacle is None,
            obstacle=obstacle,
            identity=IdentityView(
                version=__version__,
                hotkey=chain.hotkey if chain is not None else "",
                network=self.settings.shown_network,
                netuid=self.settings.netuid,
                port=self.identities[0].settings.miner_axon_port if self.identities else self.settings.miner_axon_port,
                pid=os.getpid(),
            ),
            model=model_view(self.service) if self.service is not None else None,
            cascade=cascade_view(self.service.detector, self.history) if self.service is not None else None,
            reload=reload_view(self.reloader) if self.reloader is not None else None,
            queue=queue_view(self.service) if self.service is not None else None,
            shadow=shadow_view(self.shadows.shadow) if self.shadows is not None else None,
            memory=memory,
            chain=chain_view(chain, self._natix(chain)) if chain is not None else None,
            keys=[key_view(identity, self._natix(identity.chain)) for identity in self.identities],
            earnings=earnings_view(self.identities, self.settings),
            hour=Hour.of(self.history, neurons),
            day=LongSpan.of(self.history, "day", neurons),
            week=LongSpan.of(self.history, "week", neurons),
            checkup=checkup,
            traffic=self.traffic,
            recent=[RequestView.of(entry) for entry in self.history.recent()],
        )
