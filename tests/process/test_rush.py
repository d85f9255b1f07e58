"""Sixty requests at once, one slot of 300 ms: what fits in nine seconds is answered in time, the rest refused at once.

Beside it the way of the reference miner, whose event loop does the work: it answers nobody in time.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from miner.chain import standalone
from tests.models import photo
from tests.process.daemon import Daemon, eventually, free_port
from tests.process.graphs import write_model
from tests.process.wire import Door, RawRequest, Signed

VALIDATORS, EACH = 12, 5
WAIT = 9.0  # seconds, as StreetVision's validators do
MARGIN = 0.15  # loopback needs no half second for the answer's way; 29 and a half fit
SECONDS = 0.3  # that a picture takes
AT_ONCE = 0.1  # seconds
PROBE_SECONDS = 0.05
PROBE_PATIENCE = 0.55 * WAIT
TRIES = 3  # of which the best counts: the machine may do something else meanwhile


@dataclass(frozen=True)
class Rush:
    """What became of sixty requests: status (0: no answer in nine seconds) and seconds since each was sent.

    Also how long probes took, and for how long the machine ran others while the asked or the asking wanted to.
    """

    answers: list[tuple[int, float]]
    probes: list[float]
    withheld: float

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _ in self.answers)

    def seconds(self, status: int) -> list[float]:
        return sorted(seconds for found, seconds in self.answers if found == status)

    def faults(self, allowance: float = 0.0) -> list[str]:
        """Return what the issue demands and this rush does not hold, each limit with an allowance of seconds.

        The one in twenty that may be missing was admitted, and refused when it could not be in time any more.
        """
        fits = int((WAIT - MARGIN - allowance) / SECONDS)
        at_once = sum(seconds <= AT_ONCE + allowance for seconds in self.seconds(503))
        demands = {
            f"{fits} fit": self.statuses[200] >= 0.95 * fits,
            "in time": self.statuses[0] == 0,
            "refused at once": at_once >= len(self.answers) - int((WAIT - MARGIN) / SECONDS),
            "alive": max(self.probes) <= AT_ONCE + allowance,
        }
        return [name for name, holds in demands.items() if not holds]

    def __str__(self) -> str:
        last, refused = max(self.seconds(200), default=0.0), [seconds * 1e3 for seconds in self.seconds(503)[-2:]]
        return (
            f"{dict(self.statuses)}; the last prediction after {last:.2f} s, the last refusals after "
            f"{' and '.join(f'{one:.0f}' for one in refused)} ms; /healthz: longest {max(self.probes) * 1e3:.0f} ms; "
            f"the machine withheld {self.withheld * 1e3:.0f} ms"
        )


def rush(pid: int, port: int, requests: Sequence[Signed], probed: str, *, frozen: bool = False) -> Rush:
    """Send all requests at once, on connections that are open already, and look meanwhile whether the process lives.

    `frozen`: the process stands still until they are all sent, however long a busy machine takes for that.
    """
    over, probes, answers = threading.Event(), list[float](), list[tuple[int, float]]()

    def probe() -> None:
        with httpx.Client(timeout=PROBE_PATIENCE, trust_env=False) as http:
            while not over.wait(PROBE_SECONDS):
                started = time.perf_counter()
                with contextlib.suppress(httpx.TimeoutException):  # which took its time too
                    http.get(probed).raise_for_status()
                probes.append(time.perf_counter() - started)

    with ExitStack() as stack, ThreadPoolExecutor(1) as pool, selectors.DefaultSelector() as waiting:
        raws = [stack.enter_context(RawRequest("127.0.0.1", port, request)) for request in requests]
        probing, before = pool.submit(probe), withheld(pid)
        if frozen:
            os.kill(pid, signal.SIGSTOP)
        for raw in raws:
            waiting.register(raw.socket, selectors.EVENT_READ, (raw, time.perf_counter()))
            raw.send_all()
        if frozen:
            os.kill(pid, signal.SIGCONT)
        while keys := waiting.get_map():
            until = min(key.data[1] for key in keys.values()) + WAIT
            found = waiting.select(max(0.0, until - time.perf_counter()))
            now = time.perf_counter()
            for key, _ in found:
                raw, sent = waiting.unregister(key.fileobj).data
                answers.append((raw.answer().status_code, now - sent))
            for key in [key for key in keys.values() if now - key.data[1] >= WAIT]:
                waiting.unregister(key.fileobj)
                answers.append((0, WAIT))
        over.set()
        took = withheld(pid) - before
        probing.result()
    return Rush(answers, probes, took)


def withheld(pid: int) -> float:
    """Return the seconds in which a process's loop, or this thread, was ready to run and others ran, so far."""
    own = f"/proc/self/task/{threading.get_native_id()}/schedstat"
    return sum(int(Path(path).read_text().split()[1]) for path in (own, f"/proc/{pid}/schedstat")) / 1e9


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A miner with a slot of 300 ms and twelve validators of different stakes."""
    folder = tmp_path_factory.mktemp("sleepy")
    yaml = write_model(folder / "slow", seconds=SECONDS)
    settings = {"IMAGE_DETECTOR_CONFIG": yaml, "IMAGE_DETECTOR_BACKEND": "sleeping", "INFERENCE_SLOTS": 1}
    daemon = Daemon(folder, settings | {"INFERENCE_THREADS": 1, "DEADLINE_MARGIN_SECONDS": MARGIN})
    _ = daemon.keys
    wallets = [standalone.own_wallet(daemon.state, f"validator-{number}") for number in range(VALIDATORS)]
    entries = [f"  - {{hotkey: {wallet.hotkey.ss58_address}, stake: {10**n}}}" for n, wallet in enumerate(wallets)]
    (daemon.state / standalone.FILE).write_text("\n".join(["validators:", *entries, ""]), encoding="utf-8")
    try:
        yield daemon.start().ready()
        assert daemon.stop() == 0
    finally:
        daemon.close()


@contextlib.contextmanager
def reference() -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Serve as the reference does; yields the process and its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.process.reference", str(port)])
    try:
        eventually(lambda: _answers(port))
        yield process, port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_what_fits_is_answered_in_time_and_the_rest_refused_at_once(
    sleepy: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """What fits are the pictures of nine seconds less the margin, which is kept back for the answers' way."""
    wallets = [standalone.own_wallet(sleepy.state, f"validator-{number}") for number in range(VALIDATORS)]
    picture, status = photo(224, 224), f"http://127.0.0.1:{sleepy.status_port}/healthz"

    def everybody() -> list[Signed]:
        """Sign each request for a picture of its own: equal ones would be scored once."""
        return [
            sleepy.signer(wallet).sign(picture + bytes([number, each]), Door())
            for each in range(EACH)
            for number, wallet in enumerate(wallets)
        ]

    def rush_us() -> Rush:
        before = Counter(sleepy.outcomes())
        ours = rush(
            sleepy.pid,
            sleepy.port,
            everybody(),
            status,
        )
        eventually(lambda: sleepy.load() == (0, 0))
        assert set(ours.statuses) <= {0, 200, 503}
        outcomes = Counter(sleepy.outcomes()) - before
        assert set(outcomes) == {"ok", "refused"}
        assert outcomes["refused"] == ours.statuses[503]
        assert sleepy.metric("deadline_remaining_seconds_bucket", le="0.0") == 0
        return ours

    with reference() as (process, port), ThreadPoolExecutor(2) as pool:
        # Both sleep over their work, so neither takes the processor from the other.
        signed = everybody()
        us, them = (
            pool.submit(rush_us),
            pool.submit(rush, process.pid, port, signed, f"http://127.0.0.1:{port}/healthz", frozen=True),
        )
        tries, theirs = [us.result()], them.result()
    while (faults := tries[-1].faults()) and len(tries) < TRIES:
        tries.append(rush_us())
    with capsys.disabled():
        print(
            f"\n60 at once, a slot of {sleepy.metric('pace_seconds') * 1e3:.0f} ms: {'; again: '.join(map(str, tries))}"
        )
        print(f"the same with the work on the event loop: {theirs}")
    # A machine with other work: the limits hold for the time that it gave.
    assert not faults or any(not one.faults(one.withheld) for one in tries), faults

    assert theirs.statuses[200] <= 1
    assert max(theirs.probes) > WAIT / 2
