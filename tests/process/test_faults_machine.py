"""What a machine runs out of: memory, file descriptors, disks. Each for real."""

import contextlib
import resource
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from miner.errors import MESSAGES
from tests.process.conftest import StartDaemon, plain
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.limits import fill, memory_group, small_disk
from tests.process.wire import DOORS, Door

MEBIBYTE = 2**20


def prepared(start_doomed: StartDaemon, **settings: object) -> Daemon:
    """Return a daemon that was ready once and has stopped: its keys and files are there."""
    daemon = start_doomed(**settings).ready()
    assert daemon.stop() == 0
    return daemon


def test_where_memory_is_short_requests_are_refused_before_the_kernel_kills(
    start_doomed: StartDaemon, street: bytes
) -> None:
    with memory_group(640 * MEBIBYTE) as group:
        daemon = prepared(start_doomed)
        daemon.prefix = group.prefix
        daemon.start().ready().settled(street)
        try:
            probability_of(daemon.ask(street))
            with group.neighbour(group.left - 20 * MEBIBYTE):  # of 640, 32 are kept free
                eventually(lambda: daemon.status("/readyz") == 503)
                assert daemon.page("/readyz").json()["reason"].startswith("memory is short: ")
                for door in DOORS:
                    assert message_of(daemon.ask(street, door), 503) == MESSAGES["memory"]
                assert (
                    daemon.metric("refusals_total", reason="memory") == len(DOORS) / 2
                )  # the others had proven nothing
                eventually(lambda: "not ready (memory is short: " in daemon.log)
            eventually(lambda: daemon.status("/readyz") == 200)
            probability_of(daemon.ask(street))
            assert daemon.stop() == 0
        finally:
            daemon.close()


def test_a_picture_that_there_is_no_memory_for_costs_only_its_own_answer(
    start_doomed: StartDaemon, street: bytes
) -> None:
    daemon = start_doomed().ready()
    before = probability_of(daemon.ask(street))
    process = psutil.Process(daemon.pid)
    limits = process.rlimit(resource.RLIMIT_AS)
    process.rlimit(resource.RLIMIT_AS, (process.memory_info().vms + 24 * MEBIBYTE, limits[1]))
    answer = daemon.ask(plain("green", 4900))  # small on its way, 72 MB of pixels
    assert "too large" in message_of(answer, 422)
    assert daemon.status("/healthz") == 200
    process.rlimit(resource.RLIMIT_AS, limits)
    eventually(lambda: daemon.metric("running") == 0)
    assert probability_of(daemon.ask(street)) == before
    assert daemon.stop() == 0


def test_without_a_file_descriptor_left_nothing_spins_and_it_recovers(start_doomed: StartDaemon, street: bytes) -> None:
    daemon = start_doomed().ready()
    probability_of(daemon.ask(street))
    process = psutil.Process(daemon.pid)
    few = process.num_fds() + 10
    process.rlimit(resource.RLIMIT_NOFILE, (few, few))
    with ExitStack() as stack:
        for _ in range(60):
            with contextlib.suppress(OSError):
                stack.enter_context(daemon.raw(daemon.validator.sign(street, Door())))
        before = sum(process.cpu_times()[:2])
        time.sleep(3)
        assert sum(process.cpu_times()[:2]) - before < 1.5
        assert process.num_fds() <= few
    eventually(lambda: daemon.status("/healthz") == 200)
    for door in DOORS:
        probability_of(daemon.ask(street, door))
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


def test_a_full_log_disk_costs_lines_and_nothing_else(start_doomed: StartDaemon, tmp_path: Path, street: bytes) -> None:
    daemon = prepared(start_doomed, LOG_LEVEL="DEBUG")
    with small_disk(tmp_path / "log", 64) as disk:
        daemon.log_file = disk / "stderr.txt"
        everything = fill(disk)
        daemon.start().ready()
        for door in DOORS * 3:
            probability_of(daemon.ask(street, door))
        assert daemon.log == ""
        everything.unlink()
        probability_of(daemon.ask(street))
        eventually(lambda: "dendrite" in daemon.log)
        fill(disk)
        probability_of(daemon.ask(street))
        assert daemon.stop() == 0


def test_a_full_state_disk_keeps_no_miner_with_keys_from_serving(
    start_doomed: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    daemon = prepared(start_doomed)
    with small_disk(tmp_path / "state", 256) as disk:
        shutil.copytree(daemon.state, disk / "own")
        daemon.settings["STATE_DIR"] = disk / "own"
        fill(disk)
        daemon.start().ready()
        probability_of(daemon.ask(street))
        assert daemon.stop() == 0


@pytest.mark.parametrize("content", ["nothing", "a key"])
def test_a_state_disk_too_full_for_the_first_start_is_named(
    start_doomed: StartDaemon, tmp_path: Path, content: str
) -> None:
    daemon = prepared(start_doomed)
    with small_disk(tmp_path / "state", 64) as disk:
        (disk / "own").mkdir()
        if content == "a key":
            shutil.copytree(daemon.state / "wallets", disk / "own" / "wallets")
        daemon.settings["STATE_DIR"] = disk / "own"
        fill(disk)
        done = run(daemon)
    assert done.returncode == 3, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert str(disk / "own") in line
    assert "Traceback" not in done.stderr


def test_a_full_models_disk_is_no_reason_not_to_serve(start_doomed: StartDaemon, tmp_path: Path, street: bytes) -> None:
    """The optimised graph is not kept then."""
    daemon = prepared(start_doomed)
    with small_disk(tmp_path / "models", 256) as disk:
        fill(disk)
        daemon.settings["MODELS_DIR"] = disk / "models"
        daemon.start().ready()
        probability_of(daemon.ask(street))
        assert daemon.stop() == 0


def run(daemon: Daemon) -> "subprocess.CompletedProcess[str]":
    """Run a daemon that is not expected to get far."""
    return subprocess.run(
        [*daemon.command, "run"], env=daemon.environment, capture_output=True, text=True, timeout=PATIENCE
    )
