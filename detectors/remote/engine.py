"""The engine: each picture goes to the least busy proven endpoint, and once more elsewhere if that fails.

All of it lives on one event loop, so there is nothing to lock. An endpoint is asked for validators' pictures only after
it has answered the known picture as the manifest says; one that fails is left alone and proven anew.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorError, NoEndpoint, OutOfTime
from detectors.remote.channel import Channel, Fault, Signature, read_signature
from detectors.remote.endpoints import MARGIN, Endpoint, Observer, State, choose, is_patient, time_limit

log = logging.getLogger(__name__)

ATTEMPTS = 2
PROOF_SECONDS = 5.0  # longest wait for one answer of a proof
LOOK_SECONDS = 5.0  # between two looks at an endpoint that nobody asks
USUAL_WEIGHT = 0.1  # of the newest answer in the moving average of seconds


@dataclass(frozen=True, slots=True)
class Proof:
    """What an endpoint must answer before it is trusted; `judge` raises a DetectorError for other scores."""

    shape: tuple[int, ...]
    labels: tuple[str, ...]
    array: NDArray[np.float32]
    judge: Callable[[NDArray[np.float32]], None]


@dataclass(slots=True)
class EndpointSlot:
    """An endpoint, the way there, and what it calls its tensors."""

    endpoint: Endpoint
    channel: Channel
    alarm: asyncio.Event = field(default_factory=asyncio.Event)
    signature: Signature | None = None
    answered: float = 0.0  # when it last did


class Engine:
    """Asks endpoints, and watches over them."""

    def __init__(self, endpoints: list[Endpoint], model: str, proof: Proof, observer: Observer) -> None:
        self.endpoints = endpoints
        self.proof = proof
        self.observer = observer
        self.usual = 0.0  # seconds a picture takes there
        self._places = {one.index: EndpointSlot(one, Channel(one.address, model, proof.labels)) for one in endpoints}
        self._asked = 0
        self._watchers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Prove all endpoints, side by side, and watch over them from then on."""
        await asyncio.gather(*(self._prove(place) for place in self._places.values()))
        self._watchers = [asyncio.create_task(self._watch(place)) for place in self._places.values()]

    async def close(self) -> None:
        """End the watch and the connections."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for place in self._places.values():
            await place.channel.close()

    async def infer(self, array: NDArray[np.float32], deadline: float) -> NDArray[np.float32]:
        """Return the scores of a picture before `deadline` (monotonic).

        Raises:
            NoEndpoint: none is fit to be asked, or none had scores.
            OutOfTime: the time was not enough.
        """
        tried: list[int] = []
        fault: Fault | None = None
        while len(tried) < ATTEMPTS and (endpoint := choose(self.endpoints, tried)) is not None:
            left = deadline - MARGIN - time.monotonic()
            if left <= (self.usual if tried else 0):
                raise OutOfTime(f"no time for {'another' if tried else 'an'} endpoint")
            again = len(tried) + 1 < ATTEMPTS and any(
                one.state == "up" for one in self.endpoints if one is not endpoint
            )
            try:
                return await self._ask(self._places[endpoint.index], array, time_limit(left, self.usual, again))
            except Fault as error:
                fault = error
                tried.append(endpoint.index)
        if fault is not None and (fault.kind == "busy" or time.monotonic() >= deadline - MARGIN):
            raise OutOfTime(str(fault)) from fault
        raise NoEndpoint(str(fault or "all endpoints are down")) from fault

    async def _ask(self, place: EndpointSlot, array: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
        endpoint, started = place.endpoint, time.monotonic()
        assert place.signature is not None  # it was up once
        self._asked += 1
        endpoint.turn = self._asked
        endpoint.busy += 1
        try:
            scores = await place.channel.scores(array, place.signature, seconds)
            if scores.shape != (1, len(self.proof.labels)):
                raise Fault("odd", f"its scores have the shape {scores.shape}")
            if not np.isfinite(scores).all():
                raise Fault("odd", "its scores are not finite")
        except Fault as fault:
            if fault.kind != "late" or is_patient(seconds, self.usual):
                self.observer.failed(endpoint.index)
                self._doubt(place, fault)
            raise
        finally:
            endpoint.busy -= 1
        place.answered = time.monotonic()
        took = place.answered - started
        self.usual += USUAL_WEIGHT * (took - self.usual)
        self.observer.answered(endpoint.index, took)
        return scores

    def _doubt(self, place: EndpointSlot, fault: Fault) -> None:
        """A full queue is no fault of the endpoint; after anything else it has to prove itself again."""
        if fault.kind == "busy" or place.endpoint.state == "down":
            return
        if fault.kind == "gone":
            self._give_up(place, str(fault))
        else:
            was = place.endpoint.state
            place.endpoint.suspect(str(fault), time.monotonic())
            self._tell(place.endpoint, was)
        place.alarm.set()

    async def _watch(self, place: EndpointSlot) -> None:
        while True:
            place.alarm.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, place.endpoint.due - time.monotonic())):
                    await place.alarm.wait()
                    continue  # something happened to it, which also moved the time of the next look
            if place.endpoint.state == "up":
                await self._look(place)
            else:
                await self._prove(place)

    async def _look(self, place: EndpointSlot) -> None:
        """Ask an endpoint that nobody else asks whether it is ready; validators' answers are proof enough."""
        now = time.monotonic()
        if not place.endpoint.busy and now - place.answered > LOOK_SECONDS:
            try:
                await place.channel.check_ready(PROOF_SECONDS)
            except Fault as fault:
                self._doubt(place, fault)
                return
        place.endpoint.due = time.monotonic() + LOOK_SECONDS

    async def _prove(self, place: EndpointSlot) -> None:
        endpoint, was = place.endpoint, place.endpoint.state
        try:
            await place.channel.check_ready(PROOF_SECONDS)
            metadata = await place.channel.metadata(PROOF_SECONDS)
            place.signature = read_signature(metadata, self.proof.shape, self.proof.labels)
            started = time.monotonic()
            self.proof.judge(await self._known_scores(place.channel, place.signature))
        except (Fault, DetectorError) as fault:
            self._give_up(place, str(fault))
            return
        self.usual = self.usual or time.monotonic() - started
        endpoint.trust(time.monotonic() + LOOK_SECONDS)
        self._tell(endpoint, was)
        if was == "down":
            encoding = "" if place.channel.is_binary else "; with arrays as JSON, for it knows no binary ones"
            log.info("endpoint %d (%s) is used%s", endpoint.index, endpoint.name, encoding)

    async def _known_scores(self, channel: Channel, signature: Signature) -> NDArray[np.float32]:
        """Return the scores of the known picture; not every server has the extension for binary arrays, or says so."""
        channel.is_binary = True
        try:
            return await channel.scores(self.proof.array, signature, PROOF_SECONDS)
        except Fault as fault:
            if not fault.status or fault.kind == "busy":
                raise
        channel.is_binary = False
        return await channel.scores(self.proof.array, signature, PROOF_SECONDS)

    def _give_up(self, place: EndpointSlot, reason: str) -> None:
        endpoint, was, known = place.endpoint, place.endpoint.state, place.endpoint.reason
        endpoint.give_up(reason, time.monotonic())
        if was != "down" or endpoint.reason != known:
            log.warning("endpoint %d (%s) is out of use: %s", endpoint.index, endpoint.name, endpoint.reason)
        self._tell(endpoint, was)

    def _tell(self, endpoint: Endpoint, was: State) -> None:
        """Have a change of state counted: one that is over before anybody looks at the state is seen in no gauge."""
        if endpoint.state != was:
            self.observer.changed(endpoint.index, endpoint.state)


def in_words(endpoints: Sequence[Endpoint]) -> str:
    """Return why none of them can be asked."""
    return "; ".join(f"endpoint {one.index} ({one.name}): {one.reason}" for one in endpoints)
