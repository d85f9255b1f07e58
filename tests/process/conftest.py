"""Daemons for tests: as few starts as there are different settings."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from detectors.manifest import NAME
from tests.models import photo
from tests.process.daemon import PATIENCE, Daemon
from tests.process.graphs import rounds_a_second, write_model

MODEL = "starter.yaml"
SHIPPED = Path(__file__).resolve().parents[2] / "detectors" / "starter" / NAME
SLOW_SECONDS, PONDEROUS_SECONDS, WHITE_SECONDS = 0.3, 1.5, 5.0  # about; by the machine's pace

StartDaemon = Callable[..., Daemon]


def plain(colour: str, side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def street() -> bytes:
    return photo(640, 360)


@pytest.fixture(scope="session")
def white() -> bytes:
    """A picture that the moody model takes seconds for."""
    return plain("white")


@pytest.fixture(scope="session")
def black() -> bytes:
    """A picture that the moody model has no number for."""
    return plain("black")


@pytest.fixture(scope="session")
def pace(tmp_path_factory: pytest.TempPathFactory) -> float:
    return rounds_a_second(tmp_path_factory.mktemp("pace") / "model")


@pytest.fixture(scope="session")
def model() -> str:
    """The starter detector."""
    return MODEL


@pytest.fixture(scope="session")
def moody_model(tmp_path_factory: pytest.TempPathFactory, pace: float) -> str:
    """A quick model that takes seconds for a white picture and has no number for a black one."""
    folder = tmp_path_factory.mktemp("moody") / "moody"
    return str(write_model(folder, rounds_on_white=int(pace * WHITE_SECONDS)))


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory, pace: float) -> str:
    """A model that takes its time for every picture."""
    return str(write_model(tmp_path_factory.mktemp("slow") / "slow", rounds=int(pace * SLOW_SECONDS)))


@pytest.fixture(scope="session")
def ponderous_model(tmp_path_factory: pytest.TempPathFactory, pace: float) -> str:
    """A model that takes seconds to be verified."""
    return str(write_model(tmp_path_factory.mktemp("ponderous") / "ponderous", rounds=int(pace * PONDEROUS_SECONDS)))


@contextmanager
def daemons(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[StartDaemon]:
    """Start daemons, and see them end as they should."""
    started: list[Daemon] = []

    def start(**settings: object) -> Daemon:
        values = {"IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1} | settings
        started.append(Daemon(tmp_path_factory.mktemp("daemon"), values))
        return started[-1].start()

    try:
        yield start
        for daemon in started:
            if not daemon.ended:
                assert daemon.stop() == 0, daemon.log
            assert "Traceback" not in daemon.log, daemon.log
    finally:
        for daemon in started:
            daemon.close()


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[StartDaemon]:
    """Start daemons for one test."""
    with daemons(tmp_path_factory, model) as start:
        yield start


@pytest.fixture
def start_doomed(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[StartDaemon]:
    """Start daemons that may log a traceback and end badly."""
    started: list[Daemon] = []

    def start(**settings: object) -> Daemon:
        values = {"IMAGE_DETECTOR_CONFIG": model, "INFERENCE_THREADS": 1, "INFERENCE_SLOTS": 1} | settings
        started.append(Daemon(tmp_path_factory.mktemp("doomed"), values))
        return started[-1].start()

    yield start
    for daemon in started:
        daemon.close()


@pytest.fixture(scope="session")
def keep_daemon(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[StartDaemon]:
    """Start daemons for the whole session."""
    with daemons(tmp_path_factory, model) as start:
        yield start


@pytest.fixture(scope="session")
def miner(keep_daemon: StartDaemon) -> Daemon:
    """The miner as it comes."""
    return keep_daemon(MODEL_URL="https://huggingface.co/you/model").ready()


@pytest.fixture(scope="session")
def strict(keep_daemon: StartDaemon) -> Daemon:
    """A miner with little patience and small pockets."""
    return keep_daemon(BODY_STALL_SECONDS=0.5, MAX_BODY_BYTES=100_000).ready()


@pytest.fixture(scope="session")
def moody(keep_daemon: StartDaemon, moody_model: str) -> Daemon:
    """A miner that one picture keeps busy."""
    return keep_daemon(IMAGE_DETECTOR_CONFIG=moody_model, QUEUE_DEPTH=1, DEADLINE_CAP_SECONDS=PATIENCE).ready()
