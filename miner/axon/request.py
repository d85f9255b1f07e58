"""The life of one request: its stages and deadline, and its record at the end."""

import time
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from starlette.requests import Request

from miner.axon.caller import Caller
from miner.chain.base import Chain
from miner.errors import RefusalReason
from miner.inference.memory import Claim
from miner.inference.service import Answer, Picture
from miner.recorder.records import RequestRecord, Wire


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
    answer: Answer | None = None  # once it is there

    def __post_init__(self) -> None:
        self.marked = self.arrived

    def lap(self, stage: str, until: float | None = None) -> None:
        """Give the time since the last lap to a stage."""
        until = time.monotonic() if until is None else until
        self.seconds[stage] = self.seconds.get(stage, 0.0) + until - self.marked
        self.marked = until

    def take(self, answer: Answer) -> None:
        """Give the time since the last lap to the stages of an answer; its way between the threads is waiting too."""
        self.answer, self.shared = answer, answer.shared
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

    def ended(
        self,
        chain: Chain,
        outcome: str,
        reason: str = "",
        prediction: float | None = None,
        refusal: RefusalReason | None = None,
        *,
        is_invalid: bool = False,
    ) -> RequestRecord:
        """Return its record; one that was answered after its caller's patience is "expired", sent or not."""
        self.lap("respond")
        caller, neuron = self.caller, None
        if caller is not None:
            neuron = chain.snapshot.neurons.get(caller.hotkey)
            if prediction is not None and caller.timeout < self.elapsed:
                outcome, reason = "expired", "answered after the caller's deadline"
        record = RequestRecord(
            at=time.time(),
            uid=neuron.uid if neuron is not None else None,
            wire=self.wire,
            outcome=outcome,
            reason=reason[:100],
            seconds=self.elapsed,
            stages=self.seconds,
            timeout=caller.timeout if caller is not None else None,
            body_bytes=self.body_bytes,
            prediction=prediction,
            hotkey=chain.hotkey,
            caller=caller.hotkey if caller is not None else "",
            address=address_of(self.request),
            is_permitted=neuron is not None and neuron.validator_permit,
            is_shared=self.shared,
            refusal=refusal if caller is not None else None,
            is_invalid=is_invalid,
            opinions=self.answer.prediction.opinions if self.answer is not None else {},
        )
        return record if self.answer is None else self._with_stages(record, self.answer)

    def _with_stages(self, record: RequestRecord, answer: Answer) -> RequestRecord:
        """Return the record with what it says of the stages of a cascade."""
        end, seconds = answer.prediction.end, answer.prediction.stages
        if end is None or record.timeout is None:
            return record
        # What was done for an equal picture is told once; where a dearer stage stood in, the first one failed.
        has_run_each = not answer.shared and len(seconds) >= end.number
        return replace(
            record,
            stage=end.number,
            branches=end.names[end.number - 1],
            stop=end.reason,
            spent=dict(zip(end.names, seconds, strict=False)) if has_run_each else {},
            left=record.timeout - (answer.finished - self.arrived),
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
