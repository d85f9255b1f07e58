"""The remote backend's options from the settings, and its metrics by endpoint."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from detectors.base import RemoteRuntime
from detectors.redact import shown
from detectors.remote.endpoints import STATES, Endpoint, EngineOptions, Observer, State
from miner.metrics import BUCKETS, PREFIX
from miner.settings.settings import Settings
from miner.settings.validators import NO_FALLBACK

REMOTE_BUCKETS = (0.001, 0.0025, *BUCKETS)


def addresses(settings: Settings) -> tuple[str, ...]:
    """Return the endpoints of checked settings."""
    return tuple(settings.remote_endpoints.split(","))


def engine_options(settings: Settings, cores: int, observer: Observer) -> EngineOptions:
    """Return what the backend is told."""
    return EngineOptions(
        addresses(settings),
        settings.remote_model,
        None if settings.remote_fallback == NO_FALLBACK else settings.remote_fallback,
        settings.inference_threads or cores,
        observer,
    )


class RemoteMetrics:
    """What becomes of the pictures sent elsewhere, by the endpoint's place in the operator's list; only if chosen."""

    def __init__(self, registry: CollectorRegistry, endpoints: Sequence[str]) -> None:
        label, prefix = ("endpoint",), PREFIX + "remote_"
        self._answers = Counter(f"{prefix}answers", "Photos that an endpoint scored.", label, registry=registry)
        self._failures = Counter(
            f"{prefix}failures",
            "Photos that an endpoint failed to score; most are scored elsewhere.",
            label,
            registry=registry,
        )
        self._seconds = Histogram(
            f"{prefix}duration_seconds", "Latency of a scored photo, network included.", label,
            buckets=REMOTE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._busy = Gauge(
            f"{prefix}busy", "Photos sent to an endpoint and not answered yet.", label, registry=registry
        )
        self._up = Gauge(f"{prefix}up", "1 while an endpoint is in use.", label, registry=registry)
        self._changes = Counter(
            f"{prefix}state_changes", "Changes of an endpoint's state: in use (up), doubted, out of use (down).",
            (*label, "state"), registry=registry,
        )  # fmt: skip
        self._local = Counter(
            f"{prefix}served_locally", "Photos scored on this machine, as no endpoint was in use.", registry=registry
        )
        info = Gauge(
            f"{prefix}endpoint_info", "Scheme, host and port of an endpoint.", ("endpoint", "address"),
            registry=registry,
        )  # fmt: skip
        for index, address in enumerate(endpoints):
            info.labels(str(index), shown(address)).set(1)
            for metric in (self._answers, self._failures, self._seconds, self._busy, self._up):
                metric.labels(str(index))
            for state in STATES:
                self._changes.labels(str(index), state)

    def see(self, backend: RemoteRuntime) -> None:
        """Show the endpoints of this backend from now on."""
        for endpoint in backend.endpoints:
            self._busy.labels(str(endpoint.index)).set_function(_reader(endpoint, lambda one: one.busy))
            self._up.labels(str(endpoint.index)).set_function(_reader(endpoint, lambda one: one.state != "down"))

    def answered(self, index: int, seconds: float) -> None:
        """Count a picture."""
        self._answers.labels(str(index)).inc()
        self._seconds.labels(str(index)).observe(seconds)

    def failed(self, index: int) -> None:
        """Count a failure."""
        self._failures.labels(str(index)).inc()

    def changed(self, index: int, state: State) -> None:
        """Count a change of an endpoint's state."""
        self._changes.labels(str(index), state).inc()

    def served_locally(self) -> None:
        """Count a picture of our own."""
        self._local.inc()


def _reader(endpoint: Endpoint, read: Callable[[Endpoint], float]) -> Callable[[], float]:
    return lambda: read(endpoint)
