"""The image is built once; only `make test-container` collects these tests."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.base import PYTHON, archive
from tests.container.engine import COMPOSE, DOCKERFILE, Engine, missing_programs
from tests.models import photo
from tests.process.conftest import plain
from tests.process.environments import REPOSITORY
from tests.service.rootfs import wheelhouse

collect_ignore_glob = [] if os.environ.get("ROADWORK_TEST_CONTAINER") else ["test_*.py"]

IMAGE = "localhost/roadwork-miner"
PROMETHEUS, ALERTMANAGER = (f"docker.io/prom/{name}" for name in ("prometheus:v3.5.0", "alertmanager:v0.28.1"))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    missing = missing_programs()
    if missing or os.geteuid() != 0:
        wanted = " ".join(missing) or "nothing else"
        pytest.skip(f"root is needed, and {wanted}: apt-get install --no-install-recommends {wanted}")
    engine = Engine(Path(tempfile.mkdtemp(prefix="podman-")))
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The miner's image, built of the repository as it is."""
    engine.podman("import", str(archive("python", engine.folder)), PYTHON)
    python = PYTHON.partition(":")[2].partition("-")[0]
    (engine.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /mnt/wheels\n")
    offline = (f"{wheelhouse(python)}:/mnt/wheels:ro", f"{engine.folder}/pip.conf:/etc/pip.conf:ro")
    engine.build(DOCKERFILE, IMAGE, REPOSITORY, offline)
    return IMAGE


@pytest.fixture(scope="session")
def watchers(engine: Engine) -> None:
    """Debian's Prometheus and Alertmanager under the names that compose.yaml asks for."""
    engine.podman("import", str(archive("watch", engine.folder)), "localhost/watch")
    for name, program in ((PROMETHEUS, "prometheus"), (ALERTMANAGER, "prometheus-alertmanager")):
        assert name in COMPOSE.read_text(encoding="utf-8")
        file = engine.folder / "Dockerfile"
        file.write_text(
            "FROM localhost/watch\nRUN install -d -m 1777 /prometheus /alertmanager\nUSER 65534:65534\n"
            f'ENTRYPOINT ["{program}"]\n'
        )
        engine.build(file, name, engine.folder)


@pytest.fixture(scope="session")
def white() -> bytes:
    return plain("white")


@pytest.fixture(scope="session")
def street() -> bytes:
    return photo(640, 360)
