"""What a daemon writes down under hostile traffic, at its most talkative."""

import base64
import json
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from miner.logs import QUEUED_LINES
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import signature_of
from tests.process.wire import DOORS, Door


@pytest.fixture
def talkative(start_daemon: StartDaemon) -> Daemon:
    return start_daemon(LOG_LEVEL="DEBUG", LOG_FORMAT="json").ready()


def secrets_of(daemon: Daemon) -> list[str]:
    """Return the private halves of all keys there are."""
    files = [path for path in (daemon.state / "wallets").rglob("hotkeys/*") if path.suffix != ".txt"]
    assert files
    keys = [json.loads(path.read_text()) for path in files]
    return [str(key[name]) for key in keys for name in ("privateKey", "secretSeed", "secretPhrase") if key.get(name)]


def lines_of(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the lines that are whole."""
    return [json.loads(line) for line in daemon.log.split("\n")[:-1]]


def test_no_line_holds_a_key_a_signature_or_a_picture(talkative: Daemon, street: bytes) -> None:
    sent = []
    for door in DOORS:
        good = talkative.validator.sign(street, door)
        stranger = talkative.signer(talkative.keys.stranger).sign(street, door)
        rubbish = talkative.validator.sign(b"", door, body=b'{"image": "' + base64.b64encode(street) + b'"')
        for request in (good, good, stranger, rubbish, good.with_body(good.body[:-9])):
            sent.append(request)
            talkative.post(request)
    secrets = {
        "key": secrets_of(talkative),
        "signature": [signature_of(request.headers) for request in sent],  # type: ignore[arg-type]
        "picture": [base64.b64encode(street).decode()[:120]],
    }
    log = eventually(lambda: talkative.log if talkative.log.count('"level": "debug"') >= len(sent) else None)
    for kind, values in secrets.items():
        assert values
        for value in values:
            assert len(value) > 20
            assert value.removeprefix("0x") not in log, kind


def test_each_line_is_a_json_object_with_the_same_names(talkative: Daemon, street: bytes) -> None:
    talkative.ask(street, Door())
    requests = eventually(lambda: [line for line in lines_of(talkative) if line["level"] == "debug"])
    lines = lines_of(talkative)
    assert {tuple(line)[:4] for line in lines} == {("time", "level", "logger", "message")}
    (request,) = [line for line in requests if line["logger"] == "miner.status.request_log"]
    assert (request["uid"], request["outcome"], request["wire"]) == (1, "ok", "dendrite")
    assert 0 <= request["prediction"] <= 1
    assert request["seconds"] > 0
    assert any(line["level"] == "info" and line["message"].startswith("ready: ") for line in lines)


def test_at_the_usual_level_a_flood_of_forgeries_is_not_a_flood_of_lines(
    start_daemon: StartDaemon, street: bytes
) -> None:
    daemon = start_daemon().ready()
    lines = len(daemon.log.splitlines())
    forged = daemon.validator.sign(street, Door()).but(bt_header_dendrite_signature="0x" + "00" * 64)
    for _ in range(50):
        assert daemon.post(forged).status_code == 401
    assert daemon.outcomes() == {"unauthorised": 50}
    assert len(daemon.log.splitlines()) - lines <= 1  # the minute may just end


def test_a_pipe_that_nobody_reads_costs_lines_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, model: str, street: bytes
) -> None:
    folder = tmp_path_factory.mktemp("deaf")
    os.mkfifo(pipe := folder / "pipe")
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # open at both ends
    settings = {"IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1, "LOG_LEVEL": "DEBUG"}
    daemon = Daemon(folder, settings)
    daemon.prefix = ("sh", "-c", f'exec "$0" "$@" 2>{pipe}')
    try:
        daemon.start().ready()
        with httpx.Client(base_url=daemon.address, timeout=PATIENCE, trust_env=False) as client:
            for _ in range(QUEUED_LINES + 2000):
                assert client.post("/ImageSynapse", content=b"").status_code == 401
        assert daemon.status("/healthz") == 200
        assert daemon.ask(street).status_code == 200
        lost = daemon.metric("log_lines_dropped_total")
        assert lost > 0

        said = b""
        while f"{lost:.0f} log lines".encode() not in said:  # it flows again
            said += read(end)
        assert daemon.ask(street).status_code == 200
        while b"uid 1 " not in said[said.index(b"lines were lost") :]:
            said += read(end)
        assert daemon.stop() == 0
    finally:
        daemon.close()
        os.close(end)


def read(pipe: int) -> bytes:
    def some() -> bytes:
        try:
            return os.read(pipe, 2**16)
        except BlockingIOError:
            return b""

    return bytes(eventually(some))


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end(
    tmp_path_factory: pytest.TempPathFactory, model: str
) -> None:
    folder = tmp_path_factory.mktemp("deaf")
    os.mkfifo(pipe := folder / "pipe")
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    daemon = Daemon(folder, {"IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1, "LOG_LEVEL": "DEBUG"})
    daemon.prefix = ("sh", "-c", f'exec "$0" "$@" 2>{pipe}')
    try:
        daemon.start().ready()
        fill(end)
        assert daemon.stop() == 0
    finally:
        daemon.close()
        os.close(end)


def fill(pipe: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 2**12)


def test_a_log_file_has_what_the_log_has_and_a_line_for_what_came(
    start_daemon: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    file = tmp_path / "miner.log"
    daemon = start_daemon(LOG_FILE=file, LOG_FORMAT="json").ready()
    for door in DOORS:
        assert daemon.ask(street, door).status_code == 200
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines[1:] == lines_of(daemon)
    (told,) = [line for line in lines if line["logger"] == "miner.status.request_log"]
    assert {name: told[name] for name in ("level", "asked", "answered", "refused", "late", "validators")} == {
        "level": "info", "asked": 4, "answered": 4, "refused": 0, "late": 0, "validators": 1,
    }  # fmt: skip
    assert told["p50_seconds"] <= told["p95_seconds"]


@pytest.mark.parametrize(
    ("path", "code"), [("missing/miner.log", 2), ("", 2), ("pipe", 2), ("/dev/full", 3)], ids=lambda one: str(one)
)
def test_a_log_file_that_can_not_be_written_is_one_line(
    start_doomed: StartDaemon, tmp_path: Path, path: str, code: int
) -> None:
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / path
    daemon = start_doomed(LOG_FILE=file)
    assert daemon.wait() == code
    (line,) = daemon.log.splitlines()
    assert line.startswith(f"error: LOG_FILE={file}: ")


def test_a_log_file_whose_disk_is_full_later_costs_lines_and_nothing_else(
    start_daemon: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    """Its size is limited: what the kernel says of that is an error as of a full disk."""
    file = tmp_path / "miner.log"
    daemon = start_daemon(LOG_FILE=file, LOG_LEVEL="DEBUG").ready()
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1, 2**40))
    lost = daemon.metric("log_lines_dropped_total")
    assert daemon.ask(street).status_code == 200
    eventually(lambda: daemon.metric("log_lines_dropped_total") > lost)
    assert daemon.ask(street).status_code == 200
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (2**40, 2**40))
    written = file.stat().st_size
    assert daemon.ask(street).status_code == 200
    eventually(lambda: file.stat().st_size > written)
    assert daemon.stop() == 0
