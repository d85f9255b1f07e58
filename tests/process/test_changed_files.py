"""The model's files changed in place while it serves: not ready, said, never a process that dies without a word."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from detectors.models import MODEL_FILE
from miner.errors import MESSAGES
from tests.process.conftest import StartDaemon
from tests.process.daemon import Daemon, eventually
from tests.process.graphs import write_model
from tests.process.inspection import message_of, probability_of

CHANGED = "changed while it"


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(os.urandom(size))


def cut(path: Path) -> None:
    os.truncate(path, 0)


def reason_of(daemon: Daemon) -> str:
    return str(daemon.page("/readyz").json()["reason"])


@pytest.mark.parametrize("damage", [overwrite, cut])
def test_a_mapped_file_that_is_changed_is_read_no_more_and_mended_if_it_can_be(
    start_doomed: StartDaemon, tmp_path: Path, street: bytes, damage: Callable[[Path], None]
) -> None:
    """The optimised graph is ours: it is made again. The graph that it is made from is not."""
    yaml = write_model(tmp_path / "model")
    daemon = start_doomed(IMAGE_DETECTOR_CONFIG=yaml).ready()
    before = probability_of(daemon.ask(street))
    (mapped,) = (tmp_path / "model" / "optimized").glob(f"*/{MODEL_FILE}.data")
    damage(mapped)
    eventually(lambda: CHANGED in reason_of(daemon))
    assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
    assert str(mapped) in daemon.log
    assert daemon.status("/healthz") == 200
    eventually(lambda: daemon.status("/readyz") == 200)
    assert probability_of(daemon.ask(street)) == before
    damage(tmp_path / "model" / MODEL_FILE)
    (mapped,) = (tmp_path / "model" / "optimized").glob(f"*/{MODEL_FILE}.data")
    damage(mapped)
    eventually(lambda: daemon.metric("model_reloads_total", result="failed") == 1)
    assert CHANGED in reason_of(daemon)
    assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
    assert "match its sum" in daemon.page("/status").json()["reload"]["text"]
    assert daemon.stop() == 0


def test_a_process_that_dies_of_a_mapped_file_says_so(start_doomed: StartDaemon, model: str) -> None:
    """Where there are no leases, as for another user's file."""
    daemon = start_doomed(IMAGE_DETECTOR_CONFIG=model).ready()
    daemon.signal(signal.SIGBUS)
    assert daemon.wait() == -signal.SIGBUS
    assert "Bus error" in daemon.log
