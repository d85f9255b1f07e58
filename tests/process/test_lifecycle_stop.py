"""How a miner stops, and what it does under load until then."""

import contextlib
import signal
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from miner.axon.client import another
from miner.errors import MESSAGES
from tests.process.conftest import Settings, StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.wire import CHUNK, DOORS, Door, chunk

MEBIBYTE = 2**20
GROWTH = 20  # MiB
# A miner that says when it begins to import the SDK, and takes longer for it than until its next timer.
SLOW_SDK = """
import runpy, sys, time
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "bittensor":
            print("imports the SDK", file=sys.stderr, flush=True)
            time.sleep(3)
sys.meta_path.insert(0, Slow())
runpy.run_module("miner", run_name="__main__", alter_sys=True)
"""


def test_a_stop_lets_the_running_request_finish(
    start_daemon: StartDaemon, moods: Settings, white: bytes, street: bytes
) -> None:
    daemon = start_daemon(**moods, DRAIN_SECONDS=PATIENCE, DEADLINE_CAP_SECONDS=PATIENCE).ready()
    with ThreadPoolExecutor(2) as pool:
        with daemon.held():
            running = pool.submit(daemon.ask_patiently, white)
            eventually(lambda: daemon.metric("running"))
            waiting = pool.submit(daemon.ask_patiently, street)
            eventually(lambda: daemon.metric("queue_depth"))
            daemon.signal(signal.SIGTERM)
            eventually(lambda: daemon.status("/readyz") == 503)
            assert daemon.page("/readyz").json()["reason"] == "shutting down"
            for door in DOORS:
                assert message_of(daemon.ask(street, door), 503) == MESSAGES["draining"]
        probability_of(running.result())
        probability_of(waiting.result())
    assert daemon.wait() == 0
    assert "stopped" in daemon.log


def test_a_second_signal_ends_it_at_once(start_daemon: StartDaemon, moods: Settings, white: bytes) -> None:
    daemon = start_daemon(**moods, DRAIN_SECONDS=3600).ready()
    with daemon.held(), daemon.raw(daemon.validator.sign(white, Door())) as raw:
        raw.send_all()
        eventually(lambda: daemon.metric("running"))
        daemon.signal(signal.SIGTERM)
        eventually(lambda: "finishing 1" in daemon.log)
        daemon.signal(signal.SIGTERM)  # as a parent hands on what the process group had
        assert daemon.status("/healthz") == 200
        eventually(lambda: daemon.ended or daemon.signal(signal.SIGTERM))
        assert daemon.wait() == 128 + signal.SIGTERM
    assert "a second signal" in daemon.log


def test_a_stop_does_not_wait_for_ever(start_daemon: StartDaemon, moods: Settings, white: bytes) -> None:
    daemon = start_daemon(**moods, DRAIN_SECONDS=0.1).ready()
    with daemon.held(), daemon.raw(daemon.validator.sign(white, Door())) as raw:
        raw.send_all()
        eventually(lambda: daemon.metric("running"))
        assert daemon.stop() == 0
    assert "requests that still run" in daemon.log


def test_a_stop_takes_back_what_was_to_happen_after_the_start(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, {})
    daemon.command = (sys.executable, "-c", SLOW_SDK)
    with contextlib.closing(daemon):
        daemon.start().ready()
        eventually(lambda: "imports the SDK" in daemon.log)
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log


def test_connections_that_are_idle_or_owe_a_body_do_not_hold_up_a_stop(
    start_daemon: StartDaemon, street: bytes
) -> None:
    daemon = start_daemon(DRAIN_SECONDS=60, BODY_STALL_SECONDS=60).ready()
    with ExitStack() as stack:
        idle, refused, half, garbage = (
            [stack.enter_context(daemon.raw(daemon.validator.sign(street, Door("btauth")))) for _ in range(5)]
            for _ in range(4)
        )
        for raw in half:  # which claims to be a validator's, and is not proven before it is whole
            raw.send_head(length=10**6, and_then=b"{")
        for raw in refused:
            raw.signed = raw.signed.without("x-bittensor-hotkey")
            message_of(raw.send_head(length=10**6, and_then=b"{").answer(), 401)
        for raw in garbage:
            raw.socket.sendall(b"GARBAGE\r\n\r\n")
            message_of(raw.answer(), 400)
        probability_of(daemon.ask(street))
        assert daemon.stop() == 0
        assert {message_of(raw.answer(), 503) for raw in half} == {MESSAGES["draining"]}
    assert len(idle) == 5
    assert "ERROR" not in daemon.log


def test_of_a_burst_as_many_are_answered_as_can_be_in_time(
    start_daemon: StartDaemon, slowness: Settings, street: bytes
) -> None:
    daemon = start_daemon(**slowness, DEADLINE_MARGIN_SECONDS=3).ready()
    requests = [
        daemon.validator.sign(another(street, number), DOORS[number % 4], timeout="6.0") for number in range(50)
    ]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(daemon.post, requests))
    counts = Counter(answer.status_code for answer in answers)
    assert counts[200] + counts[503] == 50
    assert counts[200] > 1
    assert counts[503] > 1
    outcomes = daemon.outcomes()
    assert outcomes["ok"] == counts[200]
    assert outcomes["refused"] + outcomes["unproven"] == counts[503]
    assert daemon.metric("refusals_total") == outcomes["refused"]
    assert daemon.metric("stage_duration_seconds_count", stage="infer") == counts[200]
    # What is left of each caller's time at its answer: nobody was answered behind it.
    assert daemon.metric("deadline_remaining_seconds_count") == counts[200]
    assert daemon.metric("deadline_remaining_seconds_bucket", le="0.005") == 0
    assert daemon.load() == (0, 0)


def test_a_caller_that_hangs_up_costs_no_work(
    start_daemon: StartDaemon, moods: Settings, white: bytes, street: bytes
) -> None:
    daemon = start_daemon(**moods, DEADLINE_CAP_SECONDS=PATIENCE).ready()
    with ThreadPoolExecutor(1) as pool:
        with daemon.held():
            running = pool.submit(daemon.ask_patiently, white)
            eventually(lambda: daemon.metric("running"))
            waiting = [
                daemon.raw(
                    daemon.validator.sign(another(street, number), DOORS[number % 4], timeout=str(PATIENCE))
                ).send_all()
                for number in range(6)
            ]
            eventually(lambda: daemon.metric("queue_depth") == 6)
            for raw in waiting:
                raw.hang_up()
            eventually(lambda: daemon.outcomes().get("cancelled") == 6)
            assert daemon.load() == (1, 0)  # the one slot was never free for them
        probability_of(running.result())
    assert daemon.outcomes() == {"ok": 1, "cancelled": 6}
    assert daemon.metric("running") == 0


def test_a_caller_that_hangs_up_while_its_picture_is_worked_on_frees_the_slot_when_that_ends(
    moody: Daemon, white: bytes, street: bytes
) -> None:
    before = moody.outcomes().get("cancelled", 0)
    with moody.held():
        with moody.raw(moody.validator.sign(white, Door())) as raw:
            raw.send_all()
            eventually(lambda: moody.metric("running") == 1)
        eventually(lambda: moody.outcomes().get("cancelled") == before + 1)
        assert moody.metric("running") == 1
    eventually(lambda: moody.metric("running") == 0)
    probability_of(moody.ask(street))


def test_a_caller_that_hangs_up_in_its_body_gives_its_place_back(moody: Daemon, street: bytes) -> None:
    before = moody.outcomes().get("cancelled", 0)
    for number, door in enumerate(DOORS, start=1):
        with moody.raw(moody.validator.sign(street, door)) as raw:
            raw.send_head(length=10**6)
            raw.socket.sendall(b"{")
        eventually(lambda expected=before + number: moody.outcomes().get("cancelled") == expected)
    assert moody.metric("queue_depth") == 0
    probability_of(moody.ask(street))


def test_the_operators_port_answers_while_a_picture_is_worked_on(moody: Daemon, white: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        with moody.held():
            running = pool.submit(moody.ask_patiently, white)
            eventually(lambda: moody.metric("running"))
            for _ in range(5):
                assert moody.status("/healthz") == 200
                assert moody.status("/readyz") == 200
            assert moody.http.get("/nothing").status_code == 404
            assert moody.metric("running") == 1  # still: none of them was behind it
        probability_of(running.result())


@pytest.mark.parametrize("door", [Door(), Door("btauth", "/predict")], ids=["dendrite", "btauth"])
def test_endless_bodies_cost_little_memory(start_daemon: StartDaemon, door: Door, street: bytes) -> None:
    """Each may have its whole 2 MiB at once, as long as there is memory, and half of that for what it takes besides."""
    daemon = start_daemon(MAX_BODY_BYTES=2 * MEBIBYTE).ready()
    probability_of(daemon.ask(street))
    before = daemon.peak()
    with ExitStack() as stack:
        taken = [stack.enter_context(daemon.raw(daemon.validator.sign(b"", door))) for _ in range(40)]
        for raw in taken:
            raw.send_head().socket.sendall(b"7fffffff\r\n")
        while taken:
            taken = [raw for raw in taken if raw.takes_more()]
    probability_of(daemon.ask(street))
    assert daemon.peak() - before < 40 * 3


@pytest.mark.parametrize("part", ["target", "header name", "header value", "trailer"])
def test_endless_headers_cost_little_memory(miner: Daemon, street: bytes, part: str) -> None:
    probability_of(miner.ask(street))
    miner.forget_peak()
    before = miner.peak()
    start = {"target": b"POST /", "header name": b"POST / HTTP/1.1\r\n", "header value": b"POST / HTTP/1.1\r\nname: "}
    with miner.raw(miner.validator.sign(street, Door("btauth"))) as raw:
        if part == "trailer":
            raw.send_head(and_then=chunk(b"{") + b"0\r\nname: ")
        else:
            raw.socket.sendall(start[part])
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MEBIBYTE and raw.takes_more(b"x"):
                sent += CHUNK
    probability_of(miner.ask(street))
    assert miner.peak() - before < GROWTH
