"""Daemons for tests: as few starts as there are different settings."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from detectors.models.manifest import NAME
from tests.models import photo
from tests.process.daemon import PATIENCE, Daemon
from tests.process.graphs import write_model
from tests.process.sleeper import HOLD_LOADING

MODEL = "starter.yaml"
SHIPPED = Path(__file__).resolve().parents[2] / "detectors" / "starter" / NAME
SLOW_SECONDS = 0.3

StartDaemon = Callable[..., Daemon]
Settings = dict[str, object]


def plain(colour: str, side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def street() -> bytes:
    return photo(640, 360)


@pytest.fixture(scope="session")
def white() -> bytes:
    """A picture that the moody miner works on for as long as a test likes (`Daemon.held`)."""
    return plain("white")


@pytest.fixture(scope="session")
def black() -> bytes:
    """A picture that the moody model has no number for."""
    return plain("black")


@pytest.fixture(scope="session")
def model() -> str:
    """The starter detector."""
    return MODEL


@pytest.fixture(scope="session")
def moody_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A quick model that has no number for a black picture."""
    return str(write_model(tmp_path_factory.mktemp("moody") / "moody"))


@pytest.fixture(scope="session")
def moods(moody_model: str) -> Settings:
    """Settings of a miner that works on a white picture for as long as a test holds it up."""
    return {"IMAGE_DETECTOR_CONFIG": moody_model, "IMAGE_DETECTOR_BACKEND": "sleeping"}


@pytest.fixture(scope="session")
def slowness(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a miner that takes its time for every picture."""
    yaml = write_model(tmp_path_factory.mktemp("slow") / "slow", seconds=SLOW_SECONDS)
    return {"IMAGE_DETECTOR_CONFIG": yaml, "IMAGE_DETECTOR_BACKEND": "sleeping"}


@pytest.fixture
def loading(moods: Settings, tmp_path: Path) -> Settings:
    """Settings of a miner that goes on loading its model until the file HOLD_LOADING is taken away."""
    (tmp_path / "loading").touch()
    return moods | {HOLD_LOADING: tmp_path / "loading"}


def go_on(loading: Settings) -> None:
    """Let a miner of these settings get ready."""
    Path(str(loading[HOLD_LOADING])).unlink()


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
    """A miner with little patience and small pockets, whose door is open to everybody."""
    open_door = {"BLACKLIST_FORCE_VALIDATOR_PERMIT": "false", "BLACKLIST_ALLOW_NON_REGISTERED": "true"}
    return keep_daemon(BODY_STALL_SECONDS=0.5, MAX_BODY_BYTES=100_000, **open_door).ready()


@pytest.fixture(scope="session")
def moody(keep_daemon: StartDaemon, moods: Settings) -> Daemon:
    """A miner that one picture keeps busy."""
    return keep_daemon(**moods, QUEUE_DEPTH=1, DEADLINE_CAP_SECONDS=PATIENCE).ready()
