"""Late answers of a real daemon, of which there should be none, in thousands of a mixed load. `make bench-late`.

    python -m tests.bench.late [--env-file miner.env] [--count 10000] [--load 0.5] [--json]

Validators of many stakes ask one by one, at a share of what the first stage alone could answer, and now and then sixty
at once. Without an env file the daemon has a cascade of two graphs that pass the time. Ends with exit code 1 if one was
late.
"""

import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import Progress

from miner.axon.client import Client, another
from miner.chain import standalone
from miner.cli.common import end_in_order_on_sigterm, errors_told
from miner.recorder import FOLDER
from miner.recorder.records import SEGMENTS
from tests.bench.options import add_env_file, parser_of, print_figures, print_table
from tests.models import photo
from tests.process.daemon import Daemon
from tests.process.graphs import rounds_a_second, write_model

VALIDATORS = 16
TOGETHER = 60  # requests of a burst
BURST_SHARE = 0.005  # of the moments when somebody asks
READY_SECONDS = 240.0  # a cascade is exported first
CONNECTIONS = 4096  # here all validators have one address, which is no sign of a flood
PATIENCE = (9.0, 9.0, 9.0, 4.0, 1.5)  # seconds; real validators wait nine
SECONDS = {"small": 0.01, "large": 0.1}  # that the graphs take, about
MEASURED = {"photos": 100, "accuracy": 0.9, "mcc": 0.8, "reward": 0.7, "reward_low": 0.6, "reward_high": 0.8}


@dataclass(frozen=True, slots=True)
class LateFigures:
    """What became of the requests: statuses, answers by the stage that gave them, and those that came too late."""

    requests: int
    statuses: dict[str, int]
    stages: dict[str, int]
    late: int
    outcomes: dict[str, int]  # by the miner's own count
    slowest_share: float  # of its caller's patience, of the answer that took most


def cascade(folder: Path) -> dict[str, object]:
    """Return the settings of a cascade whose first stage is never sure."""
    rounds = rounds_a_second(folder / "pace")
    for name, seconds in SECONDS.items():
        write_model(folder / name, rounds=int(seconds * rounds))
    fusion = {"branches": ["small", "large"], "measured": MEASURED}
    document = {
        "branches": {name: {"model_folder": str(folder / name)} for name in SECONDS},
        "stages": [{"branches": ["small"], "band": [0.0, 1.0], "measured": MEASURED}],
        "fusion": fusion,
    }
    (folder / "cascade.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return {
        "IMAGE_DETECTOR": "Ensemble", "IMAGE_DETECTOR_CONFIG": folder / "cascade.yaml",
        "INFERENCE_SLOTS": 1, "INFERENCE_THREADS": 1,
    }  # fmt: skip


async def play(daemon: Daemon, count: int, load: float, seed: int) -> tuple[Counter[str], int, float]:
    """Ask; return the statuses, how many got no answer for as long as they waited, and the largest share of that."""
    luck, statuses, late, slowest = random.Random(seed), Counter[str](), 0, 0.0
    pause = max(daemon.metric("pace_seconds"), 1e-3) / load
    wallets = [standalone.own_wallet(daemon.state, f"validator-{number}") for number in range(VALIDATORS)]
    receiver = daemon.keys.miner.hotkey.ss58_address
    picture = photo(640, 360)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        clients = [
            await stack.enter_async_context(Client(wallet, receiver, daemon.address, timeout=patience))
            for wallet in wallets
            for patience in PATIENCE
        ]
        shown = stack.enter_context(Progress(console=Console(file=sys.stderr), transient=True))
        bar = shown.add_task("requests", total=count)

        async def ask(number: int) -> None:
            nonlocal late, slowest
            client = luck.choice(clients)
            reply = await client.ask(another(picture, number + 1))
            statuses["late" if reply.timed_out else str(reply.status or "no connection")] += 1
            late += reply.timed_out
            if reply.status == 200:
                slowest = max(slowest, reply.seconds / client.timeout)
            shown.advance(bar)

        sent = 0
        while sent < count:
            together = min(count - sent, TOGETHER if luck.random() < BURST_SHARE else 1)
            for _ in range(together):
                group.create_task(ask(sent))
                sent += 1
            await asyncio.sleep(luck.expovariate(1 / (together * pause)))
    return statuses, late, slowest


def measure(env_file: Path | None, count: int, load: float, seed: int = 1) -> LateFigures:
    """Start a daemon and ask it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = cascade(folder) if env_file is None else {"env_file": env_file.absolute()}
        connections = dict.fromkeys(("MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS"), CONNECTIONS)
        daemon = Daemon(folder, settings | connections | {"RECORDER": "meta"})
        _ = daemon.keys
        entries = [
            {"hotkey": standalone.own_wallet(daemon.state, f"validator-{number}").hotkey.ss58_address, "stake": number}
            for number in range(VALIDATORS)
        ]
        (daemon.state / standalone.CALLERS_FILE).write_text(yaml.safe_dump({"validators": entries}), encoding="utf-8")
        try:
            daemon.start().ready(READY_SECONDS)
            statuses, late, slowest = asyncio.run(play(daemon, count, load, seed))
            outcomes = daemon.outcomes()
            daemon.stop()
        finally:
            daemon.close()
        files = sorted((daemon.state / FOLDER).glob(SEGMENTS))
        records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    stages = Counter(str(record["stage"]) for record in records if record.get("stage") is not None)
    return LateFigures(count, dict(statuses), dict(sorted(stages.items())), late, outcomes, slowest)


def show(figures: LateFigures) -> None:
    """Print the figures for people."""
    rows = [
        ("requests", str(figures.requests)),
        *((f"status {status}", str(number)) for status, number in sorted(figures.statuses.items())),
        *((f"answered by stage {stage}", str(number)) for stage, number in figures.stages.items()),
        *((f"the miner's outcome {name}", str(number)) for name, number in sorted(figures.outcomes.items())),
        ("late", str(figures.late)),
        ("slowest answer", f"{figures.slowest_share:.0%} of its caller's patience"),
    ]
    print_table("a mixed load", ("", ""), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = parser_of("tests.bench.late", __doc__)
    add_env_file(parser)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--load", type=float, default=0.5, help="of what the first stage could answer")
    options = parser.parse_args(arguments)
    end_in_order_on_sigterm()
    with errors_told():
        figures = measure(options.env_file, options.count, options.load)
    print_figures(options.json, asdict(figures), lambda: show(figures))
    if figures.late:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
