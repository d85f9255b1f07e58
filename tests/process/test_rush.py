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
PROBE_SECONDS = 0.05
PROBE_PATIENCE = 0.55 * WAIT
HUNG = 1000  # pictures: a probe that was not answered at all


@dataclass(frozen=True)
class Ended:
    """What became of a request: its status, 0 without an answer in nine seconds.

    Its age is in pictures: how many were answered between its sending and its end. A busy machine makes them slower,
    and everything else with them.
    """

    status: int
    age: int


@dataclass(frozen=True)
class Rush:
    """What became of sixty requests, and of probes meanwhile: the most pictures that were answered during one.

    `sent`: when the last request was on its way, by the performance counter.
    """

    requests: list[Ended]
    probes: list[int]
    sent: float

    @property
    def statuses(self) -> Counter[int]:
        return Counter(one.status for one in self.requests)

    def ages(self, status: int) -> list[int]:
        return [one.age for one in self.requests if one.status == status]


def rush(pid: int, port: int, requests: Sequence[Signed], probed: str, *, frozen: bool = False) -> Rush:
    """Send all requests at once, on connections that are open already, and look meanwhile whether the process lives.

    `frozen`: the process stands still until they are all sent, however long a busy machine takes for that.
    """
    over, answered, probes, ended = threading.Event(), Counter[int](), list[int](), list[Ended]()

    def probe() -> None:
        with httpx.Client(timeout=PROBE_PATIENCE, trust_env=False) as http:
            while not over.wait(PROBE_SECONDS):
                before = answered[200]
                try:
                    http.get(probed).raise_for_status()
                except httpx.TimeoutException:
                    probes.append(HUNG)
                else:
                    probes.append(answered[200] - before)

    with ExitStack() as stack, ThreadPoolExecutor(1) as pool, selectors.DefaultSelector() as waiting:
        raws = [stack.enter_context(RawRequest("127.0.0.1", port, request)) for request in requests]
        probing = pool.submit(probe)
        if frozen:
            os.kill(pid, signal.SIGSTOP)
        for raw in raws:
            waiting.register(raw.socket, selectors.EVENT_READ, (raw, time.perf_counter(), answered[200]))
            raw.send_all()
        sent = time.perf_counter()
        if frozen:
            os.kill(pid, signal.SIGCONT)
        while keys := waiting.get_map():
            until = min(key.data[1] for key in keys.values()) + WAIT
            found = waiting.select(max(0.0, until - time.perf_counter()))
            for key, _ in found:
                raw, _, before = waiting.unregister(key.fileobj).data
                status = raw.answer().status_code
                ended.append(Ended(status, answered[200] - before))
                answered[status] += 1
            for key in [key for key in keys.values() if time.perf_counter() - key.data[1] >= WAIT]:
                _, _, before = waiting.unregister(key.fileobj).data
                ended.append(Ended(0, answered[200] - before))
        over.set()
        probing.result()
    return Rush(ended, probes, sent)


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
    (daemon.state / standalone.CALLERS_FILE).write_text("\n".join(["validators:", *entries, ""]), encoding="utf-8")
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


def test_what_fits_is_answered_in_time_and_the_rest_refused_at_once(sleepy: Daemon) -> None:
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

    with reference() as (process, port), ThreadPoolExecutor(2) as pool:
        # Both sleep over their work, so neither takes the processor from the other.
        probed = f"http://127.0.0.1:{port}/healthz"
        them = pool.submit(rush, process.pid, port, everybody(), probed, frozen=True)
        began = time.perf_counter()
        us = pool.submit(rush, sleepy.pid, sleepy.port, everybody(), status)
        ours, theirs = us.result(), them.result()
    eventually(lambda: sleepy.load() == (0, 0))
    assert set(ours.statuses) == {200, 503}
    outcomes = Counter(sleepy.outcomes())
    assert set(outcomes) == {"ok", "refused"}
    assert outcomes["refused"] == ours.statuses[503]
    assert sleepy.metric("deadline_remaining_seconds_bucket", le="0.0") == 0
    # Those that do not fit are refused at once: within the picture in hand.
    most = int((WAIT - MARGIN) / SECONDS)
    admitted = len(ours.requests) - sum(age <= 1 for age in ours.ages(503))
    left = WAIT - MARGIN - (ours.sent - began)  # a deadline counts from the signature, and sixty take their time
    fits = int(left / max(SECONDS, sleepy.metric("pace_seconds")))
    assert 0.8 * fits <= admitted <= most
    # Of the others a machine with other work makes some late; they are refused when they can't be in time any more.
    assert ours.statuses[200] >= most / 2
    # Nor does whoever looks after the process wait for more.
    assert max(ours.probes) <= 1
    assert theirs.statuses[200] <= 1
    assert max(theirs.probes) == HUNG
