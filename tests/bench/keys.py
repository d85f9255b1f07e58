"""What more hotkeys cost: memory of one process that serves them all, and of one process for each. `make bench-keys`.

    python -m tests.bench.keys [--keys 1 3 10] [--processes 3] [--requests 300] [--env-file miner.env] [--json]

Without a chain, with the configured model (the starter). RSS counts what processes share once for each of them; PSS
shares it out among all that run on the machine, those of others too.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from miner.axon.client import Client
from miner.bench.daemon import HOST, MinerProcess
from miner.bench.subject import made_jpeg
from miner.chain.standalone import own_wallet
from miner.cli.common import end_in_order_on_sigterm, errors_told
from miner.errors import CouldNotStart
from miner.settings.settings import Settings, environment_of
from tests.bench.options import add_env_file, parser_of, print_figures, print_table

PAUSE = 0.05  # seconds between two tries for the first answer
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of all processes together, after every hotkey has answered."""

    hotkeys: int
    processes: int
    rss: float
    pss: float


def measure(hotkeys: int, processes: int, requests: int, environment: Mapping[str, str]) -> Cost:
    """Serve hotkeys from processes, the same number each, and ask `requests` times in turn.

    Raises:
        CouldNotStart: a process does not start, or a request is not answered.
    """
    with ExitStack() as stack:
        miners: list[MinerProcess] = []
        clients: list[tuple[MinerProcess, Client]] = []
        for _ in range(processes):
            state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            miner = stack.enter_context(MinerProcess(state, [], environment, hotkeys // processes))
            miners.append(miner)
            for name, port in miner.ports.items():
                receiver = own_wallet(state, f"miner-{name}").hotkey.ss58_address
                clients.append((miner, Client(miner.validator, receiver, f"http://{HOST}:{port}")))
        for miner in miners:
            for port in miner.ports.values():
                miner.wait_until_it_listens(port)  # a request signed before it listens is older than the process
        asyncio.run(_ask(clients, requests))
        sizes = [miner.sizes() for miner in miners]
        return Cost(hotkeys, processes, sum(rss for rss, _ in sizes), sum(pss for _, pss in sizes))


async def _ask(clients: Sequence[tuple[MinerProcess, Client]], requests: int) -> None:
    async with AsyncExitStack() as stack:
        for _, client in clients:
            await stack.enter_async_context(client)
        await _ask_in_turn(clients, requests)


async def _ask_in_turn(clients: Sequence[tuple[MinerProcess, Client]], requests: int) -> None:
    picture = made_jpeg(320, 240)
    for miner, client in clients:
        while (reply := await client.ask(picture)).prediction is None:
            if reply.status not in (0, 503):
                raise CouldNotStart(f"the daemon answers {reply.status}: {reply.message}")
            miner.check()
            await asyncio.sleep(PAUSE)
    for number in range(requests):
        _, client = clients[number % len(clients)]
        if (reply := await client.ask(picture)).prediction is None:
            raise CouldNotStart(f"a request was not answered: {reply.message}")


def show(costs: Sequence[Cost]) -> None:
    """Print the figures for people."""
    rows = [
        [str(cost.hotkeys), str(cost.processes), *(f"{size / MEGABYTE:.1f}" for size in sizes)]
        for cost in costs
        for sizes in [(cost.rss, cost.pss, cost.pss - costs[0].pss)]
    ]
    print_table(
        "Memory of several hotkeys", ("hotkeys", "processes", "RSS, MB", "PSS, MB", "PSS above the first, MB"), rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = parser_of("tests.bench.keys", __doc__)
    add_env_file(parser)
    parser.add_argument("--keys", type=int, nargs="*", default=[1, 3, 10], help="in one process")
    parser.add_argument("--processes", type=int, default=3, help="with a hotkey each; 0: none")
    parser.add_argument("--requests", type=int, default=300, help="before the memory is looked at")
    options = parser.parse_args(arguments)
    ways = [(keys, 1) for keys in options.keys] + (
        [(options.processes, options.processes)] if options.processes else []
    )
    end_in_order_on_sigterm()
    with errors_told():
        environment = environment_of(Settings.load(options.env_file))
        costs = [measure(keys, processes, options.requests, environment) for keys, processes in ways]
    print_figures(options.json, [asdict(cost) for cost in costs], lambda: show(costs))


if __name__ == "__main__":
    main()
