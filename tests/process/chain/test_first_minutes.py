"""From nothing to earning by the README's steps: published, registered with both, asked and paid."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hub import Hub
from tests.hub import serving as serving_hub
from tests.natix import Natix
from tests.natix import serving as serving_natix
from tests.process.chain.checkup import Prober, probing
from tests.process.chain.live_node import LiveNode
from tests.process.chain.newcomer import REPOSITORY, TOKEN, Newcomer, begin, earn
from tests.process.pm2 import NAME, under_pm2


@pytest.fixture
def newcomer(node: LiveNode, tmp_path: Path) -> Iterator[Newcomer]:
    with ExitStack() as stack:
        hub = stack.enter_context(serving_hub(Hub({}, repository=REPOSITORY, exists=False, token=TOKEN)))
        natix = stack.enter_context(serving_natix(Natix()))
        someone = Newcomer(tmp_path, node, hub, natix)
        stack.callback(someone.daemon.close)
        yield someone


@pytest.fixture
def prober() -> Iterator[Prober]:
    with probing() as prober:
        yield prober


def test_from_a_settings_file_to_the_first_pay(newcomer: Newcomer, prober: Prober, street: bytes) -> None:
    begin(newcomer, prober)
    newcomer.daemon.start()
    earn(newcomer, prober, street)
    assert newcomer.daemon.stop() == 0


def test_the_same_under_pm2(newcomer: Newcomer, prober: Prober, street: bytes) -> None:
    environment = newcomer.daemon.environment
    begin(newcomer, prober)
    with under_pm2(newcomer.daemon, environment) as pm2:
        earn(newcomer, prober, street)
        pm2.call("stop", NAME)
        assert pm2.exit_code == 0
