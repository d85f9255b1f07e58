"""What serving needs installs, starts and answers on every Python that is promised."""

import shutil
from pathlib import Path

import pytest

from tests.process.daemon import Daemon
from tests.process.environments import REPOSITORY, environment, find_python, run
from tests.process.inspection import probability_of
from tests.process.wire import DOORS

PINS = REPOSITORY / "env" / "serve.txt"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build reads, copied so that it leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("miner", "detectors"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_serving_set_installs_starts_and_answers(
    version: str, sources: Path, tmp_path: Path, street: bytes, miner: Daemon
) -> None:
    interpreter = find_python(version)
    if interpreter is None:
        pytest.skip(f"there is no Python {version} on this machine")
    pins = ("-m", "pip", "install", "-q", "--require-hashes", "-r", str(PINS))
    python = environment(f"serve-{version}", interpreter, pins, salt=PINS.read_bytes())
    run(str(python), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(sources))
    daemon = Daemon(tmp_path, {"INFERENCE_THREADS": 1})
    daemon.command = (str(python.with_name("roadwork-miner")),)
    try:
        daemon.start().ready()
        for door in DOORS:
            assert probability_of(daemon.ask(street, door)) == pytest.approx(
                probability_of(miner.ask(street)), abs=1e-3
            )
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    finally:
        daemon.close()
