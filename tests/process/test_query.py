"""`roadwork-miner query`: a validator in one command."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import photo
from tests.process.daemon import PATIENCE, Daemon, clean_environment, free_port
from tests.process.inspection import probability_of

both_wires = pytest.mark.parametrize("wire", ["dendrite", "btauth"])


@pytest.fixture
def image(tmp_path: Path, street: bytes) -> Path:
    path = tmp_path / "street.jpg"
    path.write_bytes(street)
    return path


def query(daemon: Daemon, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    values = {"STATE_DIR": daemon.state, "MINER_AXON_PORT": daemon.port} | settings
    return subprocess.run(
        [sys.executable, "-m", "miner", "query", *map(str, arguments)], capture_output=True, text=True,
        timeout=PATIENCE, env=clean_environment(**{key: str(value) for key, value in values.items()}),
    )  # fmt: skip


def answered(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout


def refused(run: subprocess.CompletedProcess[str], code: int) -> str:
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run.stdout + run.stderr


@both_wires
def test_a_photo_gets_its_probability_and_the_time(miner: Daemon, image: Path, street: bytes, wire: str) -> None:
    line = answered(query(miner, image, "--wire", wire)).strip()
    assert line.startswith(f"{image}: roadwork {probability_of(miner.ask(street)):.4f} (")
    assert line.endswith(" ms)")


@both_wires
def test_json_has_each_reply_and_a_summary(miner: Daemon, image: Path, street: bytes, wire: str) -> None:
    result = json.loads(answered(query(miner, image, "--json", "--wire", wire)))
    (reply,) = result["replies"]
    assert reply["image"] == str(image)
    assert reply["status"] == 200
    assert reply["prediction"] == pytest.approx(probability_of(miner.ask(street)), abs=1e-6)
    assert reply["seconds"] > 0
    assert result["summary"]["by_status"] == {"200": 1}


@both_wires
def test_many_at_once_are_summed_up(miner: Daemon, image: Path, wire: str) -> None:
    run = query(miner, image, "--count", 30, "--concurrency", 5, "--wire", wire)
    (line,) = answered(run).splitlines()
    assert line.startswith("30 of 30 answered in ")
    assert "(30 × 200)" in line
    assert "p95" in line


def test_the_summary_in_json_adds_up(miner: Daemon, image: Path) -> None:
    result = json.loads(answered(query(miner, image, "--count", 12, "--concurrency", 4, "--json")))
    summary = result["summary"]
    assert (summary["count"], summary["answered"], len(result["replies"])) == (12, 12, 12)
    assert 0 < summary["p50"] <= summary["p95"] <= summary["p99"] <= summary["max"]


def test_several_photos_are_sent_in_turn(miner: Daemon, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jpg"
    other.write_bytes(photo(224, 224, seed=4))
    lines = answered(query(miner, image, other)).splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == [str(image), str(other)]
    assert lines[2].startswith("2 of 2 answered")


def test_a_file_that_is_not_there_is_named(miner: Daemon, tmp_path: Path) -> None:
    said = refused(query(miner, tmp_path / "nothing.jpg"), 2)
    assert said.splitlines()[-1].startswith("error: ")
    assert "nothing.jpg" in said


def test_a_picture_that_is_none_gets_the_miners_reason(miner: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("roadwork")
    assert "no prediction (422: the image is not" in refused(query(miner, path), 1)


@both_wires
def test_a_miner_that_does_not_run_is_said_so(miner: Daemon, image: Path, wire: str) -> None:
    port = free_port()
    said = refused(query(miner, image, "--port", port, "--wire", wire), 1)
    assert f" http://127.0.0.1:{port}: " in said


def test_an_answer_that_takes_too_long_is_not_waited_for(moody: Daemon, image: Path, street: bytes) -> None:
    moody.signal(signal.SIGSTOP)
    try:
        said = refused(query(moody, image, "--timeout", 1.5), 1)
    finally:
        moody.signal(signal.SIGCONT)
    assert f"no answer from {moody.address} within 1.5 s" in said


def test_another_wire_is_not_known(miner: Daemon, image: Path) -> None:
    refused(query(miner, image, "--wire", "pigeon"), 2)


def test_a_request_for_another_miner_is_refused(miner: Daemon, image: Path) -> None:
    said = refused(query(miner, image, "--receiver", miner.validator.hotkey), 1)
    assert "no prediction (401: " in said
