"""The first ten minutes in a container: each command is a container of its own, and so is the miner."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import Engine
from tests.container.test_image import CONFINED, USER
from tests.process.chain.live_node import healthy_node
from tests.process.chain.newcomer import Newcomer, arriving, begin, earn

pytestmark = pytest.mark.timeout(1800)


class BoxedNewcomer(Newcomer):
    """Whoever has the image, and shows it a folder of theirs."""

    def move_in(self, image: str) -> None:
        """Have each of our commands run in a container that shares the machine's network, where the chain is."""
        names = [*self.daemon.settings, "HF_TOKEN"]
        passed = [word for name in names for word in ("-e", name)]
        place = ("--network", "host", "-v", f"{self.folder}:{self.folder}", "-w", str(self.folder))
        self.daemon.command = ("podman", "run", "--rm", *CONFINED, *place, *passed, image)

    def call(self, *words: object, code: int = 0, **more: str) -> str:
        """Run a command, and see that the container's user may read what is new."""
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, USER, USER)
        return super().call(*words, code=code, **more)


@pytest.fixture
def newcomer(engine: Engine, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BoxedNewcomer]:
    for name in ("CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF"):
        monkeypatch.setenv(name, engine.environment[name])
    node = healthy_node()
    try:
        with arriving(BoxedNewcomer, tmp_path, node) as newcomer:
            _ = newcomer.daemon.keys
            newcomer.move_in(image)
            yield newcomer
    finally:
        node.stop()


def test_from_a_settings_file_to_the_first_pay(newcomer: BoxedNewcomer, street: bytes) -> None:
    begin(newcomer)
    newcomer.daemon.start()
    earn(newcomer, street)
    assert newcomer.daemon.stop() == 0
