"""What log lines look like in each form, and what never gets into one."""

import base64
import io
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from miner import logs, systemd
from miner.logs import JournalHandler, JsonFormatter, TextFormatter, redact

SEED = "0x" + "a1" * 32
SIGNATURE = "b2" * 64
PICTURE = base64.b64encode(os.urandom(600)).decode()
SECRETS = (SEED, SIGNATURE, "0x" + SIGNATURE, PICTURE, PICTURE.replace("+", "-").replace("/", "_"))


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("miner.app", level, "app.py", 1, message, args, None)


def failed(message: str) -> logging.LogRecord:
    """A record with a traceback, as `log.exception` makes it."""
    try:
        raise ValueError(message)
    except ValueError as error:
        broken = record("a request failed", level=logging.ERROR)
        broken.exc_info = (ValueError, error, error.__traceback__)
        return broken


@contextmanager
def fresh_logging() -> Iterator[None]:
    """No handlers, as at the start of a process; a context, since pytest adds its own to the running test."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "miner", "detectors", "uvicorn")}
    before, root.handlers = root.handlers, []
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = before
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class Journal:
    """A socket where journald would listen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)

    def entry(self) -> dict[str, str]:
        data, fields = self.socket.recv(2**20), {}
        while data:
            name, _, data = data.partition(b"\n")
            (length,) = struct.unpack("<Q", data[:8])
            fields[name.decode()] = data[8 : 8 + length].decode()
            assert data[8 + length : 9 + length] == b"\n"
            data = data[9 + length :]
        return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal")
    yield made
    made.socket.close()


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_key_signature_or_picture_gets_into_a_line(formatter: logging.Formatter, secret: str) -> None:
    for line in (record("got %s from a caller", secret), record(f"got {secret}"), failed(f"bad value {secret}")):
        written = formatter.format(line)
        assert secret not in written
        assert secret[10:-10] not in written
        assert "[redacted]" in written


def test_what_an_operator_needs_is_left_alone() -> None:
    harmless = [
        "hotkey 5H6mjczAWmktzjc4cUEb9gqAwK5tKBX6b9oPUXY96hvTRepr",
        f"model.onnx has the sha256 sum {'0f' * 32}, not {'1e' * 32}",
        f"revision {'c3' * 20}",
        "/a/long/path/to/a-model_folder" * 4 + "/model.onnx can't be read",
        "the block's hash is 0x" + "12" * 20,
    ]
    assert [redact(line) for line in harmless] == harmless


def test_a_line_for_people_has_time_level_and_message() -> None:
    line = TextFormatter().format(record("the queue holds %d", 3, level=logging.WARNING))
    assert line[:4].isdigit()
    assert line.endswith(" WARNING the queue holds 3")


def test_a_json_line_is_one_line_whatever_is_in_it() -> None:
    written = JsonFormatter().format(failed("two\nlines"))
    assert "\n" not in written
    fields = json.loads(written)
    assert (fields["level"], fields["logger"], fields["message"]) == ("error", "miner.app", "a request failed")
    assert fields["time"].endswith("+00:00")
    assert fields["traceback"].endswith("ValueError: two\nlines")


def test_the_journal_gets_fields_and_keeps_a_traceback_in_one_entry(journal: Journal) -> None:
    handler = JournalHandler(journal.path)
    try:
        handler.handle(record("a picture of %d bytes", 7))
        assert journal.entry() == {
            "MESSAGE": "a picture of 7 bytes",
            "PRIORITY": "6",
            "LOGGER": "miner.app",
            "SYSLOG_IDENTIFIER": "roadwork-miner",
        }
        handler.handle(failed(f"bad value {SIGNATURE}"))
        entry = journal.entry()
        assert entry["PRIORITY"] == "3"
        assert entry["MESSAGE"].startswith("a request failed\nTraceback")
        assert SIGNATURE not in entry["MESSAGE"]
    finally:
        handler.close()


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_levels_are_syslogs(level: int, number: int) -> None:
    assert logs.priority(level) == number


def test_our_lines_from_the_level_on_and_the_libraries_from_warning() -> None:
    stream = io.StringIO()
    with fresh_logging():
        logs.set_up("DEBUG", "auto", stream)
        for name in ("miner.axon", "bittensor"):
            logging.getLogger(name).debug("%s says", name)
    assert [line.rpartition("DEBUG ")[2] for line in stream.getvalue().splitlines()] == ["  miner.axon says"]


def test_json_on_demand() -> None:
    stream = io.StringIO()
    with fresh_logging():
        logs.set_up("INFO", "json", stream)
        logging.getLogger("miner").info("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"


def test_as_a_service_the_journal(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "JOURNAL", journal.path)
    with (tmp_path / "stderr").open("w+") as stream, fresh_logging():
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        logs.set_up("INFO", "auto", stream)
        logging.getLogger("miner").warning("hello")
        assert journal.entry()["MESSAGE"] == "hello"
        stream.seek(0)
        assert stream.read() == ""


def test_a_redirected_stream_of_a_service_is_not_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")  # what systemd gave, before a `2> file`
    with (tmp_path / "stderr").open("w") as stream:
        assert not systemd.is_journal(stream)
    assert not systemd.is_journal(io.StringIO())
