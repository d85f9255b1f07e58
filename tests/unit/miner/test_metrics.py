"""What the operator's port exports."""

import math

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from detectors.machine import Memory, Throttling
from detectors.models.manifest import BranchModel, Manifest, Output, Parity, Source
from miner.metrics import BUCKETS, PROBABILITY_BUCKETS, REMAINING_BUCKETS, STAGES, Metrics, graph_hash
from miner.recorder.records import OUTCOMES, RequestRecord


def families(metrics: Metrics | None = None) -> dict[str, list[dict[str, str]]]:
    """Return the labels of each sample, by family."""
    text = generate_latest((metrics or Metrics()).registry).decode()
    return {
        family.name: [sample.labels for sample in family.samples] for family in text_string_to_metric_families(text)
    }


def test_zeros_are_exported_before_anything_happened() -> None:
    found = families()
    assert len(found["roadwork_miner_requests"]) == 2 * (len(OUTCOMES) - 1) + 1
    assert {labels["reason"] for labels in found["roadwork_miner_refusals"]} >= {"queue_full", "deadline", "late"}
    assert {labels["stage"] for labels in found["roadwork_miner_stage_duration_seconds"]} == set(STAGES)
    assert found["roadwork_miner_invalid_outputs"] == [{}]
    assert "process_resident_memory_bytes" in found


def test_units_are_seconds_and_bytes_and_nine_seconds_is_an_edge() -> None:
    assert 9 in BUCKETS
    assert REMAINING_BUCKETS[0] == 0  # the late answers
    assert PROBABILITY_BUCKETS[4] == 0.5  # the side that validators round to
    for name in families():
        if name.startswith("roadwork_miner_"):
            assert not name.endswith(("_ms", "_millis", "_mb", "_percent"))


def test_no_label_is_open_to_strangers() -> None:
    """Labels from outside would let anyone fill the memory of miner and Prometheus."""
    closed = {"wire", "outcome", "reason", "stage", "le", "kind", "result", "side", "uid", "version", "python"}
    of_the_operator = {"hotkey", "network", "netuid", "detector", "name", "revision", "backend", "precision", "threads"}
    metrics = Metrics()
    metrics.identity.labels("5F…", "test", "323").set(1)
    for name, samples in families(metrics).items():
        if name.startswith("roadwork_miner_"):
            for labels in samples:
                assert set(labels) <= closed | of_the_operator | {"hash"}


def test_memory_and_throttling_are_read_at_the_scrape() -> None:
    seconds = iter([0.5, 1.5])
    metrics = Metrics(memory=Memory, throttling=lambda: Throttling(10, 1, next(seconds)))
    for expected in (0.5, 1.5):
        assert metrics.registry.get_sample_value("roadwork_miner_cpu_throttled_seconds_total") == expected


def test_no_limit_is_infinite() -> None:
    metrics = Metrics(memory=lambda: Memory(resident=7), throttling=Throttling)
    value = metrics.registry.get_sample_value
    assert value("roadwork_miner_memory_bytes", {"kind": "resident"}) == 7
    assert value("roadwork_miner_memory_bytes", {"kind": "cgroup_limit"}) == math.inf


def test_two_daemons_in_one_process_do_not_share_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.requests.labels("dendrite", "ok").inc()
    assert second.registry.get_sample_value("roadwork_miner_requests_total", {"wire": "dendrite", "outcome": "ok"}) == 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.onnx": "a" * 64, "config.json": "b" * 64}, "a" * 12),
        ({"b.onnx": "b" * 64, "a.onnx": "a" * 64}, "a" * 12 + "+" + "b" * 12),
        ({"model.bin": "c" * 64}, "c" * 12),
    ],
)
def test_the_hash_is_what_sha256sum_shows_of_the_graphs(files: dict[str, str], expected: str) -> None:
    assert graph_hash(manifest_of(files)) == expected


def test_an_ensemble_without_files_has_its_branches_hashes() -> None:
    branches = {name: BranchModel(detector="ViT", name=name, revision="r", sums=name * 64) for name in "ab"}
    manifest = manifest_of({}).model_copy(update={"branches": branches})
    assert graph_hash(manifest) == "a" * 12 + "+" + "b" * 12


def manifest_of(files: dict[str, str]) -> Manifest:
    return Manifest(
        name="m",
        revision="r",
        detector="ViT",
        source=Source(origin="o", revision="r"),
        output=Output(index=1, labels=["no", "yes"], activation="softmax"),
        files=files,
        known_answer=0.5,
        parity=Parity(reference="none", pictures=0, max_difference=0, mean_difference=0),
        made_with={},
    )


def test_start_and_last_request_move_with_a_clock_that_is_set() -> None:
    metrics, years = Metrics(), 6 * 365 * 86400.0

    def exported(name: str) -> float:
        value = metrics.registry.get_sample_value(f"roadwork_miner_{name}_seconds")
        assert value is not None
        return value

    before = metrics.started
    metrics.clock_was_set(years)
    assert (exported("start_time"), exported("last_request_timestamp")) == (before + years, 0)
    metrics.request_ended(RequestRecord(before, 3, "dendrite", "ok", "", 0.1, caller="a validator"))
    asked = exported("last_request_timestamp")
    metrics.clock_was_set(-years)
    assert exported("start_time") == metrics.started == pytest.approx(before)
    assert exported("last_request_timestamp") == pytest.approx(asked - years)
    assert asked > 0
