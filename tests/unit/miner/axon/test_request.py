"""How a request is timed, and what is written down at its end."""

import time
from types import MappingProxyType

import pytest
from starlette.requests import Request

from detectors.base import Prediction
from miner.axon.caller import Caller
from miner.axon.request import Exchange, Recorder
from miner.chain.base import Neuron, Snapshot
from miner.inference.service import Answer
from miner.metrics import STAGES, Metrics
from miner.status.history import History


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


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def recorder(metrics: Metrics, history: History) -> Recorder:
    return Recorder(metrics, history, FileChain())


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


def test_the_stages_of_an_answered_request_add_up_to_the_whole(recorder: Recorder, metrics: Metrics) -> None:
    one = answered(exchange(seconds_ago=0.02))
    recorder.record(one, "ok", "", 0.7)
    assert set(one.seconds) == set(STAGES)
    assert one.seconds["queue"] == pytest.approx(0.008)
    assert one.seconds["body"] == pytest.approx(0.002)  # reading and unpacking
    assert sum(one.seconds.values()) == pytest.approx(one.elapsed, rel=1e-6)
    assert one.elapsed == pytest.approx(time.monotonic() - one.arrived, abs=1)
    for stage in STAGES:
        assert metrics.registry.get_sample_value("roadwork_miner_stage_duration_seconds_count", {"stage": stage}) == 1


def test_a_shared_answer_has_waited_and_its_inference_is_told_once(recorder: Recorder, metrics: Metrics) -> None:
    one, told = exchange(seconds_ago=0.02), list[float]()
    recorder.predicted = lambda prediction, picture: told.append(prediction)
    one.lap("verify", one.arrived + 0.001)
    answer = Answer(Prediction(0.7, 0.001, 0.002, 0.004), one.arrived + 0.011, one.arrived + 0.018, shared=True)
    one.take(answer)
    recorder.record(one, "ok", "", 0.7)
    assert one.seconds["queue"] == pytest.approx(0.017)
    assert sum(one.seconds.values()) == pytest.approx(one.elapsed, rel=1e-6)
    assert metrics.registry.get_sample_value("roadwork_miner_requests_shared_total") == 1
    assert metrics.registry.get_sample_value("roadwork_miner_prediction_count") == 1  # it was answered too
    assert metrics.registry.get_sample_value("roadwork_miner_stage_duration_seconds_count", {"stage": "infer"}) == 0
    assert not told


def test_an_answer_after_the_callers_deadline_is_expired(
    recorder: Recorder, metrics: Metrics, history: History
) -> None:
    recorder.record(answered(exchange(seconds_ago=2.0, timeout=1.0)), "ok", "", 0.7)
    value = metrics.registry.get_sample_value
    assert value("roadwork_miner_requests_total", {"wire": "dendrite", "outcome": "ok"}) == 0
    assert value("roadwork_miner_requests_total", {"wire": "dendrite", "outcome": "expired"}) == 1
    assert value("roadwork_miner_deadline_remaining_seconds_bucket", {"le": "0.0"}) == 1
    (entry,) = history.recent()
    assert (entry.outcome, entry.prediction, entry.uid) == ("expired", 0.7, 7)


def test_only_permits_get_a_series_of_their_own(recorder: Recorder, metrics: Metrics) -> None:
    for caller in ("validator", "peer", "stranger", "another stranger", None):
        recorder.record(exchange(caller=caller), "refused", "no answer in time is possible", None)
    value = metrics.registry.get_sample_value
    assert value("roadwork_miner_validator_requests_total", {"uid": "7"}) == 1
    assert value("roadwork_miner_validator_requests_total", {"uid": "others"}) == 3
    assert value("roadwork_miner_validator_requests_total", {"uid": "8"}) is None


def test_only_a_proven_caller_counts_as_having_asked(recorder: Recorder, metrics: Metrics) -> None:
    recorder.record(exchange(caller=None), "unauthorised", "the signature does not match", None)
    name = "roadwork_miner_last_request_timestamp_seconds"
    assert metrics.registry.get_sample_value(name) == 0
    recorder.record(exchange(), "refused", "the queue is full", None)
    assert metrics.registry.get_sample_value(name) == pytest.approx(time.time(), abs=60)


def test_a_query_of_our_own_shows_nobody_that_we_are_reached(recorder: Recorder, metrics: Metrics) -> None:
    recorder.record(exchange(caller="own"), "refused", "the miner is not ready", None)
    assert metrics.registry.get_sample_value("roadwork_miner_last_request_timestamp_seconds") == 0


def test_a_long_message_is_cut(recorder: Recorder, history: History) -> None:
    recorder.record(exchange(), "bad_request", "x" * 10_000, None)
    assert len(history.recent()[0].reason) == 100
