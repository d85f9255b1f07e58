"""Engines that send far more than an answer needs: what is read of it, and what that costs in memory."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.remote.server import OpenInference

MIB = 2**20
MUCH = 60 * MIB  # bytes that are sent, unless the reader has gone before
BOUND = 16 * MIB  # of memory: kilobytes are read, the rest is noise of the allocator

# Prints why the endpoint is unfit and the bytes that memory has grown by at most, after one that nobody listens at.
ASK = """
import json, resource, sys
from pathlib import Path
from detectors.base import RunOptions
from detectors.models.config import read_config
from detectors.errors import ModelError
from detectors.load import load_detector
from detectors.remote.endpoints import EngineOptions

def ask(address):
    options = RunOptions(engine=EngineOptions((address,)))
    try:
        load_detector("ViT", read_config("starter.yaml"), Path("unused"), "remote", options)
    except ModelError as error:
        return str(error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

_, before = ask("http://127.0.0.1:1")
reason, after = ask(sys.argv[1])
print(json.dumps([reason, after - before]))
"""


class HostileEngine(ThreadingHTTPServer):
    """Answers as the protocol says, but for one path, where it sends what it is told to; counts what it got rid of."""

    daemon_threads = True

    def __init__(self, path: str, head: bytes, pieces: Iterator[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        local = load_detector("ViT", read_config("starter.yaml"), Path("unused"), "onnx", RunOptions())
        self.oip = OpenInference(local)
        self.path, self.head, self.pieces = path, head, pieces
        self.sent = 0
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HostileEngine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == self.server.path:
            self._flood()
            return
        answer = self.server.oip.describe(self.path)
        self.send_response(answer.status)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._flood()

    def _flood(self) -> None:
        self.close_connection = True
        try:
            self.connection.sendall(b"HTTP/1.1 200 OK\r\n" + self.server.head)
            for piece in self.server.pieces:
                self.connection.sendall(piece)
                self.server.sent += len(piece)
        except OSError:  # the reader has gone
            pass

    def log_message(self, *args: object) -> None:
        pass


def packed_zeros() -> Iterator[bytes]:
    """Return a gzip of 10⁹ zeros."""
    return repeat(gzip.compress(bytes(10**7)), 100)


def much_json() -> Iterator[bytes]:
    """Return the beginning of an answer whose scores don't end."""
    tensor = json.dumps({"name": "scores", "datatype": "FP32", "shape": [1, 10**7]})
    yield f'{{"outputs": [{tensor[:-1]}, "data": [0.5'.encode()
    yield from repeat(b", 0.5" * 10_000, MUCH // 50_000)


READY, METADATA, INFER = "/v2/health/ready", "/v2/models/starter", "/v2/models/starter/infer"
GZIP = b"content-encoding: gzip\r\nconnection: close\r\n\r\n"
CLOSE = b"connection: close\r\n\r\n"
TOO_LONG = "more than the"


@pytest.mark.parametrize(
    ("path", "head", "pieces", "reason"),
    [
        (INFER, GZIP, packed_zeros(), "compressed"),
        (METADATA, GZIP, packed_zeros(), "compressed"),
        (INFER, CLOSE, much_json(), TOO_LONG),
        (METADATA, CLOSE, much_json(), TOO_LONG),
        (READY, CLOSE, repeat(bytes(MIB)), TOO_LONG),
        (INFER, CLOSE, repeat(bytes(MIB)), TOO_LONG),
        (INFER, b"transfer-encoding: chunked\r\n\r\n", repeat(b"100000\r\n" + bytes(MIB) + b"\r\n"), TOO_LONG),
        (INFER, b"content-length: 999999999999\r\n\r\n", repeat(bytes(MIB)), TOO_LONG),
        (INFER, b"x-long: ", repeat(b"x" * MIB), "can't be read"),
        (INFER, b"", (b"x-%d: y\r\n" % number for number in range(10**7)), "can't be read"),
    ],
    ids=[
        "gzip", "metadata gzip", "JSON", "metadata JSON", "ready", "endless", "chunks", "declared", "header", "headers",
    ],
)  # fmt: skip
def test_what_an_engine_sends_too_much_is_not_read(
    path: str, head: bytes, pieces: Iterator[bytes], reason: str
) -> None:
    with HostileEngine(path, head, pieces) as engine:
        thread = threading.Thread(target=engine.serve_forever)
        thread.start()
        run = subprocess.run(
            [sys.executable, "-c", ASK, engine.address], capture_output=True, text=True, timeout=240, check=True
        )
        engine.shutdown()
        thread.join()
    said, growth = json.loads(run.stdout)
    assert reason in said
    assert growth < BOUND
    assert engine.sent < MUCH
