"""A daemon under a supervisor: systemd's notify and watchdog protocol on a real socket."""

import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Settings, go_on
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.graphs import write_model
from tests.process.wire import Door

WATCHDOG = 2.0  # seconds; a beat every second
SILENCE = 2 * WATCHDOG  # in which there would be some
FOREVER = 10**12  # rounds


class Supervisor:
    """The socket that systemd would listen on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))

    def hears(self, wanted: str) -> str:
        """Wait for a message with this in it, and return it."""
        self._socket.settimeout(PATIENCE)
        while True:
            self.messages.append(self._socket.recv(2**16).decode())
            if wanted in self.messages[-1]:
                return self.messages[-1]

    def hears_for(self, seconds: float) -> list[str]:
        """Return what is said from now on."""
        self._socket.settimeout(0)
        self._receive_all()
        time.sleep(seconds)
        return self._receive_all()

    def _receive_all(self) -> list[str]:
        messages = []
        try:
            while True:
                messages.append(self._socket.recv(2**16).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


class Supervised(Daemon):
    """A daemon with a supervisor."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        super().__init__(folder, {"INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1} | settings)
        self.supervisor = Supervisor(folder)

    @property
    def environment(self) -> dict[str, str]:
        told = {"NOTIFY_SOCKET": str(self.supervisor.path), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
        return super().environment | told

    def close(self) -> None:
        super().close()
        self.supervisor.close()


StartSupervised = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path, model: str) -> Iterator[StartSupervised]:
    started: list[Supervised] = []

    def start(**settings: object) -> Supervised:
        started.append(Supervised(tmp_path, {"IMAGE_DETECTOR_CONFIG": model} | settings))
        started[-1].start()
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


def test_ready_after_the_warm_up_then_beats_then_stopping(start: StartSupervised, loading: Settings) -> None:
    daemon = start(**loading)
    supervisor = daemon.supervisor
    supervisor.hears("STATUS=loading the model")
    go_on(loading)

    ready = supervisor.hears("READY=1")
    assert daemon.status("/readyz") == 200
    assert daemon.metric("model_warmup_seconds") > 0
    before = supervisor.messages[:-1]
    assert "STATUS=loading the model" in before
    assert all(message.startswith(("STATUS=", "WATCHDOG=1")) for message in before)
    first, second = ready.splitlines()
    assert first == "READY=1"
    assert second.startswith("STATUS=ready: port 127.0.0.1:")

    for _ in range(3):  # nobody asks: the known picture is the proof
        supervisor.hears("WATCHDOG=1")
    assert daemon.outcomes() == {}

    daemon.signal(signal.SIGTERM)
    assert supervisor.hears("STOPPING=1") == "STOPPING=1\nSTATUS=shutting down"
    assert daemon.wait() == 0, daemon.log
    assert supervisor.hears_for(0) == []


def test_no_beat_from_a_process_that_does_not_turn(start: StartSupervised) -> None:
    daemon = start()
    daemon.supervisor.hears("READY=1")
    daemon.supervisor.hears("WATCHDOG=1")
    daemon.signal(signal.SIGSTOP)
    assert daemon.supervisor.hears_for(SILENCE) == []
    daemon.signal(signal.SIGCONT)
    daemon.supervisor.hears("WATCHDOG=1")
    assert daemon.stop() == 0, daemon.log


def test_no_beat_from_a_loop_that_turns_around_an_inference_that_hangs(
    start: StartSupervised, tmp_path: Path, white: bytes
) -> None:
    """The model takes for ever over a white picture, and only over that."""
    hanging = write_model(tmp_path / "hanging", rounds_on_white=FOREVER)
    daemon = start(IMAGE_DETECTOR_CONFIG=hanging, DRAIN_SECONDS=0.1).ready()
    daemon.supervisor.hears("WATCHDOG=1")
    with daemon.raw(daemon.validator.sign(white, Door())) as request:
        request.send_all()
        eventually(lambda: daemon.metric("running") == 1)
        daemon.supervisor.hears_for(WATCHDOG)  # a beat may be on its way
        assert daemon.supervisor.hears_for(SILENCE) == []
        assert daemon.status("/healthz") == 200


def test_a_detector_that_answers_wrongly_is_not_ready_and_no_reason_to_restart(
    start: StartSupervised, moods: Settings, street: bytes
) -> None:
    """Nobody asks: the known picture tells, before a validator is answered wrongly."""
    daemon = start(**moods).ready()
    daemon.supervisor.hears("WATCHDOG=1")
    with daemon.mood("swapped"):
        said = daemon.supervisor.hears("STATUS=not ready")
        assert re.search("self-test: .* moody answers ", said)
        answer = daemon.page("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, said.partition("(")[2].partition("): ")[0])
        assert daemon.ask(street).status_code == 503
        for _ in range(2):
            daemon.supervisor.hears("WATCHDOG=1")
    assert daemon.stop() == 0, daemon.log


def test_a_supervisor_that_went_away_is_no_reason_to_stop(start: StartSupervised, street: bytes) -> None:
    daemon = start().ready()
    daemon.supervisor.hears("READY=1")
    daemon.supervisor.path.unlink()
    eventually(lambda: "be told WATCHDOG" in daemon.log)
    assert daemon.ask(street).status_code == 200
    assert daemon.stop() == 0, daemon.log


def test_without_a_supervisor_there_is_nobody_to_tell(miner: Daemon) -> None:
    assert "systemd" not in miner.log
