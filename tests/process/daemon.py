"""The daemon as an operator has it: a process with two ports, a state folder and a log."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from miner.chain import standalone
from miner.settings.settings import setting_names
from tests.process.inspection import inspect_answer
from tests.process.sleeper import HOLD_WHITE, MOOD
from tests.process.wire import Door, RawRequest, Signed, Signer

if TYPE_CHECKING:
    from bittensor import Wallet

PATIENCE = 120.0  # seconds; generous, since nothing here measures time
SETTLED_SECONDS = 3.0  # after the start; by then `miner.app` has given memory back
PORTS = 16_000
PAGE = os.sysconf("SC_PAGE_SIZE")
NOWHERE = "http://127.0.0.1:1"  # no proxy or hub is ever asked


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until it is true, and return it.

    What has taken long is looked at less often: asking for a page a hundred times a second is a fifth of a core.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < seconds, "waited in vain"
        time.sleep(min(max(waited / 10, 0.01), 0.1))
    return value


def free_port() -> int:
    """Return a port that nobody listens on, that no client is given by the kernel, and that is not returned again."""
    for port in ports():
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the miner does: TIME_WAIT is no obstacle
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@cache
def ports() -> Iterator[int]:
    """Return ports below the ephemeral ones, in an order of this process's own.

    Sessions side by side (pytest-xdist) have a share each: two that try one port at once would both find it free.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    numbers = range(max(1024, ephemeral - PORTS), max(ephemeral, 1024 + PORTS))
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    share = numbers[int(worker.removeprefix("gw")) :: int(workers)]
    return iter(random.SystemRandom().sample(share, len(share)))


def clean_environment(**more: str) -> dict[str, str]:
    """Return this environment without any setting of ours."""
    keys = setting_names()
    return {key: value for key, value in os.environ.items() if key.upper() not in keys} | {"NO_PROXY": "*"} | more


@dataclass(frozen=True)
class Keys:
    """Throwaway keys of one state folder."""

    miner: "Wallet"
    validator: "Wallet"  # registered, with a permit
    peer: "Wallet"  # registered, without
    stranger: "Wallet"  # not registered

    @classmethod
    def make(cls, state: Path) -> Self:
        """Make the keys, and the chain file that registers two of them."""
        wallets = [standalone.own_wallet(state, role) for role in ("miner", "validator", "peer", "stranger")]
        _, validator, peer, _ = (wallet.hotkey.ss58_address for wallet in wallets)
        (state / standalone.CALLERS_FILE).write_text(
            f"validators:\n  - {{hotkey: {validator}, stake: 1000}}\n  - {{hotkey: {peer}, permit: false}}\n",
            encoding="utf-8",
        )
        return cls(*wallets)


class Daemon:
    """One `python -m miner run`."""

    command: Sequence[str] = (sys.executable, "-m", "miner")

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.port, self.status_port = free_port(), free_port()
        settings = dict(settings)
        env_file = settings.pop("env_file", None)
        self.run = ["run"] if env_file is None else ["run", "--env-file", str(env_file)]
        self.settings = {
            "STATE_DIR": self.state,
            "MODELS_DIR": folder / "models",
            "MINER_AXON_HOST": "127.0.0.1",
            "MINER_AXON_PORT": self.port,
            "STATUS_PORT": self.status_port,
        } | settings
        if self.settings.get("IMAGE_DETECTOR_BACKEND") == "sleeping":
            self.command = (sys.executable, "-m", "tests.process.sleeper")
            self.settings |= {HOLD_WHITE: folder / "hold", MOOD: folder / "mood"}
        self.log_file = folder / "stderr.txt"
        self.prefix: Sequence[str] = ()  # of its command line, such as `prlimit …`
        self.address = f"http://127.0.0.1:{self.settings['MINER_AXON_PORT']}"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(
            base_url=self.address,
            timeout=PATIENCE,
            trust_env=False,
            event_hooks={"response": [inspect_answer]},
            limits=httpx.Limits(keepalive_expiry=None),  # it opens no new connection while a test counts them
        )
        self._operator = httpx.Client(
            base_url=f"http://127.0.0.1:{self.status_port}", timeout=PATIENCE, trust_env=False
        )

    @cached_property
    def keys(self) -> Keys:
        return Keys.make(self.state)

    @cached_property
    def validator(self) -> Signer:
        return self.signer(self.keys.validator)

    def signer(self, wallet: "Wallet", receiver: "Wallet | None" = None) -> Signer:
        return Signer(wallet, (receiver or self.keys.miner).hotkey.ss58_address)

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment(**{key: str(value) for key, value in self.settings.items()})

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Self:
        """Start the process; it is not ready yet."""
        _ = self.keys
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command, *self.run],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment,
            )  # fmt: skip
        return self

    def ready(self, seconds: float = PATIENCE) -> Self:
        """Wait until requests are answered."""
        eventually(lambda: self.status("/readyz") == 200 or self.ended, seconds)
        assert not self.ended, self.log
        return self

    def settled(self, picture: bytes) -> Self:
        """Wait until all is there that follows a start: the SDK, which btauth asks for, and memory given back."""
        self.ask(picture, Door("btauth", "/ImageSynapse"))
        time.sleep(SETTLED_SECONDS)
        return self

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.http.close()
        self._operator.close()

    def status(self, path: str) -> int:
        """Return the status of a page of the operator's port; 0 if nobody listens."""
        try:
            return self._operator.get(path).status_code
        except httpx.TransportError:
            return 0

    def page(self, path: str) -> httpx.Response:
        return self._operator.get(path)

    def samples(self) -> list[tuple[str, Mapping[str, str], float]]:
        """Return all samples of one scrape: name without the prefix, labels, value."""
        return [
            (sample.name.removeprefix("roadwork_miner_"), sample.labels, sample.value)
            for family in text_string_to_metric_families(self.page("/metrics").text)
            for sample in family.samples
        ]

    def metric(self, name: str, /, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        found = [value for known, has, value in self.samples() if known == name and labels.items() <= has.items()]
        assert found, f"no sample of {name}"
        return sum(found)

    def load(self) -> tuple[float, float]:
        """Return how many pictures are worked on and how many requests wait, at one moment."""
        samples = {name: value for name, _, value in self.samples()}
        return samples["running"], samples["queue_depth"]

    def outcomes(self) -> dict[str, int]:
        """Return how many requests ended in which outcome, over all wires."""
        found: Counter[str] = Counter()
        for name, labels, value in self.samples():
            if name == "requests_total":
                found[labels["outcome"]] += int(value)
        return {outcome: count for outcome, count in found.items() if count}

    def peak(self) -> float:
        """Return the most memory it has ever held, MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kibibytes) / 1024

    def resident(self) -> float:
        """Return the memory it holds now, MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE / 2**20

    def forget_peak(self) -> None:
        """Count `peak` from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def post(self, signed: Signed) -> httpx.Response:
        return self.http.post(signed.path, content=signed.body, headers=signed.headers)

    def ask(self, image: bytes, door: Door | None = None, **how: Any) -> httpx.Response:
        """Send a picture as the validator with a permit."""
        return self.post(self.validator.sign(image, door or Door(), **how))

    def ask_patiently(self, image: bytes) -> httpx.Response:
        """Send a picture and wait for as long as a busy machine may take; DEADLINE_CAP_SECONDS must allow it."""
        return self.ask(image, timeout=str(PATIENCE))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have a moody miner work on its white pictures until the end of the context."""
        gate = Path(str(self.settings[HOLD_WHITE]))
        gate.touch()
        try:
            yield
        finally:
            gate.unlink()

    @contextmanager
    def mood(self, mood: str) -> Iterator[None]:
        """Have a moody miner do this to every picture (`sleeper.suffer`) until the end of the context."""
        path = Path(str(self.settings[MOOD]))
        path.with_suffix(".partial").write_text(mood, encoding="ascii")
        path.with_suffix(".partial").rename(path)
        try:
            yield
        finally:
            path.unlink()

    def settle(self, image: bytes) -> Self:
        """Ask until slow pictures of other tests have left the estimate of how long one takes."""
        eventually(lambda: self.load() == (0, 0))
        for _ in range(40):
            self.ask(image)
        return self

    def raw(self, signed: Signed) -> RawRequest:
        """Open a connection of one's own, to send the request in odd ways."""
        return RawRequest("127.0.0.1", int(str(self.settings["MINER_AXON_PORT"])), signed)
