"""One request on its way through, and what is written down at its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network

from starlette.requests import Request

from miner.axon.caller import Caller, Wire
from miner.axon.request_log import tell_of
from miner.chain.base import Chain
from miner.inference.budget import Claim
from miner.inference.service import Answer, Picture
from miner.metrics import OTHERS, Metrics
from miner.recorder.records import Record
from miner.status.history import Entry, History


@dataclass(slots=True)
class Exchange:
    """A request, timed in laps: each moment of it belongs to exactly one stage, so the stages add up to the whole."""

    request: Request
    wire: Wire
    arrived: float  # on time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    marked: float = 0.0  # where the last lap ended
    caller: Caller | None = None  # once it is proven
    body_read: bool = False
    body_bytes: int = 0
    claim: Claim | None = None  # on the memory, until the service has it
    picture: Picture | None = None  # once it is unpacked
    shared: bool = False  # whether it got the answer to another's picture

    def __post_init__(self) -> None:
        self.marked = self.arrived

    def lap(self, stage: str, until: float | None = None) -> None:
        """Give the time since the last lap to a stage."""
        until = time.monotonic() if until is None else until
        self.seconds[stage] = self.seconds.get(stage, 0.0) + until - self.marked
        self.marked = until

    def take(self, answer: Answer) -> None:
        """Give the time since the last lap to the stages of an answer; its way between the threads is waiting too."""
        self.shared = answer.shared
        if not answer.shared:
            self.lap("queue", answer.started)
            done = answer.prediction
            self.seconds |= {"decode": done.decode, "preprocess": done.preprocess, "infer": done.infer}
            self.marked = answer.finished
        else:  # it waited for a picture of which each stage is told once
            self.lap("queue", answer.finished)

    @property
    def elapsed(self) -> float:
        """Seconds from the arrival to the end of the last lap."""
        return self.marked - self.arrived


class Recorder:
    """Writes an ended request into the metrics and the history."""

    def __init__(self, metrics: Metrics, history: History, chain: Chain) -> None:
        self.metrics = metrics
        self.history = history
        self.chain = chain
        self.ended: Callable[[str, str], None] = lambda address, outcome: None  # told of every request
        self.proven: Callable[[Entry], None] = lambda entry: None  # told of those whose callers are proven
        # Told of every prediction, and of what photo.
        self.predicted: Callable[[float, bytes | None], None] = lambda prediction, picture: None
        self.keep: Callable[[Record, bytes | None], None] | None = None  # given a record of each, and its photo

    def record(self, exchange: Exchange, outcome: str, reason: str, prediction: float | None) -> None:
        """Count a request; one that is answered after its caller's patience is "expired", sent or not."""
        exchange.lap("respond")
        if prediction is not None and self._measure(exchange, prediction) < 0:
            outcome, reason = "expired", "answered after the caller's deadline"
        elif outcome == "expired":
            self.metrics.remaining.observe(0.0)
        self.metrics.requests.labels(exchange.wire, outcome).inc()
        self.metrics.by_hotkey.labels(self.chain.hotkey, outcome).inc()
        self.metrics.duration.labels(outcome).observe(exchange.elapsed)
        uid = self._count_caller(exchange.caller) if exchange.caller is not None else None
        entry = Entry(time.time(), uid, exchange.wire, outcome, reason[:100], exchange.elapsed, prediction)
        self.history.add(entry, proven=exchange.caller is not None)
        if self.keep is not None:
            record = _record(exchange, uid, outcome, reason, prediction, self.chain.hotkey)
            self.keep(record, exchange.picture.data if exchange.picture is not None else None)
        self.ended(address_of(exchange.request), outcome)
        if exchange.caller is not None:
            self.proven(entry)
        tell_of(entry, exchange.caller.hotkey if exchange.caller is not None else None)

    def record_no_route(self, request: Request) -> None:
        """Count a request for a path that is none; it stays out of the history."""
        self.metrics.requests.labels("none", "not_found").inc()
        self.ended(address_of(request), "not_found")

    def _measure(self, exchange: Exchange, prediction: float) -> float:
        """Observe an answered request; return the seconds its caller would still have waited."""
        assert exchange.caller is not None
        for stage, seconds in exchange.seconds.items():
            self.metrics.stage.labels(stage).observe(seconds)
        self.metrics.predictions.observe(prediction)
        if exchange.shared:
            self.metrics.shared.inc()
        else:
            self.predicted(prediction, exchange.picture.data if exchange.picture is not None else None)
        left = exchange.caller.timeout - exchange.elapsed
        self.metrics.remaining.observe(max(0.0, left))
        return left

    def _count_caller(self, caller: Caller) -> int | None:
        """Count by uid; only permits get a label of their own, so there are never many."""
        if caller.hotkey != self.chain.hotkey:  # `query` signs as ourselves, which shows nobody that we are reached
            self.metrics.last_request.set_to_current_time()
        neuron = self.chain.snapshot.neurons.get(caller.hotkey)
        permitted = neuron is not None and neuron.validator_permit
        self.metrics.by_validator.labels(str(neuron.uid) if neuron is not None and permitted else OTHERS).inc()
        return neuron.uid if neuron is not None else None


def _record(
    exchange: Exchange, uid: int | None, outcome: str, reason: str, prediction: float | None, hotkey: str
) -> Record:
    return Record(
        at=time.time(),
        uid=uid,
        wire=exchange.wire,
        outcome=outcome,
        reason=reason[:100],
        seconds=exchange.elapsed,
        stages=exchange.seconds,
        timeout=exchange.caller.timeout if exchange.caller is not None else None,
        body_bytes=exchange.body_bytes,
        prediction=prediction,
        hotkey=hotkey,
    )


def address_of(request: Request) -> str:
    """Return the caller's IP address."""
    return request.client.host if request.client is not None else ""


def neighbourhood(address: str) -> str:
    """Return what one caller can have many addresses of: of IPv6 a network of 64 bits, of IPv4 the address itself."""
    try:
        return str(ip_network(f"{address}/64", strict=False)) if ":" in address else address
    except ValueError:  # a proxy's header can hold anything
        return address
