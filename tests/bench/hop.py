"""What the way to another machine costs: the model here and behind endpoints, asked in turn. `make bench-hop`.

    python -m tests.bench.hop [--requests 300] [--env-file miner.env] [--json]

With `REMOTE_ENDPOINTS` these are asked; without, a bare HTTP server of its own on this machine, which is the least that
any engine adds. The time is that of the graph alone: both unpack and preprocess the picture here.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

import httpx

from detectors.base import Detector
from detectors.errors import EngineError
from detectors.redact import shown
from detectors.remote.endpoints import EngineOptions
from miner.bench.daemon import HOST
from miner.bench.run import percentiles
from miner.bench.subject import made_jpeg
from miner.cli.common import end_in_order_on_sigterm, errors_told
from miner.errors import CouldNotStart
from miner.settings.settings import Settings, environment_of
from tests.bench.engine import load
from tests.bench.options import add_env_file, parser_of, print_figures, print_table

WARM_UP = 20  # pictures
TIMEOUT = 9.0  # seconds for one
PATIENCE = 120.0  # seconds until the server of our own answers


@dataclass(frozen=True, slots=True)
class Hop:
    """Seconds of the graph, p50 and p95, on this machine and behind the endpoints."""

    model: str
    endpoints: list[str]  # as others may see them; none: a server of our own
    requests: int  # to each
    here: tuple[float, float]
    there: tuple[float, float]

    @property
    def cost(self) -> float:
        """The difference of the medians."""
        return self.there[0] - self.here[0]


def measure(local: Detector, remote: Detector, requests: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each picture here and there, asked in turn; `remote` is closed then.

    Raises:
        CouldNotStart: a picture got no scores.
    """
    picture = made_jpeg(320, 240)
    here: list[float] = []
    there: list[float] = []
    try:
        for _ in range(WARM_UP + requests):
            here.append(local.predict(picture).infer)
            there.append(remote.predict(picture, time.monotonic() + TIMEOUT).infer)
    except EngineError as error:
        raise CouldNotStart(f"a picture got no scores: {error}") from error
    finally:
        remote.close()
    return here[WARM_UP:], there[WARM_UP:]


@contextmanager
def own_server(environment: Mapping[str, str]) -> Iterator[str]:
    """Start `tests.bench.engine` in a process of its own and yield its address once it answers.

    Raises:
        CouldNotStart: it does not.
    """
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.engine", str(descriptor)], pass_fds=[descriptor], env=dict(environment)
        )
    try:
        httpx.get(f"{address}/v2/health/ready", timeout=PATIENCE, trust_env=False).raise_for_status()
        yield address
    except httpx.HTTPError as error:
        raise CouldNotStart(f"the server of our own does not answer: {error}") from error
    finally:
        process.terminate()
        process.wait()


def show(hop: Hop) -> None:
    """Print the figures for people."""
    rows = [
        [name, *(f"{seconds * 1e3:.1f}" for seconds in figures)]
        for name, figures in (("here, onnx", hop.here), (", ".join(hop.endpoints) or "a bare HTTP server", hop.there))
    ]
    title = f"{hop.model}, {hop.requests} pictures to each in turn: the hop costs {hop.cost * 1e3:.1f} ms"
    print_table(title, ("", "p50, ms", "p95, ms"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = parser_of("tests.bench.hop", __doc__)
    add_env_file(parser)
    parser.add_argument("--requests", type=int, default=300, help="to each")
    options = parser.parse_args(arguments)
    end_in_order_on_sigterm()
    with errors_told():
        settings = Settings.load(options.env_file)
        local = load(settings, "onnx")
        endpoints = tuple(settings.remote_endpoints.split(",")) if settings.remote_endpoints else ()
        with nullcontext() if endpoints else own_server(environment_of(settings)) as address:
            engine = EngineOptions(endpoints, settings.remote_model) if address is None else EngineOptions((address,))
            here, there = measure(local, load(settings, "remote", engine), options.requests)
    names = [shown(one) for one in endpoints]
    hop = Hop(local.manifest.name, names, options.requests, percentiles(here)[:2], percentiles(there)[:2])
    print_figures(options.json, asdict(hop) | {"cost": hop.cost}, lambda: show(hop))


if __name__ == "__main__":
    main()
