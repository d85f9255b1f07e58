"""What the operator sees of endpoints."""

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from detectors.base import RemoteRuntime
from detectors.remote.endpoints import STATES, Endpoint
from miner.inference.remote import RemoteMetrics, addresses, engine_options
from miner.settings.settings import Settings

ADDRESSES = ("http://a:8000", "http://b:8000")


class FakeBackend:
    """Two endpoints, one of them down."""

    obstacle = None
    state = "1 of 2 endpoints"

    def __init__(self) -> None:
        self.endpoints = [Endpoint(0, ADDRESSES[0], "up", busy=3), Endpoint(1, ADDRESSES[1])]

    def open(self, labels: Sequence[str], array: object, judge: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_metrics_by_endpoint() -> None:
    registry, backend = CollectorRegistry(), FakeBackend()
    metrics = RemoteMetrics(registry, ADDRESSES)

    def value(name: str, endpoint: int | None = 0, **labels: str) -> float | None:
        labels |= {} if endpoint is None else {"endpoint": str(endpoint)}
        return registry.get_sample_value(f"roadwork_miner_remote_{name}", labels)

    assert [value("answers_total", index) for index in (0, 1, 2)] == [0, 0, None]  # zeros are exported
    assert [value("state_changes_total", 1, state=state) for state in STATES] == [0, 0, 0]
    assert isinstance(backend, RemoteRuntime)
    metrics.see(backend)
    metrics.answered(0, 0.2)
    metrics.failed(1)
    metrics.changed(1, "up")
    metrics.served_locally()
    assert [value("up", index) for index in (0, 1)] == [1, 0]
    assert [value("busy", index) for index in (0, 1)] == [3, 0]
    assert [value("answers_total", index) for index in (0, 1)] == [1, 0]
    assert [value("failures_total", index) for index in (0, 1)] == [0, 1]
    assert [value("state_changes_total", index, state="up") for index in (0, 1)] == [0, 1]
    assert value("duration_seconds_sum") == pytest.approx(0.2)
    assert value("served_locally_total", None) == 1
    backend.endpoints[1].trust(next_look=5.0)
    assert value("up", 1) == 1


def test_the_settings_in_the_backends_words() -> None:
    settings = Settings.load(remote_endpoints=",".join(ADDRESSES), remote_model="best", remote_fallback="openvino")
    metrics = RemoteMetrics(CollectorRegistry(), addresses(settings))
    options = engine_options(settings, 6, metrics)
    assert options.endpoints == ADDRESSES
    assert (options.model, options.fallback, options.fallback_threads) == ("best", "openvino", 6)
    assert engine_options(Settings.load(remote_endpoints=ADDRESSES[0]), 6, metrics).fallback is None
