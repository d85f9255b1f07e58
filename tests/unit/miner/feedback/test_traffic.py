"""The recorded traffic: each photo once, with the last answer and what others say of it."""

from hashlib import sha256
from pathlib import Path

import pytest

from miner.feedback.traffic import SHADOW, RecordedPhoto, read_traffic
from miner.recorder.recorder import FlightRecorder, SegmentRing
from miner.recorder.records import RequestRecord
from tests.models import photo


def record(at: float, prediction: float | None, **opinions: float) -> RequestRecord:
    return RequestRecord(at, 7, "btauth", "ok", "", 0.1, prediction=prediction, opinions=opinions)


def test_each_photo_comes_once_with_its_last_answer_and_the_latest_photo_first(tmp_path: Path) -> None:
    one, other, unanswered = (photo(64, 48, seed=seed) for seed in range(3))
    recorder = FlightRecorder(SegmentRing(tmp_path, 10**7, 3600.0, steady_seconds=60.0), images=True)
    recorder.start()
    now = recorder.ring.clock()
    recorder.request_ended(record(now - 9, 0.2, small=0.1, large=0.7), one)
    recorder.request_ended(record(now - 6, 0.6, small=0.6, large=0.7), one)
    recorder.take_shadow(one, 0.9)
    recorder.request_ended(record(now - 8, 0.4), other)
    recorder.request_ended(record(now - 7, None), unanswered)
    recorder.close()
    traffic = read_traffic(tmp_path)
    assert list(traffic) == [sha256(data).hexdigest() for data in (one, other, unanswered)]
    first, second, third = traffic.values()
    assert first.path.read_bytes() == one
    assert (first.prediction, first.opinions) == (0.6, {"small": 0.6, "large": 0.7, SHADOW: 0.9})
    assert (second.prediction, second.opinions) == (0.4, {})
    assert third.prediction is None


def test_nothing_recorded_is_no_traffic(tmp_path: Path) -> None:
    assert read_traffic(tmp_path / "nowhere") == {}


def test_photos_whose_records_are_gone_are_traffic_still(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{'0' * 64}.jpg").write_bytes(photo(64, 48))
    (found,) = read_traffic(tmp_path).values()
    assert (found.prediction, found.at) == (None, 0.0)


@pytest.mark.parametrize(
    ("prediction", "opinions", "disputed"),
    [
        (0.4, {}, False),
        (0.4, {"small": 0.1, "large": 0.3}, False),
        (0.4, {"small": 0.1, "large": 0.9}, True),
        (0.4, {SHADOW: 0.6}, True),
        (None, {"small": 0.1, "large": 0.9}, True),
    ],
)
def test_a_photo_is_disputed_where_models_stand_on_both_sides(
    prediction: float | None, opinions: dict[str, float], disputed: bool
) -> None:
    assert RecordedPhoto("", Path(), 0.0, prediction, opinions).is_disputed == disputed
