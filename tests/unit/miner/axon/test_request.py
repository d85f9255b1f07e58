"""How a request is timed, and what its record tells the listeners."""

import time
from types import MappingProxyType

import pytest
from starlette.requests import Request

from detectors.base import Prediction
from miner.axon.caller import Caller
from miner.axon.request import Exchange
from miner.chain.base import Neuron, Snapshot
from miner.inference.service import Answer
from miner.metrics import STAGES, Metrics
from miner.recorder.records import RequestRecord


class FileChain:
    """A validator, and a hotkey without a permit."""

    hotkey = "own"
    uid: int | None = None
    obstacle: str | None = None
    snapshot = Snapshot(
        5,
        0.0,
        MappingProxyType({"validator": Neuron(7, "validator", 10.0, True), "peer": Neuron(8, "peer", 0.0, False)}),
    )

    async def start(self) -> None: ...

    async def publish(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def end(
    one: Exchange, metrics: Metrics, outcome: str, reason: str = "", prediction: float | None = None
) -> RequestRecord:
    """End a request, and tell the metrics."""
    record = one.ended(FileChain(), outcome, reason, prediction)
    metrics.request_ended(record)
    return record


def exchange(seconds_ago: float = 0.0, caller: str | None = "validator", timeout: float = 9.0) -> Exchange:
    made = Exchange(Request({"type": "http", "headers": []}), "dendrite", time.monotonic() - seconds_ago)
    if caller is not None:
        made.caller = Caller(caller, 1, "uuid", timeout, "dendrite")
    return made


def answered(one: Exchange) -> Exchange:
    """Let it pass all stages but the last."""
    start = one.arrived
    one.lap("verify", start + 0.001)
    one.lap("body", start + 0.003)
    one.take(Answer(Prediction(0.7, 0.001, 0.002, 0.004), start + 0.011, start + 0.018))
    return one


def test_the_stages_of_an_answered_request_add_up_to_the_whole(metrics: Metrics) -> None:
    one = answered(exchange(seconds_ago=0.02))
    end(one, metrics, "ok", "", 0.7)
    assert set(one.seconds) == set(STAGES)
    assert one.seconds["queue"] == pytest.approx(0.008)
    assert one.seconds["body"] == pytest.approx(0.002)  # reading and unpacking
    assert sum(one.seconds.values()) == pytest.approx(one.elapsed, rel=1e-6)
    assert one.elapsed == pytest.approx(time.monotonic() - one.arrived, abs=1)
    for stage in STAGES:
        assert metrics.registry.get_sample_value("roadwork_miner_stage_duration_seconds_count", {"stage": stage}) == 1


def test_a_shared_answer_has_waited_and_its_inference_is_told_once(metrics: Metrics) -> None:
    one = exchange(seconds_ago=0.02)
    one.lap("verify", one.arrived + 0.001)
    answer = Answer(Prediction(0.7, 0.001, 0.002, 0.004), one.arrived + 0.011, one.arrived + 0.018, shared=True)
    one.take(answer)
    record = end(one, metrics, "ok", "", 0.7)
    assert one.seconds["queue"] == pytest.approx(0.017)
    assert sum(one.seconds.values()) == pytest.approx(one.elapsed, rel=1e-6)
    assert metrics.registry.get_sample_value("roadwork_miner_requests_shared_total") == 1
    assert metrics.registry.get_sample_value("roadwork_miner_prediction_count") == 1  # it was answered too
    assert metrics.registry.get_sample_value("roadwork_miner_stage_duration_seconds_count", {"stage": "infer"}) == 0
    assert record.is_shared


def test_an_answer_after_the_callers_deadline_is_expired(metrics: Metrics) -> None:
    record = end(answered(exchange(seconds_ago=2.0, timeout=1.0)), metrics, "ok", "", 0.7)
    value = metrics.registry.get_sample_value
    assert value("roadwork_miner_requests_total", {"wire": "dendrite", "outcome": "ok"}) == 0
    assert value("roadwork_miner_requests_total", {"wire": "dendrite", "outcome": "expired"}) == 1
    assert value("roadwork_miner_deadline_remaining_seconds_bucket", {"le": "0.0"}) == 1
    assert (record.outcome, record.prediction, record.uid) == ("expired", 0.7, 7)


def test_only_permits_get_a_series_of_their_own(metrics: Metrics) -> None:
    for caller in ("validator", "peer", "stranger", "another stranger", None):
        end(exchange(caller=caller), metrics, "refused", "no answer in time is possible", None)
    value = metrics.registry.get_sample_value
    assert value("roadwork_miner_validator_requests_total", {"uid": "7"}) == 1
    assert value("roadwork_miner_validator_requests_total", {"uid": "others"}) == 3
    assert value("roadwork_miner_validator_requests_total", {"uid": "8"}) is None


def test_only_a_proven_caller_counts_as_having_asked(metrics: Metrics) -> None:
    end(exchange(caller=None), metrics, "unauthorised", "the signature does not match", None)
    name = "roadwork_miner_last_request_timestamp_seconds"
    assert metrics.registry.get_sample_value(name) == 0
    end(exchange(), metrics, "refused", "the queue is full", None)
    assert metrics.registry.get_sample_value(name) == pytest.approx(time.time(), abs=60)


def test_a_query_of_our_own_shows_nobody_that_we_are_reached(metrics: Metrics) -> None:
    end(exchange(caller="own"), metrics, "refused", "the miner is not ready", None)
    assert metrics.registry.get_sample_value("roadwork_miner_last_request_timestamp_seconds") == 0


def test_a_long_message_is_cut(metrics: Metrics) -> None:
    record = end(exchange(), metrics, "bad_request", "x" * 10_000, None)
    assert len(record.reason) == 100
