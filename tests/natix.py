"""A NATIX server on this machine: registrations in its own words, signatures checked as it checks them."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bittensor.keyfiles import Keypair

OLD_SECONDS = 300  # of a signed message


@dataclass
class Answer:
    """What is answered: JSON, or raw bytes in its place."""

    body: Any
    status: int = 200
    raw: bytes | None = None
    seconds: float = 0.0  # until it comes
    location: str = ""
    is_noise: bool = False  # something that is no HTTP


@dataclass
class Natix:
    """One server: what it says of a uid, in turn (the last for ever), and what it was sent."""

    states: list[Answer] = field(default_factory=lambda: [Answer({"status": "succeeded"})])
    reply: Answer | None = None  # to a registration; None: as its signature deserves
    registered: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def now(self) -> int:
        """Return its clock's time."""
        return int(time.time())

    def register(self, body: dict[str, str]) -> Answer:
        """Take a registration, if its hotkey signed it just now."""
        self.registered.append(body)
        if self.reply is not None:
            return self.reply
        missing = {"uid", "message", "natix_public_key", "natix_signature", "type", "model_repo"} - set(body)
        if missing:
            return Answer({"detail": [{"loc": ["body", name], "msg": "field required"} for name in missing]}, 422)
        key = Keypair(ss58_address=body["natix_public_key"])
        if not key.verify(body["message"].encode(), bytes.fromhex(body["natix_signature"])):
            return Answer({"detail": "Invalid signature"}, 401)
        if abs(self.now() - int(body["message"])) > OLD_SECONDS:
            return Answer({"detail": "Message expired"}, 401)
        return Answer({"detail": "Registration queued"})

    def state(self) -> Answer:
        """Say the next thing of a uid."""
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@contextmanager
def serving(natix: Natix) -> Iterator[Natix]:
    """Serve on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = self.path == "/participants/register"
            self._send(natix.register(body) if found else Answer({"detail": "Not Found"}, 404))

        def do_GET(self) -> None:
            natix.asked.append(self.path)
            found = self.path.startswith("/participants/registration-status/")
            self._send(natix.state() if found else Answer({"detail": "Not Found"}, 404))

        def _send(self, answer: Answer) -> None:
            time.sleep(answer.seconds)
            if answer.is_noise:
                self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
                self.close_connection = True
                return
            data = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/html" if answer.raw is not None else "application/json")
            self.send_header("Content-Length", str(len(data)))
            if answer.location:
                self.send_header("Location", answer.location)
            self.end_headers()
            with suppress(OSError):  # whoever asked has waited for long enough
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    natix.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield natix
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
