"""What the operator's port exports."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from miner.metrics import BUCKETS, OUTCOMES, Metrics


def families() -> dict[str, list[object]]:
    text = generate_latest(Metrics().registry).decode()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_zeros_are_exported_before_anything_happened() -> None:
    found = families()
    assert {sample.labels["outcome"] for sample in found["roadwork_miner_requests"]} == set(OUTCOMES)  # type: ignore[attr-defined]
    assert {sample.labels["reason"] for sample in found["roadwork_miner_refusals"]} >= {
        "queue_full",
        "deadline",
        "late",
    }  # type: ignore[attr-defined]
    assert "process_resident_memory_bytes" in found


def test_units_are_seconds_and_bytes_and_nine_seconds_is_an_edge() -> None:
    assert 9 in BUCKETS
    for name in families():
        if name.startswith("roadwork_miner_"):
            assert not name.endswith(("_ms", "_millis", "_mb", "_percent"))


def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.requests.labels("dendrite", "ok").inc()
    assert second.registry.get_sample_value("roadwork_miner_requests_total", {"wire": "dendrite", "outcome": "ok"}) == 0
