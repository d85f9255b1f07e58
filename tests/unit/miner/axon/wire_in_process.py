"""The validators' port without a socket: the real protocol, parser, axon and queue, fed with bytes."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from detectors.base import Budget, Detector, Prediction
from miner.axon import BTAUTH_PATH
from miner.axon.app import Axon
from miner.axon.body import Limits
from miner.axon.caller import Rules
from miner.axon.client import Client
from miner.axon.clock import ClockWatch
from miner.chain.base import Neuron, Snapshot
from miner.chain.standalone import own_wallet
from miner.http.connections import Connections, Guard
from miner.http.protocol import GuardedProtocol
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler
from miner.inference.service import Service
from miner.metrics import Metrics
from miner.recorder.records import RequestListener
from miner.status.history import History

MAX_BODY = 20_000
STATUSES = {200, 400, 401, 403, 404, 405, 408, 413, 422, 503}  # no 500: the detector here never fails
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # an answer to `expect`, before the answer
HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")


class OneValidator:
    """A chain with one validator in it."""

    obstacle: str | None = None
    uid: int | None = None

    def __init__(self, own: str, hotkey: str) -> None:
        self.hotkey = own
        neurons = {hotkey: Neuron(1, hotkey, 10.0, True)}
        self.snapshot = Snapshot(1, 0.0, MappingProxyType(neurons))

    async def start(self) -> None: ...
    async def publish(self) -> None: ...
    async def stop(self) -> None: ...


class AtOnce:
    """A detector that looks at nothing."""

    obstacle: str | None = None

    def predict(self, data: bytes, deadline: float | None = None, budget: Budget | None = None) -> Prediction:
        return Prediction(0.5, 0.0, 0.0, 0.0)

    def close(self) -> None: ...


class Wire(asyncio.Transport):
    """What the protocol writes to, and says of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False
        self.ended = False  # nothing more is sent, but what comes is read
        self.unsent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended and not self.closed:  # as asyncio's and uvloop's do
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self.closed:
            self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Complaints(logging.Handler):
    """Keeps what was logged as an error: nothing that arrives may be one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


class Port:
    """A miner's port, and the validator who may ask it."""

    def __init__(self, state: Path, clock: ClockWatch | None = None) -> None:
        self.state = state
        miner, validator = (own_wallet(state, role).hotkey.ss58_address for role in ("miner", "validator"))
        self.client = Client(own_wallet(state, "validator"), miner, "http://miner")
        self.loop = asyncio.new_event_loop()
        scheduler = Scheduler(Queue(slots=1, pace=0.0001, depth=8))
        scheduler.open()
        self.service = Service(cast("Detector", AtOnce()), scheduler)
        limits = Limits(max_body=MAX_BODY, body_stall=60.0, deadline_cap=12.0, deadline_margin=0.5)
        chain = OneValidator(miner, validator)
        self.metrics = Metrics()
        self.listeners: list[RequestListener] = [self.metrics, History()]
        self.axon = Axon(self.service, chain, Rules(), limits, self.listeners, clock=clock)  # type: ignore[arg-type]
        self.config = Config(self.axon.asgi(), http="httptools", ws="none", lifespan="off", log_config=None)
        self.connections = Connections(Guard())
        self.complaints = Complaints()
        logging.getLogger().addHandler(self.complaints)

    def close(self) -> None:
        logging.getLogger().removeHandler(self.complaints)
        self.service.close()
        self.loop.close()

    def headers(self, wire: str, body: bytes) -> dict[str, str]:
        """Return headers of a request that is answered, freshly signed."""
        signed = self.client.btauth_headers(BTAUTH_PATH, body) if wire == "btauth" else self.client.dendrite_headers()
        return {"host": "miner", "timeout": "9.0", "content-length": str(len(body))} | signed

    def request(self, wire: str, body: bytes, **changes: str | None) -> bytes:
        """Return a request as bytes; `changes` replace headers or, if None, leave them out."""
        path = BTAUTH_PATH if wire == "btauth" else "/ImageSynapse"
        headers = self.headers(wire, body)
        kept = {name: value for name, value in (headers | changes).items() if value is not None}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in kept.items()), "", ""]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + body

    def feed(self, pieces: Iterable[bytes]) -> list[tuple[int, Any]]:
        """Send pieces on one connection, hang up, and return the answers: status and JSON.

        Holds afterwards: nothing is left over, nothing was complained of, and every answer is one of the table.
        """
        sent = self.loop.run_until_complete(self._feed(pieces))
        assert not self.complaints.said, self.complaints.said
        scheduler = self.service.scheduler
        assert (scheduler.waiting, scheduler.running, scheduler._tickets) == (0, 0, {})
        assert (self.axon.limits.budget.held, self.axon.limits.budget.used, self.service._works) == (0, 0, {})
        assert len(self.connections) == 0
        return list(answers(bytes(sent)))

    async def _feed(self, pieces: Iterable[bytes]) -> bytearray:
        state, wire = ServerState(), Wire()
        protocol = _Protocol(self.config, state, {}, self.loop, connections=self.connections)
        protocol.connection_made(wire)
        patience = time.monotonic() + 60
        for piece in pieces:
            protocol.data_received(piece)
            await asyncio.sleep(0)
            while protocol.owes_an_answer and not wire.ended:
                assert time.monotonic() < patience, "a request was never answered"
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        while state.tasks or self.service.scheduler.running:
            assert time.monotonic() < patience, "a request never ended"
            await asyncio.sleep(0)
        return wire.sent


class _Protocol(GuardedProtocol):
    @property
    def owes_an_answer(self) -> bool:
        """Whether a request is there as a whole and not answered."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete


def answers(sent: bytes) -> Iterable[tuple[int, Any]]:
    """Read what was sent: whole answers, each with a length and JSON that says nothing it should not."""
    while sent:
        sent = sent.removeprefix(CONTINUE)
        head = HEAD.match(sent)
        assert head is not None, sent
        status, headers = int(head[1]), dict(line.split(b": ", 1) for line in head[2].splitlines())
        assert status in STATUSES, sent
        length = int(headers[b"content-length"])
        body, sent = sent[head.end() : head.end() + length], sent[head.end() + length :]
        assert len(body) == length
        assert headers[b"content-type"] == b"application/json"
        answer = json.loads(body)
        assert set(answer) == {"message"} if status != 200 else 0 <= answer["prediction"] <= 1
        yield status, answer
