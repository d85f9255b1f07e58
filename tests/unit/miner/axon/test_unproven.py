"""What is counted of requests that are refused before, or after, their caller has proven who it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.errors import MESSAGES
from miner.recorder.records import RequestRecord, Wire
from tests.unit.miner.axon.wire_in_process import Port

BODY = b'{"image": "aGk="}'


class Told:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def request_ended(self, record: RequestRecord, photo: bytes | None) -> None:
        self.outcomes.append(record.outcome)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    port = Port(tmp_path)
    yield port
    port.close()


def count(port: Port, name: str, **labels: str) -> float | None:
    return port.metrics.registry.get_sample_value(f"roadwork_miner_{name}", labels)


def test_who_only_names_a_validator_sets_off_no_alert(port: Port) -> None:
    told = Told()
    port.listeners.append(told)
    request = port.request("btauth", BODY, timeout="0.1", **{"x-bittensor-signature": "0x00"})
    for _ in range(5):
        assert port.feed([request]) == [(503, {"message": MESSAGES["deadline"]})]
    assert count(port, "requests_total", wire="btauth", outcome="unproven") == 5
    assert count(port, "requests_total", wire="btauth", outcome="refused") == 0
    assert count(port, "refusals_total", reason="deadline") == 0
    assert count(port, "last_request_timestamp_seconds") == 0
    assert told.outcomes == ["unproven"] * 5


def test_a_validator_whose_headers_prove_it_is_refused_by_name(port: Port) -> None:
    assert port.feed([port.request("dendrite", BODY, timeout="0.1")])[0][0] == 503
    assert count(port, "requests_total", wire="dendrite", outcome="refused") == 1
    assert count(port, "refusals_total", reason="deadline") == 1
    assert count(port, "validator_requests_total", uid="1") == 1


@pytest.mark.parametrize("reason", ["not_ready", "no_endpoint"])
@pytest.mark.parametrize(("wire", "outcome"), [("dendrite", "refused"), ("btauth", "unproven")])
def test_while_nobody_is_answered_a_proven_caller_is_known(port: Port, wire: Wire, outcome: str, reason: str) -> None:
    if reason == "not_ready":
        port.axon.chain.obstacle = "the chain is away"  # type: ignore[misc]
    else:
        port.service.detector.obstacle = "no engine"  # type: ignore[misc]
    assert port.feed([port.request(wire, BODY)])[0][0] == 503
    assert count(port, "requests_total", wire=wire, outcome=outcome) == 1
    assert count(port, "refusals_total", reason=reason) == (outcome == "refused")
    assert count(port, "validator_requests_total", uid="others") == 0
    assert (count(port, "validator_requests_total", uid="1") or 0) == (outcome == "refused")
