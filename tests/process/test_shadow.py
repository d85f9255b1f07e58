"""A second model on live requests."""

import subprocess
import sys

import psutil

from miner.feedback.traffic import SHADOW, read_traffic
from miner.recorder import FOLDER
from miner.shadow.shadow import MAX_WAITING
from tests.models import photo
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import probability_of


def shadow_of(daemon: Daemon) -> psutil.Process | None:
    found = [one for one in psutil.Process(daemon.pid).children() if "miner.shadow.worker" in one.cmdline()]
    return found[0] if found else None


def test_a_second_model_sees_what_was_answered_and_its_end_is_not_the_miners(
    start_daemon: StartDaemon, moody_model: str
) -> None:
    daemon = start_daemon(SHADOW_DETECTOR_CONFIG=moody_model, SHADOW_SAMPLE=1, RECORDER="images").ready()
    eventually(lambda: daemon.metric("shadow_up") == 1)
    for seed in range(MAX_WAITING):
        probability_of(daemon.ask(photo(64, 64, seed=seed)))
    eventually(lambda: daemon.metric("shadow_compared_total") == MAX_WAITING)
    assert daemon.metric("shadow_prediction_count") == MAX_WAITING
    assert daemon.metric("shadow_cpu_seconds_count") == MAX_WAITING
    shown = subprocess.run(
        [sys.executable, "-m", "miner", "top", "--once"], env=daemon.environment | {"COLUMNS": "120"},
        capture_output=True, text=True, timeout=PATIENCE,
    ).stdout  # fmt: skip
    assert "Shadow" in shown
    assert "moody@by-hand" in shown
    assert "agreement" in shown
    assert "shadow predictions" in shown
    overview = daemon.page("/status").json()["shadow"]
    assert sum(overview["tenths"]) == sum(overview["tenths_served"]) == MAX_WAITING

    # What it says lies beside the requests, for the operator's labels.
    eventually(lambda: daemon.metric("recorder_records_total") == 2 * MAX_WAITING)
    traffic = read_traffic(daemon.state / FOLDER)
    assert len(traffic) == MAX_WAITING
    assert all(one.opinions.keys() == {SHADOW} and one.prediction is not None for one in traffic.values())
    assert sum(one.is_disputed for one in traffic.values()) == daemon.metric("shadow_compared_total", side="different")

    shadow = shadow_of(daemon)
    assert shadow is not None
    shadow.kill()
    eventually(lambda: daemon.metric("shadow_up") == 0)
    probability_of(daemon.ask(photo(64, 64)))
    eventually(lambda: "does not run" in daemon.log)
    assert daemon.stop() == 0
    assert not shadow.is_running()
