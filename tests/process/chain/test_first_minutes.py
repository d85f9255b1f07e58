"""From nothing to earning by the README's steps: published, registered with both, asked and paid."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.chain.live_node import LiveNode
from tests.process.chain.newcomer import Newcomer, arriving, begin, earn
from tests.process.pm2 import NAME, under_pm2


@pytest.fixture
def newcomer(node: LiveNode, tmp_path: Path) -> Iterator[Newcomer]:
    with arriving(Newcomer, tmp_path, node) as newcomer:
        yield newcomer


def test_from_a_settings_file_to_the_first_pay(newcomer: Newcomer, street: bytes) -> None:
    begin(newcomer)
    newcomer.daemon.start()
    earn(newcomer, street)
    assert newcomer.daemon.stop() == 0


def test_the_same_under_pm2(newcomer: Newcomer, street: bytes) -> None:
    environment = newcomer.daemon.environment
    begin(newcomer)
    with under_pm2(newcomer.daemon, environment) as pm2:
        earn(newcomer, street)
        pm2.call("stop", NAME)
        assert pm2.exit_code == 0
