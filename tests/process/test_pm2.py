"""pm2 as an operator calls it, with the shipped file: `npm install -g pm2`."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.graphs import rounds_a_second, write_model
from tests.process.inspection import probability_of
from tests.process.pm2 import NAME, Pm2, under_pm2

SECONDS_OF_WHITE = 3.0  # longer than the 1.6 s that pm2 waits unless told otherwise


@pytest.fixture
def pm2(tmp_path: Path) -> Iterator[Pm2]:
    rounds = int(rounds_a_second(tmp_path / "pace") * SECONDS_OF_WHITE)
    config = write_model(tmp_path / "slow", rounds_on_white=rounds)
    settings = {"SUBTENSOR_NETWORK": "standalone", "IMAGE_DETECTOR_CONFIG": config}
    daemon = Daemon(tmp_path, settings | {"DEADLINE_CAP_SECONDS": PATIENCE, "DRAIN_SECONDS": 45})
    _ = daemon.keys
    (tmp_path / "miner.env").write_text("".join(f"{key}={value}\n" for key, value in daemon.settings.items()))
    with under_pm2(daemon) as manager:
        yield manager


@pytest.mark.parametrize("verb", ["stop", "reload"])
def test_the_running_request_is_finished(pm2: Pm2, verb: str, white: bytes) -> None:
    pm2.ready()
    before = int(pm2.entry["pid"])
    with ThreadPoolExecutor() as pool:
        running = pool.submit(pm2.daemon.ask_patiently, white)
        eventually(lambda: pm2.daemon.metric("running"))
        pm2.call(verb, NAME)
        probability_of(running.result())
    assert pm2.exit_code == 0
    assert "finishing 1" in pm2.log_file.read_text()
    if verb == "reload":
        pm2.ready()
        assert int(pm2.entry["pid"]) not in (0, before)


def test_a_killed_miner_is_started_again(pm2: Pm2, street: bytes) -> None:
    pm2.ready()
    os.kill(int(pm2.entry["pid"]), signal.SIGKILL)
    eventually(lambda: pm2.restarts == 1)
    pm2.ready()
    probability_of(pm2.daemon.ask_patiently(street))


def test_wrong_settings_are_not_tried_again(pm2: Pm2) -> None:
    pm2.ready()
    with pm2.env_file.open("a") as file:
        file.write("NETUID=hello\n")
    pm2.call("restart", NAME)
    eventually(lambda: pm2.exit_code == 2)
    assert "NETUID=hello" in pm2.log_file.read_text()
    # pm2 plans a restart in its first line about the exit, if at all, and says so; here it never makes one.
    before = pm2.restarts
    log = pm2.log_file.parent.parent / "pm2.log"
    eventually(lambda: "exited with code [2]" in log.read_text())
    assert pm2.entry["pid"] == 0
    assert pm2.restarts == before
