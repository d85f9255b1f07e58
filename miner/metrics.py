"""Every metric, declared once; units in the names, labels from closed lists, zeros exported."""

import time
from typing import get_args

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from detectors.base import Detector
from miner import __version__
from miner.axon.caller import Wire
from miner.errors import RefusalReason
from miner.threads import ThreadPlan

OUTCOMES = (
    "ok", "refused", "expired", "unauthorised", "forbidden", "bad_request", "bad_image", "failed", "cancelled",
    "not_found",
)  # fmt: skip
STAGES = ("verify", "body", "queue", "decode", "preprocess", "infer", "respond")
# With an edge at 9 s, where validators stop waiting.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 4.5, 6, 7.5, 9, 12)
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *BUCKETS)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """The daemon's metrics in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, which nothing here reads
        self.registry = registry or CollectorRegistry()
        prefix = "roadwork_miner_"

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(prefix + name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(prefix + name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(prefix + name, text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "Requests ended, by wire and outcome.", ("wire", "outcome"))
        self.refusals = counter("refusals", "Requests refused at once or dropped from the queue.", ("reason",))
        self.duration = histogram(
            "request_duration_seconds", "From the request's arrival to its answer.", ("outcome",), BUCKETS
        )
        self.stage = histogram(
            "stage_duration_seconds", "Answered requests: time in each stage.", ("stage",), STAGE_BUCKETS
        )
        self.remaining = histogram(
            "deadline_remaining_seconds", "Answered requests: time left for the caller at the answer.", (), BUCKETS
        )
        self.predictions = histogram("prediction", "Probabilities answered.", (), TENTHS)
        self.last_request = gauge("last_request_timestamp_seconds", "When a request last ended in an answer.")
        self.ready = gauge("ready", "1 while requests are answered.")
        self.queue_depth = gauge("queue_depth", "Requests waiting.")
        self.running = gauge("running", "Pictures worked on.")
        self.slots = gauge("slots", "Pictures that may be worked on at once.")
        self.threads = gauge("threads_per_slot", "Threads for each picture.")
        self.pace = gauge("pace_seconds", "Moving average of the time a picture takes in its slot.")
        self.reloads = counter("model_reloads", "Reloads of the model.", ("result",))
        self.load_seconds = gauge("model_load_seconds", "Time to verify, load and warm up the model.")
        self.model = gauge("model_info", "The model served.", ("detector", "name", "revision", "backend", "precision"))
        self.build = gauge("build_info", "This program.", ("version",))
        self.memory = gauge("memory_bytes", "Memory of this process and of the machine.", ("kind",))
        self.chain_block = gauge("chain_block", "Block of the snapshot of the chain.")
        self.chain_age = gauge("chain_age_seconds", "Age of the snapshot of the chain.")
        self.chain_uid = gauge("chain_uid", "Our uid on the subnet; -1: not registered.")
        self.chain_neurons = gauge("chain_neurons", "Hotkeys in the snapshot.")
        self.start_time = gauge("start_time_seconds", "When this process started.")

        for wire in get_args(Wire):
            for outcome in OUTCOMES[:-1]:
                self.requests.labels(wire, outcome)
        self.requests.labels("none", "not_found")  # no route, so no wire either
        for outcome in OUTCOMES:
            self.duration.labels(outcome)
        for reason in get_args(RefusalReason):
            self.refusals.labels(reason)
        for stage in STAGES:
            self.stage.labels(stage)
        for result in ("ok", "failed"):
            self.reloads.labels(result)
        self.build.labels(__version__).set(1)
        self.start_time.set(time.time())
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        process = psutil.Process()
        self.memory.labels("resident").set_function(lambda: process.memory_info().rss)
        self.memory.labels("machine_available").set_function(lambda: psutil.virtual_memory().available)

    def planned(self, plan: ThreadPlan) -> None:
        """Show the plan of slots and threads."""
        self.slots.set(plan.slots)
        self.threads.set(plan.threads)

    def loaded(self, detector: Detector, seconds: float) -> None:
        """Show the model that serves from now on."""
        model = detector.manifest
        self.load_seconds.set(seconds)
        self.model.clear()
        self.model.labels(model.detector, model.name, model.revision, detector.backend_name, model.precision).set(1)
