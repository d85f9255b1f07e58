"""How the check-up looks: what hangs is left behind, what breaks is a line, and what it meets may be anything."""

import asyncio
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from miner.chain import standalone
from miner.chain.publication import AddressUnknown, find_external_ip
from miner.doctor import chain, checkup, daemon, machine
from miner.doctor import settings as files
from miner.doctor.findings import Finding, asked_in_time, in_time, judged
from miner.settings.settings import Settings
from tests.process.daemon import free_port

PATIENCE = 60.0
AT_ONCE = 0.05
NOBODY = 65534


def test_the_time_limits_are_less_than_a_minute_in_all() -> None:
    to_us = checkup.CHAIN_SECONDS + checkup.LOCAL_SECONDS + daemon.PROBE_SECONDS
    before = checkup.WALLET_SECONDS + checkup.LOCAL_SECONDS * 2 + checkup.SUMS_SECONDS
    assert before + max(to_us, checkup.INFERENCE_SECONDS) <= 55
    assert max(checkup.SERVICES_SECONDS, checkup.HUB_SECONDS) <= checkup.CHAIN_SECONDS


def test_what_hangs_is_left_behind() -> None:
    forever = threading.Event()

    async def slow_and_quick() -> tuple[str, str]:
        slow = await in_time(lambda: str(forever.wait()), AT_ONCE, lambda words: words)
        return slow, await in_time(lambda: "in time", PATIENCE, lambda words: words)

    assert asyncio.run(slow_and_quick()) == ("no answer within 0.05 s", "in time")
    forever.set()


def test_what_breaks_is_a_line_and_no_traceback() -> None:
    def breaks() -> Any:
        raise KeyError("odd")

    assert asyncio.run(in_time(breaks, PATIENCE, lambda words: words)).endswith(": KeyError: 'odd'")
    finding = judged("disk", breaks)
    assert (finding.name, finding.level) == ("disk", "problem")
    assert finding.words.endswith(": KeyError: 'odd'")


def test_sums_that_take_long_are_a_warning_and_the_pictures_are_timed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkup, "SUMS_SECONDS", 0.0)
    monkeypatch.setattr(checkup, "INFERENCE_SECONDS", PATIENCE)

    settings = Settings(state_dir=tmp_path, models_dir=tmp_path, miner_axon_port=free_port(), status_port=free_port())

    async def look() -> list[Finding]:
        return [seen async for seen in checkup.CheckUp(settings).examine() if isinstance(seen, Finding)]

    findings = {finding.name: finding for finding in asyncio.run(look())}
    assert findings["model"].level == "warning"
    assert "no answer within 0 s" in findings["model"].words
    assert "p95" in findings["inference"].words, findings["inference"]


async def _no_address(services: list[str]) -> str:
    try:
        return await find_external_ip(services, AT_ONCE)
    except AddressUnknown:
        return "unknown"


@pytest.mark.parametrize("asked", [partial(chain.ask_services, seconds=AT_ONCE), _no_address])
def test_a_dead_name_server_holds_nobody_up(asked: Callable[[list[str]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's look-up of a name goes on for a minute, and nothing can end it."""
    looking, servers_answer = threading.Event(), threading.Event()

    def look_up(*_: Any, **__: Any) -> Any:
        looking.set()
        servers_answer.wait()
        raise OSError("no such name")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    ask = partial(asked, ["http://name.invalid"])
    found = asyncio.run(asked_in_time(ask, PATIENCE, lambda _: "left behind"))
    assert found in (None, "unknown")
    assert looking.is_set()
    assert not servers_answer.is_set(), "it has ended and the look-up has not"
    servers_answer.set()


def test_the_command_ends_while_a_name_is_still_looked_up() -> None:
    code = """if True:
        import concurrent.futures, threading
        from miner.cli.common import leave
        concurrent.futures.ThreadPoolExecutor().submit(threading.Event().wait)
        print("told")
        leave(3, hung=True)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (3, "told\n")


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest) -> Iterator[int]:
    """Another program on the status port, which answers everything with the same."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param)

        def log_message(self, *_: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    "elsewhere",
    [b"[]", b"17", b"hello", b"{}", b'{"reason": null}', b'{"hotkeys": [], "reason": 1}'],
    indirect=True,
)
def test_another_program_on_the_status_port_is_said(elsewhere: int) -> None:
    facts = daemon.read_running(Settings(status_port=elsewhere, miner_axon_port=free_port()))
    assert (facts.running, "no miner" in facts.fault) == (False, True)


def test_nobody_on_the_status_port_is_no_fault() -> None:
    facts = daemon.read_running(Settings(status_port=free_port()))
    assert facts == daemon.RunningFacts()


class Probe(http.server.ThreadingHTTPServer):
    """A probe that answers as its path says: a status and a body, or something that is no HTTP."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, body = self.path.partition("?")[0].strip("/").partition("/")
            if kind == "noise":
                self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
                return
            if kind == "endless":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b"[" * 2**16)
            self.send_response(int(kind))
            if kind.startswith("3"):
                self.send_header("location", self.path)
            self.end_headers()
            self.wfile.write(unquote(body).encode())

        def log_message(self, *_: Any) -> None: ...

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)

    def handle_error(self, *_: Any) -> None:
        """The caller hung up."""


@pytest.fixture(scope="module")
def probe() -> Iterator[str]:
    with Probe() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def asked(probe: str) -> daemon.ReachFacts:
    return asyncio.run(daemon.read_reach("1.2.3.4:8091", "1.2.3.4", 8091, probe))


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("200", True),
        ("200/open", True),
        ("200/[1]", True),
        ('200/{"reachable": true}', True),
        ('200/{"reachable": false}', False),
        ("endless", True),
        *((f"{code}/closed", None) for code in (204, 301, 302, 400, 401, 403, 404, 429, 500, 501, 502, 503, 504)),
        ('500/{"reachable": false}', None),
        ("noise", None),
    ],
)
def test_only_a_clear_word_of_the_probe_says_that_the_port_is_closed(
    probe: str, path: str, reached: bool | None
) -> None:
    facts = asked(f"{probe}/{path}")
    assert facts.reached is reached, facts
    if path[:3].isdigit() and reached is None:
        assert path[:3] in facts.words


def test_a_probe_that_can_not_be_asked_is_broken(probe: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for broken in (nobody, probe.replace("http:", "https:"), "ftp://x", "http://", "http://[", "no url"):
        facts = asked(broken)
        assert facts.reached is None
        assert facts.words


@pytest.fixture
def nobodys(tmp_path: Path) -> Iterator[Path]:
    """Be an ordinary user, who has this folder and may not enter `tmp_path`."""
    tmp_path.chmod(0)
    with tempfile.TemporaryDirectory() as folder:
        standalone.own_wallet(Path(folder), "miner")  # which also imports the SDK, while that may be read
        is_root = os.geteuid() == 0
        for path in (Path(folder), *Path(folder).rglob("*")) if is_root else ():
            os.chown(path, NOBODY, NOBODY)
        if is_root:
            os.seteuid(NOBODY)
        yield Path(folder)
        if is_root:
            os.seteuid(0)
    tmp_path.chmod(0o700)


def test_a_closed_folder_is_a_line_and_no_traceback(nobodys: Path, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state" / "mine", models_dir=nobodys)
    finding = machine.judge_disk(machine.read_disks(settings, prepared=True))
    assert (finding.level, "may not enter" in finding.words) == ("problem", True), finding

    wallet = files.read_wallet(Settings(state_dir=nobodys, wallet_path=tmp_path / "wallets"))
    assert files.judge_hotkey(wallet).level == "ok", wallet
    assert files.judge_coldkey(wallet).words.startswith("not known: ")


def test_a_hotkey_that_can_not_be_opened_keeps_no_other_from_being_counted(tmp_path: Path) -> None:
    every = Settings(state_dir=tmp_path, wallet_path=tmp_path, wallet_hotkeys="a:8091,b:8092").each_key()
    (tmp_path / "file").touch()
    broken = every[0].model_copy(update={"state_dir": tmp_path / "file"})
    a, b = files.read_addresses(every)
    assert a != b
    assert files.read_addresses([broken, every[1]]) == (b,)
