"""The axon's own ceiling: requests a second on one core when the detector answers at once. `make bench-axon`.

    python -m tests.bench.axon [--requests 4000] [--rounds 5] [--at-once 10] [--json]

Real signatures and bodies with 20 kB pictures, signed before the clock starts; the callers have another core.
"""

import asyncio
import os
import pstats
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from miner.axon.client import Client, another
from miner.chain.standalone import own_wallet, standalone_file
from miner.cli.common import end_in_order_on_sigterm, errors_told
from miner.errors import CouldNotStart
from tests.bench.options import parser_of, print_figures

HOST = "127.0.0.1"
PICTURE_BYTES = 20_000
PATIENCE = 30.0  # seconds until the process listens
SHOWN = 15  # functions of the profile


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Requests a second of each round, and the processor's seconds for each request, its slot's thread included."""

    rates: list[float]
    cpu_seconds: list[float]
    profile: list[tuple[str, float]]  # function, share of the loop's own time

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


class InstantAxon:
    """`tests.bench.instant` in a process of its own, for as long as the context lasts."""

    def __init__(self, state: Path, profile: Path | None = None) -> None:
        with socket.socket() as one:
            one.bind((HOST, 0))
            self.port = int(one.getsockname()[1])
        own_wallet(state, "miner")
        standalone_file(state)
        arguments = [str(state), str(self.port), *([str(profile)] if profile is not None else [])]
        self._process = subprocess.Popen([sys.executable, "-m", "tests.bench.instant", *arguments])

    def __enter__(self) -> "InstantAxon":
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        self.__exit__()
        raise CouldNotStart(f"the axon did not listen within {PATIENCE:.0f} s")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def start_profile(self) -> None:
        """Let it profile itself from now on: what the first requests import is not a request's own time."""
        self._process.send_signal(signal.SIGUSR1)

    def cpu_seconds(self) -> float:
        """Return what the process has used so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)


def measure(state: Path, requests: int, rounds: int, at_once: int) -> Ceiling:
    """Ask `requests` times in each round, `at_once` at a time; then one round more under the profiler."""
    rates, cpu = [], []
    with InstantAxon(state) as axon:
        _round(state, axon.port, requests // 4, at_once)  # warm-up
        for _ in track(range(rounds), "rounds", console=Console(file=sys.stderr), transient=True):
            before = axon.cpu_seconds()
            rates.append(_round(state, axon.port, requests, at_once))
            cpu.append((axon.cpu_seconds() - before) / requests)
    profile = state / "profile"
    with InstantAxon(state, profile) as axon:
        _round(state, axon.port, at_once, at_once)
        axon.start_profile()
        _round(state, axon.port, requests, at_once)
    return Ceiling(rates, cpu, _shares(profile))


def _round(state: Path, port: int, count: int, at_once: int) -> float:
    """Return the requests a second."""
    receiver = own_wallet(state, "miner").hotkey.ss58_address
    client = Client(own_wallet(state, "validator"), receiver, f"http://{HOST}:{port}")
    picture = os.urandom(PICTURE_BYTES)
    requests = [
        _raw(client.dendrite_headers() | {"timeout": str(client.timeout)}, client.body(another(picture, number)))
        for number in range(count)
    ]
    seconds = uvloop.run(_ask(port, iter(requests), at_once))
    return count / seconds


async def _ask(port: int, requests: Iterator[bytes], at_once: int) -> float:
    async def caller() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for request in requests:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200"):
                raise SystemExit(f"error: the axon answers {head[:40].decode()}")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return time.perf_counter() - started


def _raw(headers: dict[str, str], body: bytes) -> bytes:
    fields = headers | {"host": HOST, "content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /ImageSynapse HTTP/1.1\r\n{lines}\r\n".encode() + body


def _shares(profile: Path) -> list[tuple[str, float]]:
    """Return the functions that took most of the loop's own time; waiting, which is counted as `run`, left out."""
    found = vars(pstats.Stats(str(profile)))["stats"]  # typeshed knows only their sums
    own = {
        f"{Path(file).parent.name}/{Path(file).name}:{name}" if line else name: tottime
        for (file, line, name), (_, _, tottime, _, _) in found.items()
        if name not in ("run", "runcall")
    }
    total = sum(own.values())
    ordered = sorted(own.items(), key=lambda item: -item[1])[:SHOWN]
    return [(name, seconds / total) for name, seconds in ordered]


def show(ceiling: Ceiling) -> None:
    """Print the figures for people."""
    out = Console(highlight=False, soft_wrap=True)
    low, high = min(ceiling.rates), max(ceiling.rates)
    cpu = statistics.median(ceiling.cpu_seconds)
    out.print(
        f"{ceiling.rate:.0f} requests a second on one core ({low:.0f} to {high:.0f} in {len(ceiling.rates)} rounds), "
        f"{cpu * 1e3:.2f} ms of the processor each"
    )
    table = Table(title="where the event loop's time goes", title_justify="left")
    table.add_column("function")
    table.add_column("share", justify="right")
    for name, share in ceiling.profile:
        table.add_row(name, f"{share:.1%}")
    out.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = parser_of("tests.bench.axon", __doc__)
    parser.add_argument("--requests", type=int, default=4000, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=10)
    options = parser.parse_args(arguments)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {min(cores)} or cores)
    end_in_order_on_sigterm()
    with errors_told(), tempfile.TemporaryDirectory() as folder:
        ceiling = measure(Path(folder), options.requests, options.rounds, options.at_once)
    print_figures(options.json, asdict(ceiling) | {"rate": ceiling.rate}, lambda: show(ceiling))


if __name__ == "__main__":
    main()
