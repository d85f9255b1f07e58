"""A booted machine with nothing of ours on it; only `make test-service` collects these tests."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import photo
from tests.process.conftest import plain
from tests.process.graphs import rounds_a_second, write_model
from tests.service.machine import Machine
from tests.service.rootfs import unpack_rootfs, wheelhouse

collect_ignore_glob = [] if os.environ.get("ROADWORK_TEST_SERVICE") else ["test_*.py"]

DRAIN_SECONDS_OF_WHITE = 3.0
FOREVER = 10**12  # rounds


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the machine sees as /shared: photos, and models that one of them keeps busy."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "street.jpg").write_bytes(photo(640, 360))
    (folder / "white.png").write_bytes(plain("white"))
    pace = rounds_a_second(tmp_path_factory.mktemp("pace") / "model")
    write_model(folder / "slow-on-white", rounds_on_white=int(pace * DRAIN_SECONDS_OF_WHITE))
    write_model(folder / "hanging-on-white", rounds_on_white=FOREVER)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Machine]:
    missing = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.fail(
            f"root is needed, and {', '.join(missing) or 'nothing else'}: apt-get install debootstrap systemd-container"
        )
    root = tmp_path_factory.mktemp("machine") / "root"
    python = unpack_rootfs(root)
    with Machine(root, shared, wheelhouse(python)) as machine:
        yield machine
    shutil.rmtree(root)
