"""Where log lines go and what they look like: text for people, JSON lines, or journald's own fields.

No line ever holds a key, a signature or an image: nothing logs them on purpose, and `redact` cuts whatever looks like
one from every line, whoever wrote it.
"""

import json
import logging
import re
import socket
import struct
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from miner import systemd

LogFormat = Literal["auto", "text", "json"]

JOURNAL = Path("/run/systemd/journal/socket")
SEND_SECONDS = 1.0  # a journal that does not read must not stop the loop
MESSAGE_BYTES = 32 * 2**10  # journald takes datagrams up to the socket's send buffer, about 200 kB
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
    if form == "auto" and systemd.is_journal(stream) and JOURNAL.is_socket():
        handler = JournalHandler(JOURNAL)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("miner", "detectors"):
        logging.getLogger(name).setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of every scanner that sends no HTTP


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


class JsonFormatter(logging.Formatter):
    """A JSON object on one line: time (UTC), level, logger, message and, for errors not expected, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class JournalHandler(logging.Handler):
    """Entries with fields: MESSAGE (of any number of lines), PRIORITY and LOGGER; the journal knows time and unit."""

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
        try:
            self._socket.sendto(b"".join(_field(name, value) for name, value in fields.items()), self._address)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def priority(level: int) -> int:
    """Return syslog's number for a level."""
    return next(number for least, number in PRIORITIES if level >= least)


def _field(name: str, value: str) -> bytes:
    """Return a field in the form that may hold newlines: name, newline, length in 64 bits, value, newline."""
    data = value.encode("utf-8", "replace")[:MESSAGE_BYTES]
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
