"""What shadowing costs live requests: two daemons in turn, one with a shadow and one without. `make bench-shadow`.

    python -m tests.bench.shadow [--env-file FILE] [--rounds 10] [--requests 60] [--at-once 4] [--json]

In each round both are asked at full load (`at-once` callers who ask again and again), and at half of it with pauses as
they fall, which is when a shadow finds idle time; the one without before the other and after it, so that the machine's
own noise shows. Between two turns the shadow works off what it has.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from miner.axon.client import Client, Reply, another
from miner.bench.daemon import MinerProcess
from miner.bench.run import percentiles
from miner.bench.subject import made_jpeg
from miner.cli.common import end_in_order_on_sigterm, errors_told
from miner.errors import CouldNotStart
from miner.settings.settings import Settings, environment_of
from tests.bench.options import add_env_file, parser_of, print_figures, print_table

TIMEOUT = 9.0
PATIENCE = 120.0  # seconds until the shadow is loaded
SETTLED = 0.5  # seconds without another picture scored
HALF = 0.5  # of the requests that would keep the miner busy all the time
LOADS = ("full load", "half load")
COMPARED = "roadwork_miner_shadow_compared_total"


@dataclass(frozen=True, slots=True)
class Cost:
    """One load: p50 and p95 without and with a shadow over all rounds, seconds.

    Attributes:
        requests: of each turn, in all rounds.
        noise: change of the p95 from the turns before to those after, both without a shadow.
        scored: pictures, by the shadow, during and after this load.
    """

    load: str
    requests: int
    p50_without: float
    p50_with: float
    p95_without: float
    p95_with: float
    change: float  # of the p95
    noise: float
    scored: int


def measure(settings: Settings, rounds: int, requests: int, at_once: int) -> list[Cost]:
    """Start both daemons and ask them in turn.

    Raises:
        CouldNotStart: a daemon or the shadow does not start.
    """
    config = settings.shadow_detector_config or settings.detector_config
    shadow = [f"SHADOW_DETECTOR_CONFIG={config}", "SHADOW_SAMPLE=1"]
    environment = environment_of(settings)
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        _miner(one, ["SHADOW_DETECTOR_CONFIG="], environment) as without,
        _miner(other, shadow, environment) as with_,
    ):
        for miner in (without, with_):
            miner.wait_until_it_listens()
        _wait_for_the_shadow(with_)
        return asyncio.run(_in_turn(without, with_, rounds, requests, at_once))


def _miner(folder: str, assignments: Sequence[str], environment: Mapping[str, str]) -> MinerProcess:
    mine = [*assignments, "RECORDER=off", "QUEUE_DEPTH=512", "QUEUE_SHARE=1"]
    return MinerProcess(Path(folder), mine, environment)


def _wait_for_the_shadow(miner: MinerProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while not miner.total("roadwork_miner_shadow_up"):
        miner.check()
        if time.monotonic() > deadline:
            raise CouldNotStart(f"the shadow is not loaded after {PATIENCE:.0f} s")
        time.sleep(SETTLED)


async def _in_turn(without: MinerProcess, with_: MinerProcess, rounds: int, requests: int, at_once: int) -> list[Cost]:
    picture, random = made_jpeg(224, 224), np.random.default_rng(0)
    turns = {"before": without, "with": with_, "after": without}
    seconds: dict[tuple[str, str], list[float]] = {(load, turn): [] for load in LOADS for turn in turns}
    scored = dict.fromkeys(LOADS, 0.0)
    for number in track(range(rounds + 1), "rounds", console=Console(file=sys.stderr), transient=True):
        gaps = random.exponential(size=requests)  # the same pauses for all
        pace = 0.0
        for load in LOADS:
            for turn, miner in turns.items():
                before = miner.total(COMPARED)
                async with Client(miner.validator, miner.hotkey, miner.address, timeout=TIMEOUT) as client:
                    pace = pace or await _pace(client, picture)
                    pauses = (gaps * pace / HALF).tolist() if load == LOADS[1] else None
                    replies = await _ask(client, picture, requests, at_once, pauses)
                if number:  # the first warms up
                    seconds[load, turn] += [reply.seconds for reply in replies]
                if miner is with_:
                    await asyncio.to_thread(_settle, miner)
                    scored[load] += miner.total(COMPARED) - before
    return [
        _cost(load, seconds[load, "before"], seconds[load, "with"], seconds[load, "after"], int(scored[load]))
        for load in LOADS
    ]


async def _pace(client: Client, picture: bytes) -> float:
    return statistics.median([(await client.ask(picture)).seconds for _ in range(5)])


async def _ask(
    client: Client, picture: bytes, requests: int, at_once: int, pauses: Sequence[float] | None
) -> list[Reply]:
    """Ask as `at_once` callers who don't pause, or one after each pause, whatever is still on its way."""
    replies: list[Reply] = []
    numbers = iter(range(requests))

    async def caller() -> None:
        for number in numbers:
            replies.append(await client.ask(another(picture, number)))

    async def once(number: int) -> None:
        replies.append(await client.ask(another(picture, number)))

    async with asyncio.TaskGroup() as group:
        if pauses is None:
            for _ in range(at_once):
                group.create_task(caller())
        else:
            for number, pause in enumerate(pauses):
                await asyncio.sleep(pause)
                group.create_task(once(number))
    if any(reply.prediction is None for reply in replies):
        raise CouldNotStart(f"a request was not answered: {next(r.message for r in replies if r.prediction is None)}")
    return replies


def _settle(miner: MinerProcess) -> None:
    """Wait until the shadow has nothing left to do, so that the other daemon has the machine."""
    last = -1.0
    while (now := miner.total(COMPARED)) != last:
        last = now
        time.sleep(SETTLED)


def _cost(load: str, before: list[float], with_: list[float], after: list[float], scored: int) -> Cost:
    less, more = percentiles(before + after), percentiles(with_)
    noise = percentiles(after)[1] / percentiles(before)[1] - 1
    return Cost(load, len(with_), less[0], more[0], less[1], more[1], more[1] / less[1] - 1, noise, scored)


def show(costs: Sequence[Cost]) -> None:
    """Print the figures for people."""
    heads = ("", "requests", "p50, ms", "with", "p95, ms", "with", "changes by", "noise", "scored")
    rows = []
    for cost in costs:
        milliseconds = (cost.p50_without, cost.p50_with, cost.p95_without, cost.p95_with)
        shown = [f"{one * 1e3:.1f}" for one in milliseconds] + [f"{cost.change:+.1%}", f"{cost.noise:+.1%}"]
        rows.append([cost.load, str(cost.requests), *shown, str(cost.scored)])
    print_table("Live requests without and with a shadow", heads, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = parser_of("tests.bench.shadow", __doc__)
    add_env_file(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=60, help="of each load in a round")
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args(arguments)
    end_in_order_on_sigterm()
    with errors_told():
        costs = measure(Settings.load(options.env_file), options.rounds, options.requests, options.at_once)
    print_figures(options.json, [asdict(cost) for cost in costs], lambda: show(costs))


if __name__ == "__main__":
    main()
