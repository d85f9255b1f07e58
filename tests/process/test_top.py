"""`top` on a real terminal of 80 × 24, while the miner goes and comes back."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.overviews import HOTKEY, entry, overview
from tests.process.daemon import PATIENCE, free_port
from tests.process.terminal import Terminal


class Status(BaseHTTPRequestHandler):
    """Answers `/status` as a miner does."""

    def do_GET(self) -> None:
        body = overview(entry("forbidden", reason="no permit"), *[entry()] * 19).model_dump_json().encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@contextmanager
def status(port: int) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", port), Status) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def port() -> int:
    return free_port()


def command(port: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "miner", "top", f"--set=STATUS_PORT={port}", *options]


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_a_screen_that_scrolls_outlives_the_miner_and_ends_with_a_key(port: int, key: bytes) -> None:
    with status(port):
        terminal = Terminal(*command(port, "--interval=0.2"))
        terminal.says("Last hour")
        terminal.says(HOTKEY)
        assert b"forbidden" not in terminal.written
        terminal.type(b"\x1b[F")  # End
        terminal.says("forbidden")
    terminal.says("no miner answers")
    before = terminal.type(b"\x1b[H")  # Home: the last frame is still there
    terminal.says("Last hour", before)
    with status(port):
        before = terminal.type(b"\x1b[F")
        terminal.says("forbidden", before)
        terminal.type(key)
        assert terminal.ended() == 0
    assert b"\x1b[?1049l" in terminal.written  # the screen before is there again
    terminal.close()


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_one_frame_is_printed_where_there_is_no_screen(port: int, term: str) -> None:
    """A terminal that can't move its cursor is none, and stderr, on which Textual draws, has to be one too."""
    with status(port):
        terminal = Terminal(*command(port), term=term, stderr=None if term == "dumb" else subprocess.DEVNULL)
        assert terminal.ended() == 0
    assert b"Last requests" in terminal.written
    assert b"\x1b[?1049h" not in terminal.written
    terminal.close()


def test_a_frame_into_a_pipe_needs_no_textual(port: int) -> None:
    with status(port):
        asked, *rest = command(port)
        done = subprocess.run(
            [asked, "-X", "importtime", *rest],
            capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Last requests" in done.stdout
    assert "\x1b" not in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "rich" in imported
    assert "textual" not in imported


def test_it_ends_with_its_terminal(port: int) -> None:
    """It would read the end of its input for ever, and take half a core from the miner."""
    with status(port):
        terminal = Terminal(*command(port))
        terminal.says("Last hour")
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE) is not None
