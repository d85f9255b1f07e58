"""The history over restarts: the same before and after, and a damaged or foreign file begins it anew."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from miner.recorder.records import RequestRecord
from miner.settings.settings import Settings
from miner.status.archive import (
    DAMAGED,
    FORMAT,
    LARGEST_BYTES,
    Archive,
    CheckupView,
    FindingView,
    checkup_file,
    history_file,
    lines_of,
)
from miner.status.history import History
from miner.status.spans import Hour, LongSpan

NOW = 1_000_000 * 7200.0

HISTORY, CHECKUP = "history.jsonl", "doctor.json"


def history(at: float = NOW) -> History:
    return History(lambda: at)


def entry(at: float, outcome: str = "ok", uid: int = 3, seconds: float = 0.25) -> RequestRecord:
    return RequestRecord(
        at, uid, "dendrite", outcome, "", seconds, prediction=0.7 if outcome == "ok" else None, caller="validator",
        hotkey="ours", is_permitted=True,
    )  # fmt: skip


def filled() -> History:
    """Return five days of requests."""
    at = NOW
    whole = History(lambda: at)
    for hours in range(120, -1, -1):
        at = NOW - hours * 3600
        for uid in range(3):
            whole.request_ended(entry(at, uid=uid, seconds=0.01 * (1 + hours)))
        whole.request_ended(entry(at, "refused"))
    return whole


def views(shown: History) -> list[str]:
    spans = [Hour.of(shown), LongSpan.of(shown, "day"), LongSpan.of(shown, "week")]
    return [span.model_dump_json() for span in spans]


def save(folder: Path, shown: History) -> Archive:
    archive = Archive(shown, folder / HISTORY, lambda: NOW)
    asyncio.run(archive.save())
    return archive


def load(folder: Path, at: float = NOW) -> History:
    found = history(at)
    Archive(found, folder / HISTORY, lambda: at).load()
    return found


def test_what_is_kept_is_what_was_there(tmp_path: Path) -> None:
    whole = filled()
    save(tmp_path, whole)
    assert views(load(tmp_path)) == views(whole)
    assert b"validator" not in (tmp_path / HISTORY).read_bytes()  # no caller's hotkey
    assert [path.name for path in tmp_path.iterdir()] == [HISTORY]


def test_counting_goes_on_where_it_was(tmp_path: Path) -> None:
    save(tmp_path, filled())
    whole = load(tmp_path)
    before = LongSpan.of(whole, "week").asked
    whole.request_ended(entry(NOW))
    assert LongSpan.of(whole, "week").asked == before + 1
    assert len(whole.rings["week"].periods) == len(filled().rings["week"].periods)


def test_what_is_too_old_or_to_come_is_not_shown(tmp_path: Path) -> None:
    save(tmp_path, filled())
    later = load(tmp_path, NOW + 6 * 86400)
    assert (Hour.of(later).asked, LongSpan.of(later, "day").asked) == (0, 0)
    assert 0 < LongSpan.of(later, "week").asked < LongSpan.of(filled(), "week").asked
    back = NOW - 4 * 86400  # the clock was ahead, or is set back
    earlier = load(tmp_path, back)
    earlier.request_ended(entry(back, "expired"))
    assert Hour.of(earlier).outcomes["expired"] == 1
    assert Hour.of(earlier).asked < 10


@pytest.mark.parametrize("wrong", [-6 * 365 * 86400.0, -3600.0, 3600.0, 4 * 365 * 86400.0])
def test_a_start_by_a_wrong_clock_costs_nothing_that_is_kept(tmp_path: Path, wrong: float) -> None:
    whole = filled()
    save(tmp_path, whole)
    at = NOW + wrong
    running = History(lambda: at)
    archive = Archive(running, tmp_path / HISTORY, lambda: at)
    archive.load()
    running.request_ended(entry(at, "unauthorised"))
    asyncio.run(archive.save())
    week = LongSpan.of(whole, "week").outcomes
    for shown in (load(tmp_path), running):  # after a restart by the right clock, or set right
        at = NOW
        found = LongSpan.of(shown, "week").outcomes
        assert (found["ok"], found["refused"]) == (week["ok"], week["refused"])


def _lines(change: dict[str, object]) -> bytes:
    line = {
        "ring": "hour",
        "number": int(NOW // 60),
        "outcomes": {"ok": 1},
        "bins": [[300, 1]],
        "longest": 0.1,
        "last": 0.0,
    }
    return json.dumps({"format": FORMAT, "lines": 1}).encode() + b"\n" + json.dumps(line | change).encode() + b"\n"


DAMAGES = {
    "empty": b"",
    "torn": _lines({})[:-20],
    "no line": json.dumps({"format": FORMAT, "lines": 7}).encode(),
    "rubbish": b"\xff\xfe\x00 rubbish",
    "newer": json.dumps({"format": FORMAT + 1, "lines": 0}).encode(),
    "outcome": _lines({"outcomes": {"<b>": 1}}),
    "bin": _lines({"bins": [[100_000, 1]]}),
    "negative": _lines({"outcomes": {"ok": -1}}),
    "huge": _lines({"number": 10**30}),
    "nan": _lines({"longest": float("nan")}),
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_and_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    path = tmp_path / HISTORY
    path.write_bytes(DAMAGES[damage])
    whole = load(tmp_path)
    (record,) = caplog.records
    assert (record.levelno, str(path) in record.getMessage()) == (logging.WARNING, True)
    assert len(record.getMessage()) < 400
    assert views(whole) == views(history())
    whole.request_ended(entry(NOW))
    save(tmp_path, whole)
    assert views(load(tmp_path)) == views(whole)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {
        HISTORY: path.read_bytes(),
        HISTORY + DAMAGED: DAMAGES[damage],
    }


def test_of_damaged_files_the_last_is_kept(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        (tmp_path / HISTORY).write_bytes(content)
        load(tmp_path)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [(HISTORY + DAMAGED, b"second")]


def test_a_damaged_file_that_can_not_be_put_aside_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / HISTORY).write_bytes(b"rubbish")
    (tmp_path / (HISTORY + DAMAGED)).mkdir()
    assert views(load(tmp_path)) == views(history())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_line_that_is_well_is_read(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_bytes(_lines({}))
    assert Hour.of(load(tmp_path)).outcomes == {"ok": 1}


def test_a_file_without_end_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / HISTORY).open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    assert views(load(tmp_path)) == views(history())
    assert len(caplog.records) == 1


def test_others_have_their_turn_after_each_period_that_is_written_down(tmp_path: Path) -> None:
    whole = filled()

    async def turns() -> int:
        saving, count = Archive(whole, tmp_path / HISTORY, lambda: NOW).save(), 0
        while saving.send(None) is None:  # then it waits for the disk
            count += 1
        saving.close()
        return count

    assert asyncio.run(turns()) == len(list(lines_of(whole)))


def test_a_look_before_the_start_is_no_obstacle_to_what_is_kept(tmp_path: Path) -> None:
    save(tmp_path, filled())
    early = history()
    views(early)
    Archive(early, tmp_path / HISTORY, lambda: NOW).load()
    assert views(early) == views(filled())


def test_nothing_new_is_not_written_again(tmp_path: Path) -> None:
    archive = save(tmp_path, filled())
    before = (tmp_path / HISTORY).stat().st_ino
    asyncio.run(archive.save())
    assert (tmp_path / HISTORY).stat().st_ino == before
    archive.history.request_ended(entry(NOW))
    asyncio.run(archive.save())
    assert (tmp_path / HISTORY).stat().st_ino != before


def test_a_disk_that_takes_nothing_is_told_once_and_written_to_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, blocked = filled(), tmp_path / f"{HISTORY}.partial"
    blocked.mkdir()
    archive = save(tmp_path, whole)
    whole.request_ended(entry(NOW))
    asyncio.run(archive.save())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    blocked.rmdir()
    caplog.set_level(logging.INFO)
    asyncio.run(archive.save())
    assert caplog.records[-1].levelno == logging.INFO
    assert views(load(tmp_path)) == views(whole)


def test_doctors_findings_are_kept_and_rubbish_is_none(tmp_path: Path) -> None:
    view = CheckupView(
        at=NOW, key="default", verdict="ready", findings=[FindingView(name="cpu", level="ok", words="4")]
    )
    assert CheckupView.read(tmp_path / CHECKUP) is None
    view.write(tmp_path / CHECKUP)
    assert CheckupView.read(tmp_path / CHECKUP) == view
    (tmp_path / CHECKUP).write_text("{")
    assert CheckupView.read(tmp_path / CHECKUP) is None


def test_a_trial_without_a_chain_leaves_nothing_to_a_subnet(tmp_path: Path) -> None:
    subnets = [("standalone", 323), ("finney", 72), ("test", 323)]
    settings = [
        Settings(state_dir=tmp_path, subtensor_network=network, netuid=netuid)  # type: ignore[call-arg]
        for network, netuid in subnets
    ]
    for file in (history_file, checkup_file):
        assert len({file(one) for one in settings}) == len(subnets)
