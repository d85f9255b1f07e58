"""The flight recorder's ring on disk, and its thread."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miner.recorder.recorder import LEAST_FREE, MAX_WAITING, SEGMENT_COUNT, FlightRecorder, SegmentRing, make_recorder
from miner.recorder.records import IMAGES, SEGMENTS, RequestRecord, image_name, read_records, read_shadow_records
from tests.process.daemon import eventually

NOW = round(time.time(), 3)
RECORD = RequestRecord(NOW, 7, "dendrite", "ok", "", 0.25, {"queue": 0.1, "infer": 0.15}, 9.0, 500, 400, "", 0.75, "5F")
MB = 10**6
HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make_ring() -> Iterator[Callable[..., SegmentRing]]:
    """Make rings; one that is not closed is as a process that is killed leaves it."""
    rings: list[SegmentRing] = []

    def make(*arguments: Any, **more: Any) -> SegmentRing:
        rings.append(SegmentRing(*arguments, **{"steady_seconds": 0.0} | more))
        return rings[-1]

    yield make
    for ring in rings:
        ring.close()


def write(ring: SegmentRing, record: RequestRecord, at: float = NOW) -> None:
    ring.append(replace(record, at=at).line(), at)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_record_comes_back_as_it_was(make_ring: Callable[..., SegmentRing], tmp_path: Path) -> None:
    ring = make_ring(tmp_path, MB, HOUR)
    write(ring, RECORD)
    write(ring, replace(RECORD, uid=None, prediction=None, outcome="refused"))
    assert list(read_records(tmp_path)) == [RECORD, replace(RECORD, uid=None, prediction=None, outcome="refused")]


def test_what_branches_and_the_shadow_say_is_kept_beside_the_requests(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    ring = make_ring(tmp_path, MB, HOUR, lambda: NOW + 1)
    recorder = FlightRecorder(ring, images=True)
    recorder.start()
    told = replace(RECORD, opinions={"small": 0.25, "large": 0.875})
    recorder.request_ended(told, b"a photo")
    recorder.take_shadow(b"a photo", 0.4)
    recorder.close()
    (kept,) = read_records(tmp_path)
    (shadow,) = read_shadow_records(tmp_path)
    assert kept.opinions == told.opinions
    assert (shadow.image, shadow.shadow, shadow.at) == (kept.image, 0.4, NOW + 1)
    assert recorder.counts.written == 2
    assert b"opinions" not in RECORD.line()  # where there is one model, lines are as they were


def test_a_torn_line_is_passed_over_and_the_next_process_begins_a_new_segment(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    write(make_ring(tmp_path, MB, HOUR), RECORD)
    (segment,) = tmp_path.glob(SEGMENTS)
    with segment.open("ab") as file:
        file.write(RECORD.line()[:40])  # where the process was killed
    write(make_ring(tmp_path, MB, HOUR), RECORD)
    assert list(read_records(tmp_path)) == [RECORD, RECORD]
    assert len(list(tmp_path.glob(SEGMENTS))) == 2


def test_a_segment_that_is_removed_while_one_reads_is_passed_over(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    for uid in range(3):
        write(make_ring(tmp_path, MB, HOUR), replace(RECORD, uid=uid))
    reading = read_records(tmp_path)
    read = [next(reading)]
    sorted(tmp_path.glob(SEGMENTS))[1].unlink()
    assert [one.uid for one in [*read, *reading]] == [0, 2]


def test_the_size_is_bounded_and_the_oldest_goes_first(make_ring: Callable[..., SegmentRing], tmp_path: Path) -> None:
    ring = make_ring(tmp_path, 20_000, HOUR)
    for number in range(1000):
        write(ring, replace(RECORD, body_bytes=number))
        if number % 50 == 0:
            ring.keep(f"{number}.jpg", bytes(700), NOW)
        assert ring.bytes <= 20_000
    assert size_of(tmp_path) == ring.bytes
    kept = [record.body_bytes for record in read_records(tmp_path)]
    assert kept == list(range(kept[0], 1000))
    assert ring.bytes > 20_000 * (1 - 2 / SEGMENT_COUNT)


def test_the_age_is_bounded_while_nothing_is_asked(make_ring: Callable[..., SegmentRing], tmp_path: Path) -> None:
    clock = Clock()
    ring = make_ring(tmp_path, MB, HOUR, clock)
    write(ring, RECORD)
    ring.keep("a.jpg", b"photo", NOW)
    clock.now += HOUR / 2
    write(ring, RECORD, clock.now)
    ring.trim()
    assert len(list(read_records(tmp_path))) == 2
    clock.now += HOUR / 2 + 1
    ring.trim()
    assert len(list(read_records(tmp_path))) == 1
    assert not list((tmp_path / IMAGES).iterdir())
    clock.now += HOUR
    ring.trim()
    assert ring.bytes == size_of(tmp_path) == 0


def test_after_a_restart_a_segment_is_as_old_as_its_first_record(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    """Neither the last line, nor a copy of the file, nor a clock that was ahead makes it younger."""
    clock = Clock()
    for uid, at in enumerate((NOW - 0.9 * HOUR, NOW - 0.5 * HOUR, NOW + 100 * HOUR)):
        write(make_ring(tmp_path, MB, HOUR, clock), replace(RECORD, uid=uid), at)
    newest = sorted(tmp_path.glob(SEGMENTS))[0]
    with newest.open("ab") as file:
        file.write(RECORD.line())
    (tmp_path / "requests-0.jsonl").write_bytes(b'torn\n{"at": "soon"}\n')
    ring = make_ring(tmp_path, MB, HOUR, clock)
    assert [one.uid for one in read_records(tmp_path)] == [0, 7, 1, 2]
    clock.now += 0.2 * HOUR
    ring.trim()
    assert [one.uid for one in read_records(tmp_path)] == [1, 2]
    clock.now += 0.4 * HOUR
    ring.trim()
    assert [one.uid for one in read_records(tmp_path)] == [2]
    clock.now += 0.5 * HOUR
    ring.trim()
    assert not list(tmp_path.glob(SEGMENTS))
    assert ring.bytes == size_of(tmp_path) == 0


@pytest.mark.parametrize("wrong", [-6 * 365 * 24 * HOUR, -2 * HOUR, 2 * HOUR, 4 * 365 * 24 * HOUR])
def test_a_start_by_a_wrong_clock_deletes_nothing_that_is_kept(
    make_ring: Callable[..., SegmentRing], tmp_path: Path, wrong: float
) -> None:
    clock, machine = Clock(), Clock()  # what is shown, and what passes
    before = make_ring(tmp_path, MB, 24 * HOUR, clock)
    write(before, RECORD)
    before.keep("a.jpg", b"photo", NOW)
    before.close()
    clock.now += wrong
    ring = make_ring(tmp_path, MB, 24 * HOUR, clock, monotonic=machine, steady_seconds=HOUR)
    write(ring, replace(RECORD, uid=1), clock.now)
    for seconds in (60.0, 60.0):
        clock.now, machine.now = clock.now + seconds, machine.now + seconds
        ring.trim()
    clock.now -= wrong  # NTP
    ring.trim()
    ring.close()
    assert {one.uid for one in read_records(tmp_path)} == {RECORD.uid, 1}
    assert [one.name for one in (tmp_path / IMAGES).iterdir()] == ["a.jpg"]

    for hours in range(26):  # and then all of it goes, whatever times it bears
        clock.now, machine.now = clock.now + HOUR, machine.now + HOUR
        ring.trim()
        assert hours > 22 or RECORD.uid in {one.uid for one in read_records(tmp_path)}
    assert ring.bytes == size_of(tmp_path) == 0


def test_the_size_is_bounded_while_the_clock_is_not_trusted(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    clock = Clock()
    ring = make_ring(tmp_path, 20_000, 24 * HOUR, clock, monotonic=lambda: 0.0, steady_seconds=HOUR)
    for number in range(500):
        clock.now += (-1) ** number * 1e6
        write(ring, replace(RECORD, body_bytes=number), clock.now)
        assert ring.bytes <= 20_000


def test_a_photo_that_is_asked_about_again_is_kept_for_as_long_as_its_last_request(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    clock = Clock()
    ring = make_ring(tmp_path, MB, HOUR, clock)
    for name in ("again.jpg", "once.jpg"):
        ring.keep(name, b"photo", NOW)
    clock.now += 0.9 * HOUR
    ring.keep("again.jpg", b"photo", clock.now)
    again = tmp_path / IMAGES / "again.jpg"
    clock.now += 0.2 * HOUR
    ring.trim()
    assert list((tmp_path / IMAGES).iterdir()) == [again]
    assert ring.bytes == len(b"photo")
    again.unlink()  # by hand
    ring.keep("again.jpg", b"photo", NOW + HOUR)
    assert again.read_bytes() == b"photo"
    clock.now = NOW + 1.9 * HOUR
    later = make_ring(tmp_path, MB, HOUR, clock)
    assert again.exists()
    clock.now += 0.2 * HOUR
    later.trim()
    assert later.bytes == size_of(tmp_path) == 0


def test_when_room_is_short_a_record_goes_before_its_photo(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    clock = Clock()
    ring = make_ring(tmp_path, 20_000, HOUR, clock)
    asked: dict[int, str] = {}
    for number in range(200):
        clock.now += 1
        asked[number] = f"{number % 7 if number % 2 else number}.jpg"
        ring.keep(asked[number], bytes(700), clock.now)
        write(ring, replace(RECORD, body_bytes=number), clock.now)
    kept = [record.body_bytes for record in read_records(tmp_path)]
    assert 5 < len(kept) < 30
    assert {asked[number] for number in kept} <= {path.name for path in (tmp_path / IMAGES).iterdir()}


def test_what_a_killed_process_had_half_written_is_removed(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    make_ring(tmp_path, MB, HOUR)
    (tmp_path / IMAGES / "a.partial").write_bytes(b"half")
    assert make_ring(tmp_path, MB, HOUR).bytes == size_of(tmp_path) == 0


def test_what_an_earlier_process_left_counts_too(make_ring: Callable[..., SegmentRing], tmp_path: Path) -> None:
    first = make_ring(tmp_path, 50_000, HOUR)
    first.keep("a.jpg", bytes(20_000), NOW)
    write(first, RECORD)
    first.close()
    second = make_ring(tmp_path, 50_000, HOUR)
    assert second.bytes == first.bytes == size_of(tmp_path)
    second.keep("a.jpg", bytes(20_000), NOW)  # it is there
    assert second.bytes == first.bytes
    third = make_ring(tmp_path, 10_000, HOUR)
    assert third.bytes == size_of(tmp_path) <= 10_000


def test_photos_are_named_by_hash_and_kind_and_only_the_owner_reads_them(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    ring = make_ring(tmp_path / "recorder", MB, HOUR)
    ring.keep(image_name("abc", b"\x89PNG..."), b"\x89PNG...", NOW)
    (photo,) = (tmp_path / "recorder" / IMAGES).iterdir()
    assert photo.name == "abc.png"
    write(ring, RECORD)
    (segment,) = (tmp_path / "recorder").glob(SEGMENTS)
    modes = [path.stat().st_mode & 0o777 for path in (photo, segment, tmp_path / "recorder")]
    assert modes == [0o600, 0o600, 0o700]


def test_a_photo_larger_than_half_of_the_ring_is_not_kept(
    make_ring: Callable[..., SegmentRing], tmp_path: Path
) -> None:
    ring = make_ring(tmp_path, 1000, HOUR)
    write(ring, RECORD)
    ring.keep("a.jpg", bytes(501), NOW)
    assert len(list(read_records(tmp_path))) == 1


def test_a_full_disk_costs_records_and_nothing_else(
    make_ring: Callable[..., SegmentRing], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, free = Clock(), [LEAST_FREE]
    caplog.set_level("INFO")
    flight = FlightRecorder(make_ring(tmp_path, MB, HOUR, free=lambda _: free[0]), images=True, monotonic=clock)
    flight.start()
    for number in range(3):
        flight.request_ended(RECORD, b"photo")
        eventually(lambda number=number: flight.counts.disk == number + 1)
    assert caplog.text.count("can't write") == 1  # said once
    free[0] = 2 * LEAST_FREE
    clock.now += 11
    flight.request_ended(RECORD, b"photo")
    eventually(lambda: flight.counts.written == 1)
    flight.close()
    assert "writes again" in caplog.text
    (record,) = read_records(tmp_path)
    assert record.image_bytes == 5
    assert (tmp_path / IMAGES / f"{record.image}.bin").read_bytes() == b"photo"


def test_a_slow_disk_is_not_waited_for(make_ring: Callable[..., SegmentRing], tmp_path: Path) -> None:
    holding, begun = threading.Event(), threading.Event()

    def free(_: Path) -> int:
        begun.set()
        holding.wait()
        return 2 * LEAST_FREE

    flight = FlightRecorder(make_ring(tmp_path, MB, HOUR, free=free), images=False)
    flight.start()
    flight.request_ended(RECORD, None)
    begun.wait()
    for _ in range(MAX_WAITING + 10):
        flight.request_ended(RECORD, None)
    assert flight.counts.behind == 10
    holding.set()
    flight.close()
    assert flight.counts.written == len(list(read_records(tmp_path))) == MAX_WAITING + 1


def test_without_images_only_their_hash_is_kept(make_ring: Callable[..., SegmentRing], tmp_path: Path) -> None:
    flight = FlightRecorder(make_ring(tmp_path, MB, HOUR), images=False)
    flight.start()
    flight.request_ended(RECORD, b"\xff\xd8\xffphoto")
    flight.close()
    (record,) = read_records(tmp_path)
    assert (len(record.image), record.image_bytes) == (64, 8)
    assert not list((tmp_path / IMAGES).iterdir())


def test_a_recorder_without_a_place_to_write_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert make_recorder("off", tmp_path, MB, HOUR) is None
    (tmp_path / "file").write_text("")
    assert make_recorder("meta", tmp_path / "file" / "recorder", MB, HOUR) is None
    assert "RECORDER=meta" in caplog.text
