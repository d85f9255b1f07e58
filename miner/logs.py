"""The log: text for people, JSON lines, or journald's own fields.

No line ever holds a key, a signature or an image: nothing logs them on purpose, and `redact` cuts whatever looks like
one from every line, whoever wrote it. What a line says in words it may say in `fields` too (`extra={"fields": …}`),
which JSON lines and the journal carry by name.

In the daemon a thread writes, from a queue that is bounded: a pipe that nobody reads, a full disk or a slow journal
costs lines, which are counted, and never holds up or ends anything.
"""

import copy
import errno
import logging
import os
import queue
import re
import select
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, RotatingFileHandler
from pathlib import Path
from typing import IO, Any, Literal

from pythonjsonlogger import json

from miner import systemd
from miner.errors import ConfigurationError, CouldNotStart

LogFormat = Literal["auto", "text", "json"]

JOURNAL = Path("/run/systemd/journal/socket")
SEND_SECONDS = 1.0  # a journal that does not read must not stop the loop
MESSAGE_BYTES = 32 * 2**10  # journald takes datagrams up to the socket's send buffer, about 200 kB
QUEUED_LINES = 4096
END_SECONDS = 2.0  # for what is still to be written when the process ends
TELL_SECONDS = 60.0  # between two lines about lost ones
FILE_BYTES, OLD_FILES = 10 * 10**6, 3
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # faults of a disk, and not of a path
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))

# A seed or private key (0x and 64 digits), a signature (128 digits), a picture in base64. Sums of files (64 digits
# without 0x) and addresses (48 characters) stay.
SECRETS = re.compile(r"0x[0-9a-fA-F]{64,}|[0-9a-fA-F]{96,}|[A-Za-z0-9+/_-]{300,}={0,2}")


def set_up(level: str, form: LogFormat, stream: IO[str] | None = None) -> None:
    """Send our lines from `level` on, and the libraries' from WARNING on, to the journal or a stream (stderr).

    "auto" is the journal if that is where the stream goes, else text.
    """
    stream = stream or sys.stderr
    handler: logging.Handler
    if _is_for_journal(form, stream):
        handler = JournalHandler(JOURNAL)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_formatter(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("miner", "detectors"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of every scanner that sends no HTTP


def in_background(form: LogFormat, file: Path | None = None, stream: IO[str] | None = None) -> "Background":
    """Have a thread write the lines from now on: to where `set_up` sends them, and to `file` if there is one.

    Raises:
        ConfigurationError: the file is none that may be written.
        CouldNotStart: it can't be written now.
    """
    stream = stream or sys.stderr  # None: closed by whoever started us
    targets: list[LogHandler] = [LogFile.open(file, _formatter(form))] if file is not None else []
    if _is_for_journal(form, stream):
        targets.append(JournalHandler(JOURNAL))
    elif stream is not None:
        targets.append(DescriptorHandler(stream.fileno(), _formatter(form)))
    background = Background(targets)
    logging.getLogger().handlers[:] = [background]
    return background


def dropped() -> int:
    """Return how many lines were lost, in this process."""
    return sum(handler.lost for handler in logging.getLogger().handlers if isinstance(handler, Background))


def _is_for_journal(form: LogFormat, stream: IO[str] | None) -> bool:
    return form == "auto" and stream is not None and systemd.is_journal(stream) and JOURNAL.is_socket()


def _formatter(form: LogFormat) -> logging.Formatter:
    return JsonFormatter() if form == "json" else TextFormatter()


def redact(text: str) -> str:
    """Return the text without anything that could be a key, a signature or a picture."""
    return SECRETS.sub("[redacted]", text)


class TextFormatter(logging.Formatter):
    """A line for people: local time, level, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it if there is one."""
        return redact(super().format(record))


class JsonFormatter(json.JsonFormatter):
    """A JSON object on one line: time (UTC), level, logger, message and the line's own fields.

    An error that was not expected has its traceback too.
    """

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger", "exc_info": "traceback"}
        super().__init__("{levelname}{name}{message}", style="{", rename_fields=names, json_ensure_ascii=False)

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add the fields in our order, with nothing in them that could be a key; a line's own take no name of ours."""
        found: dict[str, Any] = {}
        super().add_fields(found, record, message_dict)
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data |= {"level": record.levelname.lower(), "logger": record.name, "message": redact(record.getMessage())}
        if found.get("traceback"):
            log_data["traceback"] = redact(found["traceback"])
        log_data |= {name: value for name, value in _fields(record).items() if name not in log_data}


class LogHandler(logging.Handler):
    """Where lines end; what can't be written is counted, and never told where it could block."""

    failed = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Count a line that is lost."""
        self.failed += 1


class DescriptorHandler(LogHandler):
    """Lines straight to a file descriptor.

    Not to its Python stream: a thread that is stuck in one holds its lock, and the interpreter dies of that at its end.
    """

    def __init__(self, descriptor: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, for as long as that takes."""
        data = (self.format(record) + "\n").encode("utf-8", "replace")
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # whoever shares it has made it so
                    select.select([], [self._descriptor], [])
        except OSError:
            self.handleError(record)


class LogFile(RotatingFileHandler, LogHandler):
    """A file that is turned over when it is large."""

    @classmethod
    def open(cls, path: Path, formatter: logging.Formatter) -> "LogFile":
        """Open the file, and see that it takes a line.

        Raises:
            ConfigurationError: it is none that may be written.
            CouldNotStart: it can't be written now.
        """
        if path.is_fifo():
            raise ConfigurationError(f"LOG_FILE={path}: a file is allowed, not a pipe")
        begin = logging.LogRecord(__name__, logging.INFO, "", 0, "the log of process %d", (os.getpid(),), None)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(formatter.format(begin) + "\n")
            handler = cls(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", errors="replace")
        except OSError as error:
            why = f"LOG_FILE={path}: can't be written: {error.strerror or error}"
            raise (CouldNotStart if error.errno in DISK_ERRORS else ConfigurationError)(why) from error
        handler.setFormatter(formatter)
        return handler


class Background(QueueHandler):
    """Hands lines to a thread that writes them; when too many wait, lines are dropped and counted."""

    def __init__(self, targets: list[LogHandler], size: int = QUEUED_LINES, end_seconds: float = END_SECONDS) -> None:
        self._lines: queue.Queue[logging.LogRecord | threading.Event | None] = queue.Queue(size)
        super().__init__(self._lines)
        self._targets = targets
        self._end_seconds = end_seconds
        self._full = 0
        self._told = 0
        self._told_at: float | None = None
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that did not get to where they should."""
        return self._full + self._failed

    @property
    def _failed(self) -> int:
        return sum(target.failed for target in self._targets)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return the line with its values in words, since they may change until it is written."""
        ready = copy.copy(record)
        ready.msg, ready.args = record.getMessage(), None
        if record.exc_info:
            ready.exc_text, ready.exc_info = logging.Formatter().formatException(record.exc_info), None
        return ready

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a line over, or count it; under this handler's lock."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._full += 1

    def flush(self) -> None:
        """Wait until what was handed over is written, for a moment."""
        deadline, written = time.monotonic() + self._end_seconds, threading.Event()
        with suppress(queue.Full):
            self._lines.put(written, timeout=self._end_seconds)
            written.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Write what waits, as far as that can be done in a moment."""
        deadline = time.monotonic() + self._end_seconds
        with suppress(queue.Full):
            self._lines.put(None, timeout=self._end_seconds)
            self._thread.join(max(0.0, deadline - time.monotonic()))
        super().close()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            self._write(line)
            is_time = self._told_at is None or time.monotonic() - self._told_at >= TELL_SECONDS
            if is_time and self._lines.qsize() <= self._lines.maxsize // 2:
                self._tell()
        self._tell()

    def _write(self, line: logging.LogRecord) -> None:
        for target in self._targets:
            try:
                target.emit(line)  # without its lock, for which the end of the process would wait
            except Exception:  # noqa: BLE001 - one that can't be put into words, or for want of memory: others follow
                target.handleError(line)

    def _tell(self) -> None:
        lost, failed = self.lost, self._failed
        if lost > self._told:
            words = "%d log lines were lost: whoever reads them was too slow, or they could not be written"
            self._write(logging.LogRecord(__name__, logging.WARNING, "", 0, words, (lost - self._told,), None))
            # What this very line lost is not told by another.
            self._told, self._told_at = lost + self._failed - failed, time.monotonic()


class JournalHandler(LogHandler):
    """Entries with fields: MESSAGE (of any number of lines), PRIORITY, LOGGER, and MINER_… for those of the line.

    The journal knows time and unit.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._address = str(journal)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry; one that can't be sent is lost, as a full disk would lose it."""
        fields = {
            "MESSAGE": redact(self.format(record)),
            "PRIORITY": str(priority(record.levelno)),
            "LOGGER": record.name,
            "SYSLOG_IDENTIFIER": "roadwork-miner",
        }
        fields |= {f"MINER_{name.upper()}": str(value) for name, value in _fields(record).items()}
        try:
            self._socket.sendto(b"".join(_field(name, value) for name, value in fields.items()), self._address)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return a line's own fields."""
    fields = getattr(record, "fields", {})
    return {name: redact(value) if isinstance(value, str) else value for name, value in fields.items()}


def priority(level: int) -> int:
    """Return syslog's number for a level."""
    return next(number for least, number in PRIORITIES if level >= least)


def _field(name: str, value: str) -> bytes:
    """Return a field in the form that may hold newlines: name, newline, length in 64 bits, value, newline."""
    data = value.encode("utf-8", "replace")[:MESSAGE_BYTES]
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
