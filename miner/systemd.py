"""systemd's notify protocol, and what systemd puts into the environment.

Nothing happens where there is no systemd.
"""

import logging
import os
import socket
from typing import IO

log = logging.getLogger(__name__)

SEND_SECONDS = 1.0  # a supervisor that does not read must not stop the loop


def notify(message: str) -> None:
    """Send one message (`READY=1`, `STOPPING=1`, `WATCHDOG=1`, `STATUS=…`) to the supervisor, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(SEND_SECONDS)
            sock.sendto(message.encode(), address)
    except OSError as error:
        log.warning("systemd can't be told %s: %s", message.partition("=")[0], error)


def status(text: str) -> str:
    """Return the message that shows `text` in `systemctl status`; the protocol separates assignments by lines."""
    return f"STATUS={' '.join(text.split())}"


def watchdog_seconds() -> float | None:
    """Return after how many seconds without a beat this process is restarted, or None if nobody waits for beats."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for the process that started us
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) > 0 else None


def is_journal(stream: IO[str]) -> bool:
    """Return whether what is written to a stream goes to the journal (`JOURNAL_STREAM=device:inode`)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
