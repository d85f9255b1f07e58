"""The simulation run: the photos are read, the plan is made, sent and summed up."""

import asyncio
import io
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from detectors.photos.labelled import LabelledPhotos
from detectors.photos.synthetic import scene
from detectors.photos.transforms import Era, prepare
from miner.axon.client import Client, another
from miner.errors import CouldNotStart
from miner.simulate.miners import wait_until_known
from miner.simulate.report import Report, summed_up
from miner.simulate.schedule import ROUND_MINERS, Request, SimulatedSubnet, plan
from miner.simulate.sender import PREPARED_PICTURES, ScheduledRequest, SentAnswer, judged, send_all

SYNTHETIC_PHOTOS = 40
SYNTHETIC_SIZE = (640, 360)  # pixels, of the made ones

PACE_PROBES = 5  # lone requests that tell the miner's pace
LOAD_SHARE = 0.2  # of the miner's time that a subnet at the chosen speed asks for
MAX_SPEED = 300.0
START_SECONDS = 10.0  # seconds for a miner that has just started
PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class SimulatedPhoto:
    """A photo and whether it shows roadwork; made ones have no file."""

    name: str
    is_roadwork: bool
    path: Path | None = None

    def read(self) -> bytes:
        """Return the encoded photo.

        Raises:
            OSError: it can't be read.
        """
        if self.path is not None:
            return self.path.read_bytes()
        buffer = io.BytesIO()
        Image.fromarray(scene(*SYNTHETIC_SIZE, seed=int(self.name))).save(buffer, "PNG")
        return buffer.getvalue()


def labelled_photos(found: LabelledPhotos) -> list[SimulatedPhoto]:
    """Return what was read of a labelled folder, in its order, so that a seed means the same wherever the folder is."""
    return [SimulatedPhoto(one.name, is_roadwork=one.label == 1, path=one.path) for one in found.photos]


def made_photos() -> list[SimulatedPhoto]:
    """Return pictures made by arithmetic: good for times, and no measure of a model that knows real roads."""
    return [
        SimulatedPhoto(str(seed), is_roadwork=seed % 5 > 0) for seed in range(SYNTHETIC_PHOTOS)
    ]  # with cones, but every fifth


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What was asked, what came back, the sum of it, and which photos could no longer be read."""

    requests: list[Request]
    answers: list[SentAnswer]
    report: Report
    unread: list[str]


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What is played: who asks, what photos, prepared how; `speed` None: as the miner's pace allows."""

    subnet: SimulatedSubnet
    photos: Sequence[SimulatedPhoto]
    era: Era
    seed: int
    speed: float | None = None
    duration: float | None = None

    def picture(self, request: Request) -> bytes:
        """Return what the validator sends; the same for the same photos, seed and number.

        Raises:
            CouldNotStart: the photo is no longer what it was.
        """
        random, photo = np.random.default_rng([self.seed, request.number]), self.photos[request.picture]
        try:
            data = prepare(photo.read(), self.era, random)
        except OSError as error:
            raise CouldNotStart(f"{photo.name}: can't be read any more: {error.strerror or error}") from error
        # Of few photos some are sent twice in a burst, which are to be as many pictures to the miner.
        return another(data, request.number) if self.subnet.burst else data

    def requests(self, speed: float) -> list[Request]:
        """Return all that is asked, in order."""
        requests = plan(self._subnet(speed), [photo.is_roadwork for photo in self.photos], self.seed)
        return self.begun(requests, speed)

    def begun(self, requests: Sequence[Request], speed: float) -> list[Request]:
        """Return those that begin within the duration: the first ones, so that numbers stay."""
        return [one for one in requests if self.duration is None or one.at / speed <= self.duration]

    def _subnet(self, speed: float) -> SimulatedSubnet:
        """Return the subnet with as many rounds as the duration may need, and some more, so that none is missed."""
        if self.duration is None:
            return self.subnet
        rounds = int(self.duration * speed / (self.subnet.interval * self.subnet.miners / ROUND_MINERS)) + 3
        return replace(self.subnet, rounds=min(self.subnet.rounds, rounds))


async def play(
    what: SimulationPlan, clients: Sequence[Client], told: bool, progress: Callable[[list[Request], SentAnswer], None]
) -> PlayResult:
    """Play it through: until the last request, the duration or Ctrl-C.

    Raises:
        CouldNotStart: the miner is not there.
    """
    answers: list[SentAnswer] = []
    async with connected(what, clients):
        if told:
            await wait_until_known(clients)
        speed = what.speed or await measured_speed(what, clients[0])
        requests = what.requests(speed)
        pictures = SentPictures(what, requests)

        def ended(answer: SentAnswer) -> None:
            answers.append(answer)
            progress(requests, answer)

        seconds = await send(requests, pictures, clients, speed, ended)
    report = summed_up(requests, answers, what.subnet.callers, seconds, speed)
    return PlayResult(requests, sorted(answers, key=lambda one: one.number), report, list(pictures.unread))


@asynccontextmanager
async def connected(what: SimulationPlan, clients: Sequence[Client]) -> AsyncIterator[None]:
    """Open the clients, once the miner takes requests.

    Raises:
        CouldNotStart: the miner is not there.
    """
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client)
        await wait_until_there(clients[0], what.picture(Request(0, 0.0, 0.0, 0, 0, is_roadwork=False)))
        yield


class SentPictures:
    """What is sent with each request, by its number; `unread` says of which photos it is no longer known."""

    def __init__(self, what: SimulationPlan, requests: Sequence[Request]) -> None:
        self._what = what
        self._requests = {request.number: request for request in requests}
        self.unread: dict[str, None] = {}

    def __call__(self, number: int) -> bytes | None:
        """Return the encoded picture; None: its photo can't be read."""
        try:
            return self._what.picture(self._requests[number])
        except CouldNotStart as error:  # the others go on
            self.unread[str(error)] = None
            return None


async def send(
    requests: Sequence[Request], picture: Callable[[int], bytes | None], clients: Sequence[Client], speed: float,
    ended: Callable[[SentAnswer], None],
) -> float:  # fmt: skip
    """Send requests, until the last one or Ctrl-C, which is told by fewer answers; return the seconds it took."""
    sendings = [ScheduledRequest(one.number, one.at, one.delay, one.validator) for one in requests]
    at_once = max(Counter(one.at for one in requests).values(), default=0)
    started = time.monotonic()
    await send_all(sendings, picture, clients, speed, on_interrupt(), ended, max(PREPARED_PICTURES, at_once))
    return time.monotonic() - started


async def wait_until_there(client: Client, picture: bytes) -> None:
    """Wait for a moment until the miner no longer says that it is not ready.

    Raises:
        CouldNotStart: nobody is there.
    """
    deadline = time.monotonic() + START_SECONDS
    while (reply := await client.ask(picture)).status == 503 and time.monotonic() < deadline:  # noqa: ASYNC110 - asking
        await asyncio.sleep(PAUSE_SECONDS)
    if reply.status == 0 and not reply.timed_out:
        raise CouldNotStart(f"no miner at {client.address}: {reply.message}")


def on_interrupt() -> asyncio.Event:
    """Return an event that Ctrl-C sets, so that a run that is cut short is summed up too."""
    stop = asyncio.Event()
    with suppress(NotImplementedError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    return stop


async def measured_speed(what: SimulationPlan, client: Client) -> float:
    """Return the speed at which this miner, asked one by one, would be busy for a fifth of the time."""
    pictures = (what.picture(Request(number, 0.0, 0.0, 0, 0, is_roadwork=False)) for number in range(PACE_PROBES + 1))
    replies = [judged(0, await client.ask(picture)) for picture in pictures][1:]  # the first warms up
    pace = statistics.median(reply.seconds for reply in replies)
    subnet = what.subnet
    a_second = subnet.validators / subnet.interval * ROUND_MINERS / subnet.miners / (1 - subnet.organic)
    a_second += subnet.burst / subnet.every
    exact = min(MAX_SPEED, max(1.0, LOAD_SHARE / (a_second * pace)))
    return float(f"{exact:.1g}")
