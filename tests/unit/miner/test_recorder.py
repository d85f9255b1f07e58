"""The flight recorder's ring on disk, and its thread."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miner.recorder.flight import WAITING, FlightRecorder, make_recorder
from miner.recorder.records import IMAGES, SEGMENTS, Record, image_name, read_records
from miner.recorder.ring import LEAST_FREE, SHARE, Ring
from tests.process.daemon import eventually

RECORD = Record(1000.0, 7, "dendrite", "ok", "", 0.25, {"queue": 0.1, "infer": 0.15}, 9.0, 500, 400, "", 0.75)
MB = 10**6
HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make_ring() -> Iterator[Callable[..., Ring]]:
    """Make rings; one that is not closed is as a process that is killed leaves it."""
    rings: list[Ring] = []

    def make(*arguments: Any, **more: Any) -> Ring:
        rings.append(Ring(*arguments, **more))
        return rings[-1]

    yield make
    for ring in rings:
        ring.close()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_record_comes_back_as_it_was(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    ring = make_ring(tmp_path, MB, HOUR)
    ring.append(RECORD.line())
    ring.append(replace(RECORD, uid=None, prediction=None, outcome="refused").line())
    assert list(read_records(tmp_path)) == [RECORD, replace(RECORD, uid=None, prediction=None, outcome="refused")]


def test_a_torn_line_is_passed_over_and_the_next_process_begins_a_new_segment(
    make_ring: Callable[..., Ring], tmp_path: Path
) -> None:
    make_ring(tmp_path, MB, HOUR).append(RECORD.line())
    (segment,) = tmp_path.glob(SEGMENTS)
    with segment.open("ab") as file:
        file.write(RECORD.line()[:40])  # where the process was killed
    make_ring(tmp_path, MB, HOUR).append(RECORD.line())
    assert list(read_records(tmp_path)) == [RECORD, RECORD]
    assert len(list(tmp_path.glob(SEGMENTS))) == 2


def test_a_segment_that_is_removed_while_one_reads_is_passed_over(
    make_ring: Callable[..., Ring], tmp_path: Path
) -> None:
    for uid in range(3):
        make_ring(tmp_path, MB, HOUR).append(replace(RECORD, uid=uid).line())
    reading = read_records(tmp_path)
    read = [next(reading)]
    sorted(tmp_path.glob(SEGMENTS))[1].unlink()
    assert [one.uid for one in [*read, *reading]] == [0, 2]


def test_the_size_is_bounded_and_the_oldest_goes_first(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    ring = make_ring(tmp_path, 20_000, HOUR)
    for number in range(1000):
        ring.append(replace(RECORD, body_bytes=number).line())
        if number % 50 == 0:
            ring.keep(f"{number}.jpg", bytes(700))
        assert ring.bytes <= 20_000
    assert size_of(tmp_path) == ring.bytes
    kept = [record.body_bytes for record in read_records(tmp_path)]
    assert kept == list(range(kept[0], 1000))
    assert ring.bytes > 20_000 * (1 - 2 / SHARE)


def test_the_age_is_bounded_while_nothing_is_asked(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    clock = Clock()
    ring = make_ring(tmp_path, MB, HOUR, clock)
    ring.append(RECORD.line())
    ring.keep("a.jpg", b"photo")
    clock.now += HOUR / 2
    ring.append(RECORD.line())
    ring.trim()
    assert len(list(read_records(tmp_path))) == 2
    clock.now += HOUR / 2 + 1
    ring.trim()
    assert len(list(read_records(tmp_path))) == 1
    assert not list((tmp_path / IMAGES).iterdir())
    clock.now += HOUR
    ring.trim()
    assert ring.bytes == size_of(tmp_path) == 0


def test_what_an_earlier_process_left_counts_too(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    first = make_ring(tmp_path, 50_000, HOUR)
    first.keep("a.jpg", bytes(20_000))
    first.append(RECORD.line())
    first.close()
    second = make_ring(tmp_path, 50_000, HOUR)
    assert second.bytes == first.bytes == size_of(tmp_path)
    second.keep("a.jpg", bytes(20_000))  # it is there
    assert second.bytes == first.bytes
    third = make_ring(tmp_path, 10_000, HOUR)
    assert third.bytes == size_of(tmp_path) <= 10_000


def test_photos_are_named_by_hash_and_kind_and_only_the_owner_reads_them(
    make_ring: Callable[..., Ring], tmp_path: Path
) -> None:
    ring = make_ring(tmp_path / "recorder", MB, HOUR)
    ring.keep(image_name("abc", b"\x89PNG..."), b"\x89PNG...")
    (photo,) = (tmp_path / "recorder" / IMAGES).iterdir()
    assert photo.name == "abc.png"
    ring.append(RECORD.line())
    (segment,) = (tmp_path / "recorder").glob(SEGMENTS)
    modes = [path.stat().st_mode & 0o777 for path in (photo, segment, tmp_path / "recorder")]
    assert modes == [0o600, 0o600, 0o700]


def test_a_photo_larger_than_half_of_the_ring_is_not_kept(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    ring = make_ring(tmp_path, 1000, HOUR)
    ring.append(RECORD.line())
    ring.keep("a.jpg", bytes(501))
    assert len(list(read_records(tmp_path))) == 1


def test_a_full_disk_costs_records_and_nothing_else(
    make_ring: Callable[..., Ring], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, free = Clock(), [LEAST_FREE]
    caplog.set_level("INFO")
    flight = FlightRecorder(make_ring(tmp_path, MB, HOUR, free=lambda _: free[0]), images=True, monotonic=clock)
    flight.start()
    for number in range(3):
        flight.take(RECORD, b"photo")
        eventually(lambda number=number: flight.counts.disk == number + 1)
    assert caplog.text.count("can't write") == 1  # said once
    free[0] = 2 * LEAST_FREE
    clock.now += 11
    flight.take(RECORD, b"photo")
    eventually(lambda: flight.counts.written == 1)
    flight.close()
    assert "writes again" in caplog.text
    (record,) = read_records(tmp_path)
    assert record.image_bytes == 5
    assert (tmp_path / IMAGES / f"{record.image}.bin").read_bytes() == b"photo"


def test_a_slow_disk_is_not_waited_for(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    holding, begun = threading.Event(), threading.Event()

    def free(_: Path) -> int:
        begun.set()
        holding.wait()
        return 2 * LEAST_FREE

    flight = FlightRecorder(make_ring(tmp_path, MB, HOUR, free=free), images=False)
    flight.start()
    flight.take(RECORD, None)
    begun.wait()
    for _ in range(WAITING + 10):
        flight.take(RECORD, None)
    assert flight.counts.behind == 10
    holding.set()
    flight.close()
    assert flight.counts.written == len(list(read_records(tmp_path))) == WAITING + 1


def test_without_images_only_their_hash_is_kept(make_ring: Callable[..., Ring], tmp_path: Path) -> None:
    flight = FlightRecorder(make_ring(tmp_path, MB, HOUR), images=False)
    flight.start()
    flight.take(RECORD, b"\xff\xd8\xffphoto")
    flight.close()
    (record,) = read_records(tmp_path)
    assert (len(record.image), record.image_bytes) == (64, 8)
    assert not list((tmp_path / IMAGES).iterdir())


def test_a_recorder_without_a_place_to_write_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert make_recorder("off", tmp_path, MB, HOUR) is None
    (tmp_path / "file").write_text("")
    assert make_recorder("meta", tmp_path / "file" / "recorder", MB, HOUR) is None
    assert "RECORDER=meta" in caplog.text
