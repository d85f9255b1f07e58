"""The metrics, each declared once; units in the names, labels from closed lists, zeros exported."""

import platform
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detectors.base import Detector
from detectors.machine import Memory, Throttling, allowed_cores, cpu_quota, read_memory, read_throttling
from detectors.models.manifest import Manifest
from miner import __version__
from miner.chain.base import ACTIVITY_CUTOFF
from miner.errors import DropReason, RefusalReason
from miner.recorder.records import OUTCOMES, RequestRecord, Wire

PREFIX = "roadwork_miner_"

STAGES = ("verify", "body", "queue", "decode", "preprocess", "infer", "respond")
# With an edge at 9 s, where validators stop waiting.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 4.5, 6, 7.5, 9, 12)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *BUCKETS)
REMAINING_BUCKETS = (0.0, *BUCKETS)  # the first holds what came too late
PROBABILITY_BUCKETS = tuple(tenth / 10 for tenth in range(1, 11))
OTHER_CALLERS = "others"  # in place of a uid: callers without a validator permit
OURS = ("hotkey",)  # one for each key of ours that is served
# Name, text and labels of what the chain says of money; absent where it does not.
EARNINGS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("registration_cost_tao", "Cost of a registration.", ()),
    ("registration_locked_ratio", "Share of this cost that is locked as collateral and not burned.", ()),
    ("registration_cost_rise", "This cost as a multiple of the least one of the last day.", ()),
    ("alpha_price_tao", "Price of one alpha of the subnet, before slippage.", ()),
    ("subnet_burned_ratio", "Share of the miners' emission that is burned, 0 to 1.", ()),
    ("subnet_pay", "1 for the one state that is: how the subnet pays its miners.", ("state",)),
    ("subnet_changed", "1 while this differs from what was seen first; the name: from StreetVision's.", ("what",)),
    ("subnet_weights_age_seconds", "Time since a validator last set weights.", ()),
    ("subnet_miners", "Hotkeys that mine, by whether they earn.", ("earns",)),
    ("income_alpha_per_day", "What our hotkey earns, as of the last payment.", OURS),
    ("income_tao_per_day", "The same at the price of alpha.", OURS),
    ("incentive_rank", "Our rank among the miners who earn; absent: we earn nothing.", OURS),
    ("immunity_seconds", "Time for which our uid can't be replaced yet; 0: it can.", OURS),
    ("registrations_to_replacement", "Registrations until our uid goes; absent: it can't be replaced.", OURS),
    ("collateral_alpha", "Alpha locked as our collateral.", OURS),
    ("machine_cost_tao_per_day", "Cost of this machine, by COST_PER_MONTH.", ()),
    ("earnings_age_seconds", "Time since these were read of the chain.", ()),
)
# The same of the labels, by `label` and `standing`; accuracies of the model that serves, absent where nobody measured.
TRAFFIC: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("labelled_photos", "Recorded photos that somebody has labelled, by class.", ("class",)),
    ("unlabelled_photos", "Recorded photos without a label.", ()),
    ("traffic_photos", "Labels of the random tenth that the accuracy on real traffic rests on.", ()),
    ("traffic_accuracy_ratio", "Share of right answers on real traffic, by the random tenth's labels.", ()),
    ("traffic_accuracy_low_ratio", "Lower end of its 95 % interval.", ()),
    ("traffic_accuracy_high_ratio", "Upper end of its 95 % interval.", ()),
    ("promised_accuracy_ratio", "Share of right answers that was measured on photos kept back.", ()),
    ("traffic_below_promise", "Whether it is right less often than was promised, beyond the chance of both.", ()),
    ("last_improvement_timestamp_seconds", "Time at which `improve` ended last.", ()),
)


class KeptCount(Collector):
    """A counter that is kept elsewhere, read at the scrape; with a label, one for each of its values."""

    def __init__(self, name: str, text: str, label: str = "", values: tuple[str, ...] = ("",)) -> None:
        self._name = name
        self._text = text
        self._labels = (label,) if label else ()
        self._reads: dict[str, Callable[[], float]] = dict.fromkeys(values, lambda: 0.0)

    def set_function(self, read: Callable[[], float], value: str = "") -> None:
        """Read it there from now on."""
        self._reads[value] = read

    def collect(self) -> Iterator[Metric]:
        """Yield its values."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for value, read in self._reads.items():
            family.add_metric((value,) if self._labels else (), read())
        yield family


class Facts(Collector):
    """Ones whose labels say what is the case, read at the scrape: what was the case before is then gone."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._reads: list[Callable[[], tuple[str, ...] | None]] = []

    def add(self, read: Callable[[], tuple[str, ...] | None]) -> None:
        """Have one more, whose labels are read there; None: not known."""
        self._reads.append(read)

    def collect(self) -> Iterator[Metric]:
        """Yield all of them."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for read in self._reads:
            if (values := read()) is not None:
                family.add_metric(values, 1)
        yield family


class Readings(Collector):
    """Gauges read at the scrape; one that is not known is absent, as a zero would be a claim."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        self._family = (name, text, labels)
        self._reads: list[tuple[tuple[str, ...], Callable[[], float | None]]] = []

    def add(self, read: Callable[[], float | None], *values: str) -> None:
        """Have one more, with values of the labels, which is read there; None: not known."""
        self._reads.append((values, read))

    def collect(self) -> Iterator[Metric]:
        """Yield those that are known."""
        name, text, labels = self._family
        family = GaugeMetricFamily(name, text, labels=labels)
        for values, read in self._reads:
            if (value := read()) is not None:
                family.add_metric(values, value)
        yield family


class MachineCollector(Collector):
    """What the kernel counts, read at the scrape."""

    def __init__(self, memory: Callable[[], Memory], throttling: Callable[[], Throttling]) -> None:
        self._memory = memory
        self._throttling = throttling

    def collect(self) -> Iterator[Metric]:
        """Yield memory and throttling."""
        memory, throttling = self._memory(), self._throttling()
        family = GaugeMetricFamily(
            PREFIX + "memory_bytes", "Memory of this process, its cgroup and the machine.", labels=("kind",)
        )
        for kind in Memory.__slots__:
            family.add_metric((kind,), getattr(memory, kind))
        yield family
        for name, text, value in (
            ("cpu_periods", "Scheduler periods under the cgroup's CPU quota.", throttling.periods),
            ("cpu_throttled_periods", "Scheduler periods in which the CPU was throttled.", throttling.throttled),
            ("cpu_throttled_seconds", "Time in which the CPU was throttled, summed over tasks.", throttling.seconds),
        ):
            yield CounterMetricFamily(PREFIX + name, text, value=value)


class Metrics:
    """The daemon's metrics in a registry of its own."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        memory: Callable[[], Memory] = read_memory,
        throttling: Callable[[], Throttling] = read_throttling,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which nothing here reads
        self.registry = registry or CollectorRegistry()
        self._declare_requests()
        self._declare_model()
        self._declare_shadow()
        self._declare_chain()
        self._declare_earnings()
        self.build = self._gauge("build_info", "Version of this program and of Python.", ("version", "python"))
        self.build.labels(__version__, platform.python_version()).set(1)
        self.tasks = self._gauge("tasks", "Tasks on the event loop.")
        self.start_time = self._gauge("start_time_seconds", "Time at which this process started.")
        self.started = time.time()
        self.start_time.set(self.started)
        self._asked_at = 0.0  # as `last_request`
        self.registry.register(MachineCollector(memory, throttling))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def clock_was_set(self, seconds: float) -> None:
        """Move the start and the last request with the clock: neither is longer ago, or to come, because it was set."""
        self.started += seconds
        self.start_time.set(self.started)
        if self._asked_at:
            self._take_time(self._asked_at + seconds)

    def _take_time(self, asked_at: float) -> None:
        self._asked_at = asked_at
        self.last_request.set(asked_at)

    def _declare_requests(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.requests = counter("requests", "Requests ended, by wire and outcome.", ("wire", "outcome"))
        text = "Requests of proven callers, refused at once or dropped from the queue."
        self.refusals = counter("refusals", text, ("reason",))
        self.by_validator = counter("validator_requests", "Requests of proven callers, by uid.", ("uid",))
        self.shared = counter("requests_shared", "Requests answered with the inference of an identical photo.")
        text = "Latency of a request, from its arrival to its answer."
        self.duration = histogram("request_duration_seconds", text, ("outcome",), BUCKETS)
        text = "Time of an answered request in each stage."
        self.stage = histogram("stage_duration_seconds", text, ("stage",), STAGE_BUCKETS)
        text = "Time left before the caller's deadline at the answer; 0: too late."
        self.remaining = histogram("deadline_remaining_seconds", text, (), REMAINING_BUCKETS)
        text = "Predictions sent, as probabilities of roadwork."
        self.predictions = histogram("prediction", text, (), PROBABILITY_BUCKETS)
        self.drift = gauge(
            "prediction_drift",
            "Population stability index of the last predictions against the manifest's; NaN: unknown.",
        )
        self.invalid_outputs = counter("invalid_outputs", "Model outputs that were no probability; not sent.")
        self.last_request = gauge(
            "last_request_timestamp_seconds", "Time of the last request of a proven caller; 0: none."
        )
        self.clock_ahead = gauge(
            "clock_ahead_seconds", "Clock skew: our clock ahead of the last hour's callers, median; NaN: no requests."
        )
        self.ready = gauge("ready", "1 while the miner is ready to answer requests.")
        self.queue_depth = gauge("queue_depth", "Requests in the queue.")
        self.queue_limit = gauge("queue_limit", "Queue capacity: as many requests as can be answered in time.")
        self.running = gauge("running", "Photos in inference.")
        self.slots = gauge("slots", "Photos in inference at once, at most.")
        self.connections = gauge("connections", "Connections to the validators' port.")
        self.dropped = counter("connections_dropped", "Connections closed or refused, by reason.", ("reason",))
        self.threads = gauge("threads_per_slot", "Threads per photo.")
        self.cores = gauge("cores", "Whole cores this process may use: its affinity mask, or less by its CPU quota.")
        self.cores.set_function(allowed_cores)
        self.quota = gauge("cpu_quota_cores", "CPU quota of the cgroup, in cores; +Inf: none.")
        self.quota.set_function(lambda: inf if (quota := cpu_quota()) is None else quota)
        text = "Moving average of the inference time of a photo in its slot; of a cascade, in its first stage."
        self.pace = gauge("pace_seconds", text)
        self.recorded = self._kept_count("recorder_records", "Requests written by the recorder.")
        self.unrecorded = self._kept_count(
            "recorder_dropped",
            "Requests not recorded; behind: too many at once; disk: a fault of the disk.",
            "reason",
            ("behind", "disk"),
        )
        self.recorder_bytes = gauge("recorder_bytes", "Size of the recorder's files.")
        self.log_dropped = self._kept_count("log_lines_dropped", "Log lines that were not written.")
        for wire in get_args(Wire):
            for outcome in OUTCOMES[:-1]:
                self.requests.labels(wire, outcome)
        self.requests.labels("none", "not_found")  # no route, so no wire either
        for outcome in OUTCOMES[:-1]:
            self.duration.labels(outcome)
        for reason in get_args(RefusalReason):
            self.refusals.labels(reason)
        for why in get_args(DropReason):
            self.dropped.labels(why)
        for stage in STAGES:
            self.stage.labels(stage)
        self.by_validator.labels(OTHER_CALLERS)

    def _declare_model(self) -> None:
        gauge = self._gauge
        labels = ("detector", "name", "revision", "backend", "precision", "threads", "hash", "roadwork")
        text = "The model served; hash: of its graph; roadwork: the class that counts."
        self.model = gauge("model_info", text, labels)
        self.load_seconds = gauge("model_load_seconds", "Time to verify the model's checksums and load it.")
        self.warmup_seconds = gauge("model_warmup_seconds", "Time to check the known picture and warm up.")
        self.reloads = self._counter("model_reloads", "Model reloads, by result.", ("result",))
        for result in ("ok", "failed"):
            self.reloads.labels(result)

    def _declare_shadow(self) -> None:
        self.shadow_up = self._gauge("shadow_up", "1 while the shadow model is loaded.")
        self.shadow_compared = self._kept_count(
            "shadow_compared",
            "Photos scored by the shadow model: on the same side of 0.5 as the serving one, the other, or failed.",
            "side",
            ("same", "different", "failed"),
        )
        text = "Predictions of the shadow model, as probabilities of roadwork."
        self.shadow_predictions = self._histogram("shadow_prediction", text, (), PROBABILITY_BUCKETS)
        self.shadow_seconds = self._histogram(
            "shadow_cpu_seconds", "CPU time of the shadow model per photo, on one thread.", (), STAGE_BUCKETS
        )

    def _declare_chain(self) -> None:
        gauge = self._gauge
        text = "Requests to each of our hotkeys, by outcome."
        self.by_hotkey = self._counter("hotkey_requests", text, ("hotkey", "outcome"))
        text = "1 while requests to this hotkey are answered, by its name in the wallet."
        self.hotkey_ready = gauge("hotkey_ready", text, ("name",))
        text = "Our hotkeys: name in the wallet, address, uid on the subnet (empty: not registered)."
        self.hotkeys = Facts(PREFIX + "hotkey_info", text, ("name", "hotkey", "uid"))
        self.registry.register(self.hotkeys)
        self.identity = gauge(
            "identity_info", "Identity of this miner: hotkey, network and netuid.", ("hotkey", "network", "netuid")
        )
        self.chain_block = gauge("chain_block", "Block of the chain snapshot.")
        self.chain_age = gauge("chain_age_seconds", "Chain snapshot age; +Inf: no snapshot.")
        self.chain_uid = gauge("chain_uid", "Our uid on the subnet; -1: not registered.", OURS)
        self.chain_registered = gauge("chain_registered", "1 while our hotkey is registered on the subnet.", OURS)
        self.chain_published = gauge("chain_published", "1 while our address is published on the chain.", OURS)
        text = "1 while NATIX's server last said that this hotkey is registered there, under the uid it has; else 0."
        self.natix_registered = gauge("natix_registered", text, OURS)
        self.chain_neurons = gauge("chain_neurons", "Hotkeys in the chain snapshot.")
        self.chain_validators = gauge("chain_validators", "Hotkeys with a validator permit in the chain snapshot.")
        self.chain_validators_active = gauge(
            "chain_validators_active",
            f"Hotkeys with a validator permit that set weights in the last {ACTIVITY_CUTOFF} blocks.",
        )
        self.chain_syncs = self._kept_count("chain_syncs", "Chain reads.")
        self.chain_failures = self._kept_count("chain_failures", "Chain reads and publications that failed.")
        self.chain_stake = gauge("chain_stake", "Our stake, in the subnet's units.", OURS)
        self.chain_incentive = gauge("chain_incentive", "Our share of the incentive, 0 to 1; NaN: unknown.", OURS)
        self.chain_trust = gauge("chain_trust", "Our trust, 0 to 1; NaN: unknown.", OURS)

    def _declare_earnings(self) -> None:
        labels = ("netuid", "name", "owner", "registered_at")
        self.subnet = Facts(PREFIX + "subnet_info", "The subnet: its name, its owner, its first block.", labels)
        self.registry.register(self.subnet)
        self.earnings, self.traffic = (
            {name: Readings(PREFIX + name, text, of) for name, text, of in table} for table in (EARNINGS, TRAFFIC)
        )
        for readings in (*self.earnings.values(), *self.traffic.values()):
            self.registry.register(readings)

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Count a request that ended."""
        self.requests.labels(record.wire, record.outcome).inc()
        if record.wire == "none":
            return
        self.by_hotkey.labels(record.hotkey, record.outcome).inc()
        self.duration.labels(record.outcome).observe(record.seconds)
        if record.refusal is not None:
            self.refusals.labels(record.refusal).inc()
        if record.is_invalid:
            self.invalid_outputs.inc()
        if record.caller:
            self._count_caller(record)
        if record.prediction is not None:
            self._measure(record, record.prediction)
        elif record.outcome == "expired":
            self.remaining.observe(0.0)

    def _count_caller(self, record: RequestRecord) -> None:
        """Count by uid; only permits get a label of their own, so there are never many."""
        if record.caller != record.hotkey:  # `query` signs as ourselves, which shows nobody that we are reached
            self._take_time(time.time())
        self.by_validator.labels(str(record.uid) if record.is_permitted else OTHER_CALLERS).inc()

    def _measure(self, record: RequestRecord, prediction: float) -> None:
        for stage, seconds in record.stages.items():
            self.stage.labels(stage).observe(seconds)
        self.predictions.observe(prediction)
        if record.is_shared:
            self.shared.inc()
        assert record.timeout is not None
        self.remaining.observe(max(0.0, record.timeout - record.seconds))

    def planned(self, slots: int, threads: int) -> None:
        """Show the plan of slots and threads."""
        self.slots.set(slots)
        self.threads.set(threads)

    def loaded(self, detector: Detector, load_seconds: float, warmup_seconds: float) -> None:
        """Show the model that serves from now on."""
        model = detector.manifest
        self.load_seconds.set(load_seconds)
        self.warmup_seconds.set(warmup_seconds)
        self.model.clear()
        self.model.labels(
            model.detector, model.name, model.revision, detector.backend_name, detector.precision_words,
            str(detector.options.threads), graph_hash(model), detector.roadwork,
        ).set(1)  # fmt: skip

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _kept_count(self, name: str, text: str, label: str = "", values: tuple[str, ...] = ("",)) -> KeptCount:
        count = KeptCount(PREFIX + name, text, label, values)
        self.registry.register(count)
        return count

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


def graph_hash(model: Manifest) -> str:
    """Return the sums of the model's graphs, shortened; what `sha256sum` shows begins with the same.

    The faster variant of an ensemble has no file of its own: it is what its branches' variants are.
    """
    sums = [total for name, total in sorted(model.files.items()) if name.endswith(".onnx")]
    sums = sums or list(model.files.values()) or [branch.sums for branch in (model.branches or {}).values()]
    return "+".join(total[:12] for total in sums)
