"""`doctor` beside a healthy miner on a healthy chain, with somebody outside who tries the port."""

import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.process.chain.live_node import SECRETS, LiveNode
from tests.process.daemon import PATIENCE, Daemon


@dataclass
class Report:
    """What one check-up said."""

    exit_code: int
    verdict: str
    levels: dict[str, str]
    words: dict[str, str]

    @property
    def problems(self) -> list[str]:
        return [name for name, level in self.levels.items() if level == "problem"]


@dataclass
class Prober(http.server.ThreadingHTTPServer):
    """Somebody outside: tries the port (here, since our public address is made up)."""

    open: bool = True
    status: int = 200
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Probe)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/probe?key=1"


class _Probe(http.server.BaseHTTPRequestHandler):
    server: Prober

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(query)
        reached = self.server.open
        if reached:
            try:
                socket.create_connection(("127.0.0.1", int(query["port"][0])), timeout=5).close()
            except OSError:
                reached = False
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps({"reachable": reached}).encode())

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def probing() -> Iterator[Prober]:
    """Have somebody outside for a while."""
    prober = Prober()
    thread = threading.Thread(target=prober.serve_forever, name="prober")
    thread.start()
    try:
        yield prober
    finally:
        prober.shutdown()
        prober.server_close()
        thread.join()


@dataclass
class Setup:
    """A healthy miner on a healthy chain, and somebody outside."""

    node: LiveNode
    daemon: Daemon
    prober: Prober

    def doctor(self, *arguments: str, **settings: object) -> Report:
        """Run the check-up beside the miner, with other settings where given."""
        daemon = self.daemon
        environment = daemon.environment | {key: str(value) for key, value in settings.items()}
        done = subprocess.run(
            [*daemon.command, "doctor", "--json", "--probe", self.prober.url, *arguments],
            capture_output=True, text=True, timeout=PATIENCE, env=environment, cwd=daemon.folder, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS), done.stdout
        told = json.loads(done.stdout)
        findings = told["findings"]
        assert all(finding["todo"] for finding in findings if finding["level"] == "problem")
        return Report(
            done.returncode,
            told["verdict"],
            {finding["name"]: finding["level"] for finding in findings},
            {finding["name"]: finding["words"] for finding in findings},
        )
