"""A hub on this machine: a repository's files, and the refusals of the real one in its own words and headers."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Refusal:
    """What the hub answers in place of a repository; `gate` alone: to those who ask for a file."""

    status: int
    code: str
    message: str
    gate: bool = False


@dataclass
class Hub:
    """One repository, or why it can't be had."""

    files: Mapping[str, bytes]
    refusal: Refusal | None = None
    fetched: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            is_file, refusal = "/resolve/" in self.path, hub.refusal
            if refusal is not None and (is_file or not refusal.gate):
                headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
                self._send(refusal.status, b"", headers, with_body=with_body)
            elif is_file:
                name = self.path.split(f"/resolve/{COMMIT}/")[1]
                if with_body:
                    hub.fetched.append(name)
                data = hub.files[name]
                etag = hashlib.sha256(data).hexdigest()
                self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, with_body=with_body)
            else:
                siblings = [{"rfilename": name} for name in hub.files]
                info = {"id": "someone/roadwork", "sha": COMMIT, "siblings": siblings}
                self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body=with_body)

        def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, with_body: bool) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(data))}).items():
                if value:
                    self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
