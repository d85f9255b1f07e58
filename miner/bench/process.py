"""A real daemon on free ports of this machine, without a chain."""

import logging
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from miner.chain.standalone import own_wallet, standalone_file
from miner.errors import CouldNotStart
from miner.metrics import PREFIX

PATIENCE = 600.0  # seconds until the daemon answers: a first start may have to prepare the model
STOP = 30.0  # seconds
LOOK = 0.005  # seconds between two looks whether it listens
HOST = "127.0.0.1"


class MinerProcess:
    """One `python -m miner run` with its own ports, and a state folder that holds its keys already."""

    def __init__(
        self, state: Path, assignments: Sequence[str], environment: Mapping[str, str], hotkeys: int = 0
    ) -> None:
        """Start it; with `hotkeys`, it serves so many of them instead of the one on `port`."""
        logging.getLogger("miner.chain.standalone").setLevel(logging.WARNING)  # throwaway keys are no news here
        self.port, self.status_port, *others = _free_ports(2 + hotkeys)
        self.ports = {f"key{number}": port for number, port in enumerate(others)}  # of several hotkeys, by name
        self.address = f"http://{HOST}:{self.port}"
        self.validator = own_wallet(state, "validator")
        self.hotkey = own_wallet(state, "miner").hotkey.ss58_address
        mine = [
            "SUBTENSOR_NETWORK=standalone", f"STATE_DIR={state}", f"STANDALONE_FILE={standalone_file(state)}",
            f"MINER_AXON_HOST={HOST}", f"MINER_AXON_PORT={self.port}", f"STATUS_HOST={HOST}",
            f"STATUS_PORT={self.status_port}", "BLACKLIST_MIN_STAKE=0", "BLACKLIST_DENY_HOTKEYS=",
            "LOG_LEVEL=WARNING", "LOG_FORMAT=text",
        ]  # fmt: skip
        if self.ports:
            mine.append("WALLET_HOTKEYS=" + ",".join(f"{name}:{port}" for name, port in self.ports.items()))
        options = [word for assignment in [*mine, *assignments] for word in ("--set", assignment)]
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with the process
        self._operator = httpx.Client(base_url=f"http://{HOST}:{self.status_port}", timeout=STOP, trust_env=False)
        with ExitStack() as stack:
            with signals_held():
                self.started = time.perf_counter()
                self._process = subprocess.Popen(  # noqa: S603 - this program
                    [sys.executable, "-m", "miner", "run", "--no-env-file", *options],
                    stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=dict(environment),
                )  # fmt: skip
                stack.push(self)
            self._memory = psutil.Process(self._process.pid)
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM if kind is None else signal.SIGKILL)
        try:
            self._process.wait(STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._operator.close()
        self._log.close()

    def wait_until_it_listens(self, port: int | None = None) -> None:
        """Return as soon as the validators' port, or this one of several hotkeys, takes connections.

        Raises:
            CouldNotStart: the process ended, or takes too long.
        """
        deadline = self.started + PATIENCE
        while time.perf_counter() < deadline:
            try:
                socket.create_connection((HOST, port or self.port), timeout=1).close()
            except OSError:
                self.check()
                time.sleep(LOOK)
            else:
                return
        raise CouldNotStart(f"the daemon did not listen within {PATIENCE:.0f} s")

    def check(self) -> None:
        """Raise CouldNotStart if the process has ended, with its last words."""
        if (code := self._process.poll()) is not None:
            self._log.seek(0)
            lines = self._log.read().strip().splitlines()
            raise CouldNotStart(f"the daemon ended with {code}: {lines[-1] if lines else 'it said nothing'}")

    def resident(self) -> float:
        """Return the resident memory in bytes."""
        return float(self._memory.memory_info().rss)

    def sizes(self) -> tuple[float, float]:
        """Return RSS, and PSS: what is shared with other processes counts there by its part; in bytes."""
        memory = self._memory.memory_full_info()
        return float(memory.rss), float(memory.pss)

    def peak(self) -> float:
        """Return the most that was ever resident, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii", errors="replace")
        (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024.0

    def total(self, name: str) -> float:
        """Return the sum of a metric's samples; 0 where there is none, or nobody listens yet."""
        try:
            text = self._operator.get("/metrics").text
        except httpx.TransportError:
            return 0.0
        families = text_string_to_metric_families(text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def stages(self) -> dict[str, float]:
        """Return the seconds spent in each stage so far, over all requests."""
        name = PREFIX + "stage_duration_seconds"
        return {
            sample.labels["stage"]: sample.value
            for family in text_string_to_metric_families(self._operator.get("/metrics").text)
            if family.name == name
            for sample in family.samples
            if sample.name == name + "_sum"
        }


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back for a moment: a process whose start they break off would be known to nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: held.append(got)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for got in held:
            signal.raise_signal(got)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
