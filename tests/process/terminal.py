"""A real terminal of 80 × 24 for tests: a process on it, what it writes there, and keys."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading

from tests.process.daemon import PATIENCE, eventually

LINES, COLUMNS = 24, 80


class Terminal:
    """A process on a terminal, and all that it wrote there."""

    def __init__(self, *command: str, stderr: int | None = None, term: str = "xterm-256color") -> None:
        self.end, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other if stderr is None else stderr,
            env=environment | {"TERM": term}, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.written = b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        try:
            while found := os.read(self.end, 1 << 16):
                self.written += found
        except OSError:  # nobody is at the other end any more
            pass

    def type(self, keys: bytes) -> int:
        """Press keys, and return how much was written until then."""
        before = len(self.written)
        os.write(self.end, keys)
        return before

    def says(self, text: str, since: int = 0) -> None:
        eventually(lambda: text.encode() in self.written[since:] or self._has_ended())

    def _has_ended(self) -> bool:
        assert self.process.poll() is None, self.written.decode(errors="replace")
        return False

    def ended(self) -> int:
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return code

    def hang_up(self) -> None:
        """Take the terminal away, as a connection does that is lost."""
        hung, self.end = self.end, os.open(os.devnull, os.O_RDWR)
        os.close(hung)

    def close(self) -> None:
        self.process.kill()
        self.ended()
        os.close(self.end)
