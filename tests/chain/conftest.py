import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import bittensor
import pytest
from bittensor.keyfiles import Keypair

from miner.chain.client import ChainClient
from miner.chain.publication import PublicAddress
from miner.chain.subtensor import SubtensorChain
from miner.chain.sync import SubnetReader
from tests.chain.golden import golden
from tests.chain.node import Node

NETUID = 323
PATIENCE = 60.0  # seconds; generous, since nothing here measures time


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Let a test be a coroutine: it gets a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the miner, which sets no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def impatient(chain: SubtensorChain, seconds: float = 0.5) -> AsyncIterator[None]:
    """Let each call take no longer, for a fault that is planted; a busy machine takes longer to connect."""
    before, chain.reader._call_seconds = chain.reader._call_seconds, seconds
    reads = chain.syncs + chain.failures
    await eventually(lambda: chain.syncs + chain.failures >= reads + 2)  # one may have begun before
    yield
    chain.reader._call_seconds = before


@asynccontextmanager
async def asking(node: Node, folder: Path) -> AsyncIterator[Callable[[Callable[..., Awaitable[Any]]], Awaitable[Any]]]:
    """Connect to a node, for questions."""
    client = ChainClient(node.url, folder)
    try:
        yield partial(client.call, seconds=PATIENCE)
    finally:
        await client.close()


def key(number: int) -> Keypair:
    return Keypair.create_from_seed(number.to_bytes(32, "big"), 1)


@pytest.fixture(scope="session")
def metadata() -> dict[str, Any]:
    return golden()


@pytest.fixture(autouse=True)
def _sdk_writes_nothing_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "sdk"
    monkeypatch.setenv("BITTENSOR_RUNTIME_CACHE_DIR", str(folder))
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(folder / "token-symbols.json"))


@pytest.fixture
def node(metadata: dict[str, Any]) -> Iterator[Node]:
    """A running node with a subnet of one validator."""
    node = Node(metadata, netuid=NETUID)
    node.register(0, key(1000).ss58_address, stake=5000.5, permit=True)
    node.start()
    yield node
    if node.listens:
        node.stop()


@pytest.fixture
def wallet(tmp_path: Path) -> bittensor.Wallet:
    wallet = bittensor.Wallet("miner", "hot", str(tmp_path / "wallets"))
    wallet._set_hotkey(key(1), False, True, False, None)
    return wallet


@pytest.fixture
def chain_of(wallet: bittensor.Wallet, tmp_path: Path) -> Callable[..., SubtensorChain]:
    """Make a chain that reads twenty times a second; two of them share the state folder."""

    def make(address: str, axon: PublicAddress | None = None, **rest: Any) -> SubtensorChain:
        options = {"sync_seconds": 0.05, "call_seconds": 30.0} | rest
        monotonic = options.pop("monotonic", time.monotonic)
        reader = SubnetReader(address, NETUID, tmp_path / "state", monotonic=monotonic, **options)
        return SubtensorChain(reader, wallet, axon, monotonic)

    return make
