"""What log lines look like in each form, and what never gets into one."""

import base64
import io
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from miner import logs, systemd
from miner.errors import ConfigurationError
from miner.logs import Background, DescriptorHandler, JournalHandler, JsonFormatter, LogFile, TextFormatter, redact
from miner.support import bundle

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
    line = TextFormatter().format(record("it holds %d", 3, level=logging.WARNING))
    assert line[:4].isdigit()
    assert line.endswith(" WARNING it holds 3")


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


def with_fields(**fields: object) -> logging.LogRecord:
    line = record("a request")
    line.fields = fields
    return line


def test_a_lines_own_fields_are_keys_and_take_no_name_of_ours() -> None:
    line = json.loads(JsonFormatter().format(with_fields(uid=5, prediction=0.25, message="mine", seed=SEED)))
    assert list(line)[:4] == ["time", "level", "logger", "message"]
    assert (line["uid"], line["prediction"], line["message"], line["seed"]) == (5, 0.25, "a request", "[redacted]")


def test_the_journal_gets_a_lines_own_fields_by_name(journal: Journal) -> None:
    handler = JournalHandler(journal.path)
    try:
        handler.handle(with_fields(uid=5, seed=SEED))
        entry = journal.entry()
        assert (entry["MINER_UID"], entry["MINER_SEED"]) == ("5", "[redacted]")
    finally:
        handler.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe: to read, and to write."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


def test_a_thread_writes_lines_as_they_were_with_their_traceback(pipe: tuple[int, int]) -> None:
    background = Background([DescriptorHandler(pipe[1], JsonFormatter())])
    values = [1]
    background.handle(record("it holds %s", values))
    values.append(2)
    background.handle(failed("bad value"))
    background.close()
    first, second = (json.loads(line) for line in os.read(pipe[0], 2**16).splitlines())
    assert first["message"] == "it holds [1]"
    assert second["traceback"].endswith("ValueError: bad value")
    assert background.lost == 0


def test_lines_that_do_not_fit_are_counted_and_said_when_it_flows_again(pipe: tuple[int, int]) -> None:
    background = Background([DescriptorHandler(pipe[1], JsonFormatter())], size=8)
    for _ in range(200):
        background.handle(record("x " * 512))
    lost, said = background.lost, b""
    assert lost >= 200 - 8 - 2**16 // 1024 - 1
    while b"log lines were lost" not in said:
        with suppress(BlockingIOError):
            said += os.read(pipe[0], 2**16)
    background.close()
    with suppress(BlockingIOError):
        said += os.read(pipe[0], 2**16)
    messages = [json.loads(line)["message"] for line in said.splitlines()]
    assert sum(int(message.split()[0]) for message in messages if "lost" in message) == lost


def test_the_end_does_not_wait_for_a_reader(pipe: tuple[int, int]) -> None:
    background = Background([DescriptorHandler(pipe[1], JsonFormatter())], size=8, end_seconds=0.1)
    for _ in range(200):
        background.handle(record("x " * 512))
    background.close()  # or it would hang
    logging.getLogger("miner").debug("and goes on")


def test_a_reader_that_went_away_costs_lines_and_nothing_else() -> None:
    read, write = os.pipe()
    os.close(read)
    background = Background([DescriptorHandler(write, TextFormatter())])
    background.handle(record("hello"))
    background.close()
    os.close(write)
    assert background.lost == 2  # and the line that tells of it


@pytest.mark.slow
def test_a_log_file_is_turned_over_and_a_report_takes_its_end(tmp_path: Path) -> None:
    path = tmp_path / "miner.log"
    handler = LogFile.open(path, TextFormatter())
    assert bundle.kept_log_text(path).endswith(f" {os.getpid()}\n")
    for number in range(5 * logs.FILE_BYTES // 10**6):
        handler.handle(record(f"{number} " + "word " * 200_000))
    handler.handle(record("the last"))
    handler.close()
    assert {file.name for file in tmp_path.iterdir()} == {"miner.log", *(f"miner.log.{number}" for number in (1, 2, 3))}
    text = bundle.kept_log_text(path)
    assert len(text) <= bundle.LAST_BYTES
    assert text.endswith("the last\n")
    assert bundle.kept_log_text(tmp_path / "other.log").startswith("LOG_FILE=")


def test_a_report_goes_on_in_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "miner.log"
    path.write_text("third\n")
    (tmp_path / "miner.log.1").write_text("first\nsecond\n")
    assert bundle.kept_log_text(path) == "first\nsecond\nthird\n"
    assert bundle.kept_log_text(path, 13) == "second\nthird\n"


@pytest.mark.parametrize("name", ["missing/miner.log", "."])
def test_a_log_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LOG_FILE="):
        LogFile.open(tmp_path / name, TextFormatter())


def test_a_line_that_can_not_be_put_into_words_is_counted_and_others_follow(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        background = Background([DescriptorHandler(file.fileno(), JsonFormatter())])
        logger = logging.Logger("of this test")
        logger.addHandler(background)
        logger.warning("odd", extra={"fields": {("a", "key"): 1}})
        logger.warning("plain")
        background.close()
    assert background.lost == 1
    assert "plain" in path.read_text()


def test_a_lines_own_fields_and_a_message_that_is_no_text_take_nothing_from_a_json_line() -> None:
    record = logging.LogRecord("miner", logging.INFO, __file__, 1, {"a": 1}, (), None)
    record.level = "mine"
    fields = json.loads(JsonFormatter().format(record))
    assert (fields["level"], fields["message"], fields["logger"]) == ("info", "{'a': 1}", "miner")
