"""A daemon whose wall clock is wrong when it starts, and is set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from miner.recorder.records import IMAGES, read_records
from tests.process.conftest import StartDaemon
from tests.process.daemon import eventually
from tests.process.wire import DOORS
from tests.tools import missing

LIBRARY = "faketime/libfaketimeMT.so.1"


@pytest.fixture(scope="session")
def library() -> Path:
    """The library that lies to a process about the wall clock, and not about the monotonic one."""
    found = next(Path("/usr/lib").glob(f"*/{LIBRARY}"), None)
    if found is None:
        missing(LIBRARY, "libfaketime")
    return found


def test_an_hour_ahead_at_the_start_and_set_back(
    start_daemon: StartDaemon, tmp_path: Path, library: Path, street: bytes
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+3600\n", encoding="ascii")
    daemon = start_daemon(LOG_FORMAT="json", **lied_to(library, offset)).ready()
    for door in DOORS:
        assert daemon.ask(street, door).status_code == 401
    assert daemon.status("/readyz") == 503
    assert "clock is 60 min ahead" in daemon.page("/readyz").json()["reason"]
    assert daemon.page("/status").json()["obstacle"] == daemon.page("/readyz").json()["reason"]
    assert daemon.metric("clock_ahead_seconds") == pytest.approx(3600, abs=60)
    findings = {finding["name"]: finding for finding in json.loads(doctor(daemon.environment))["findings"]}
    assert findings["miner"]["level"] == "problem"
    assert "clock is 60 min ahead" in findings["miner"]["words"]

    offset.write_text("+0\n", encoding="ascii")
    daemon.ready()
    for door in DOORS:
        assert daemon.ask(street, door).status_code == 200
    again = daemon.validator.sign(street, DOORS[0])
    assert [daemon.post(again).status_code for _ in range(2)] == [200, 401]
    said = eventually(lambda: [line for line in lines(daemon.log) if line["logger"] == "miner.axon.clock"][1:])
    assert "set back" in said[-1]["message"]
    assert "ahead of" in "".join(line["message"] for line in lines(daemon.log))


def test_years_behind_at_a_start_costs_nothing_that_was_counted_or_recorded(
    start_daemon: StartDaemon, tmp_path: Path, library: Path, street: bytes
) -> None:
    """A board without a battery for its clock: each start is in the past, until NTP sets it."""
    offset = tmp_path / "offset"
    offset.write_text("+0\n", encoding="ascii")
    daemon = start_daemon(RECORDER="images", **lied_to(library, offset)).ready()
    for _ in range(3):
        assert daemon.ask(street).status_code == 200
    assert daemon.stop() == 0
    recorder = daemon.state / "recorder"
    photos = list((recorder / IMAGES).iterdir())

    offset.write_text("-2190d\n", encoding="ascii")
    daemon.start().ready()
    assert daemon.ask(street).status_code == 401
    assert daemon.page("/status").json()["week"]["outcomes"] == {"unauthorised": 1}

    offset.write_text("+0\n", encoding="ascii")
    eventually(lambda: daemon.page("/status").json()["week"]["outcomes"] == {"ok": 3})
    assert daemon.ask(street).status_code == 200
    shown = eventually(lambda: (now := daemon.page("/status").json())["now"] - now["started"] < 86400 and now)
    assert shown["day"]["outcomes"] == {"ok": 4}
    assert daemon.stop() == 0
    assert [one.outcome for one in read_records(recorder)].count("ok") == 4
    assert list((recorder / IMAGES).iterdir()) == photos
    daemon.start().ready()
    assert daemon.page("/status").json()["week"]["outcomes"] == {"ok": 4}


def lied_to(library: Path, offset: Path) -> dict[str, object]:
    """Return the environment of a process whose wall clock is off by what a file says."""
    return {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": offset,
        "FAKETIME_CACHE_DURATION": 1,
        "FAKETIME_FORCE_MONOTONIC_FIX": 0,  # for another C library: with it threads wait for ever here
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }


def lines(log: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.splitlines()]


def doctor(environment: dict[str, str]) -> str:
    """Run the check-up on the same machine, by the right clock."""
    environment = {key: value for key, value in environment.items() if key != "LD_PRELOAD"}
    command = [sys.executable, "-m", "miner", "doctor", "--json"]
    return subprocess.run(command, env=environment, capture_output=True, check=False, text=True).stdout
