"""The daemon's end of the shadow: its model, its photos, when it may run, and its figures.

A picture is handed over only when no request waits or runs, and the process is stopped in the moment one is admitted,
until the queue has been empty for a while. So a live request shares the cores with nobody.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from detectors.errors import DetectorConfigError, DetectorError
from detectors.load import PreparedModel
from detectors.models.calibration import TENTHS, tenth_of
from detectors.models.config import find_config, read_config
from detectors.quantize.gate import measured_best
from detectors.registry import default_backend
from miner.errors import MinerError
from miner.inference.plan import is_measured
from miner.inference.queue import Queue
from miner.metrics import Metrics
from miner.recorder.records import RequestRecord
from miner.settings.settings import Settings, environment_of
from miner.settings.validators import AUTO, REMOTE
from miner.shadow import LENGTH_PREFIX

log = logging.getLogger(__name__)

MAX_WAITING = 16  # pictures that wait for idle time; a newer one takes the place of the oldest
MAX_PHOTO_BYTES = 2**20  # bytes of a picture
QUIET_SECONDS = 0.05  # without a request, before it goes on
LOOK_SECONDS = 0.02
AGAIN_SECONDS = 60.0  # before a process that ended is started again


class ShadowFault(MinerError):
    """The second model can't be asked; the first one is not concerned."""


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """The second model: what the worker needs to load it."""

    detector: str
    config: str
    models_dir: str
    backend: str
    precision: str


@dataclass(slots=True)
class ShadowCounts:
    """What came of it so far; the seconds are those of CPU, the tenths counts of predictions, of both models."""

    same: int = 0  # on the same side of 0.5 as the model that serves
    different: int = 0
    failed: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=200))  # seconds
    tenths: list[int] = field(default_factory=lambda: [0] * TENTHS)
    tenths_served: list[int] = field(default_factory=lambda: [0] * TENTHS)

    @property
    def agreement(self) -> float | None:
        """Share of pictures that both models put on the same side; None before the first."""
        compared = self.same + self.different
        return self.same / compared if compared else None

    def take(self, served: float, probability: float, seconds: float) -> None:
        """Count a picture that both models judged."""
        if (probability > 0.5) == (served > 0.5):
            self.same += 1
        else:
            self.different += 1
        self.tenths[tenth_of(probability)] += 1
        self.tenths_served[tenth_of(served)] += 1
        self.recent.append(seconds)


class ShadowModel:
    """Lives on the event loop."""

    def __init__(
        self,
        job: ShadowJob,
        sample: float,
        busy: Callable[[], bool],
        scored: Callable[[bytes, float, float], None] = lambda photo, probability, seconds: None,
        random: Random | None = None,
    ) -> None:
        """Score a share of the pictures while not `busy()`; `scored` is told of each, its probability and seconds."""
        self.job = job
        self.sample = sample
        self.tally = ShadowCounts()
        self.name: str | None = None  # of the model, while it is loaded
        self._busy = busy
        self._scored = scored
        self._random = random or Random()  # noqa: S311 - a sample
        self._waiting: deque[tuple[float, bytes]] = deque(maxlen=MAX_WAITING)
        self._given = asyncio.Event()
        self._child: Process | None = None
        self._works = False
        self._held = False
        self._last_request = 0.0

    def offer(self, prediction: float, picture: bytes | None) -> None:
        """Take a picture that was answered, or leave it."""
        if self.name and picture and len(picture) <= MAX_PHOTO_BYTES and self._random.random() < self.sample:
            self._waiting.append((prediction, picture))
            self._given.set()

    def hold(self) -> None:
        """A request was admitted: stop at once."""
        self._last_request = time.monotonic()
        if self._works and not self._held:
            self._signal(signal.SIGSTOP)
            self._held = True

    async def run(self, environment: Mapping[str, str]) -> None:
        """Keep the process; ends with its task."""
        while True:
            try:
                await self._serve(environment)
            except ShadowFault as fault:
                log.warning("the shadow model does not run; next try in %.0f s: %s", AGAIN_SECONDS, fault)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _serve(self, environment: Mapping[str, str]) -> None:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "miner.shadow.worker", stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=dict(environment)
        )
        try:
            fields = {name: getattr(self.job, name) for name in ShadowJob.__slots__}
            hello = await self._ask(json.dumps(fields).encode() + b"\n")
            if "fault" in hello:
                raise ShadowFault(hello["fault"])
            self.name = hello["name"]
            log.info("shadow model %s scores %g of the requests in idle time", self.name, self.sample)
            while True:
                await self._score(*await self._next(self._child))
        finally:
            self.name, self._works, self._held = None, False, False
            with suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    async def _next(self, child: Process) -> tuple[float, bytes]:
        """Wait for a picture and for idle time, as long as the process is there."""
        while not (self._waiting and self._is_quiet):
            if not self._waiting:
                self._given.clear()
            waits = {asyncio.ensure_future(one) for one in (self._given.wait(), child.wait())}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:  # of a reload, too, which cancels this wait and none that it waits for
                for one in waits:
                    one.cancel()
            if child.returncode is not None:
                raise ShadowFault(f"its process ended with {child.returncode}")
            if self._waiting:
                await asyncio.sleep(LOOK_SECONDS)  # the queue has no event for being empty
        return self._waiting.popleft()

    async def _score(self, prediction: float, picture: bytes) -> None:
        answer = await self._ask(LENGTH_PREFIX.pack(len(picture)) + picture)
        if "probability" not in answer:
            self.tally.failed += 1
            return
        probability, seconds = answer["probability"], answer["seconds"]
        self.tally.take(prediction, probability, seconds)
        self._scored(picture, probability, seconds)

    async def _ask(self, data: bytes) -> Any:
        """Send, and wait for a line; hold the process while there are requests."""
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._works = True
        try:
            self._child.stdin.write(data)
            line = asyncio.ensure_future(self._child.stdout.readline())
            try:
                while not line.done():
                    await asyncio.wait({line}, timeout=LOOK_SECONDS)
                    if self._held and self._is_quiet:
                        self._signal(signal.SIGCONT)
                        self._held = False
                return json.loads(line.result())
            finally:
                line.cancel()
        except (OSError, ValueError) as error:
            raise ShadowFault(f"its process ended with {self._child.returncode}") from error
        finally:
            self._works = False

    @property
    def _is_quiet(self) -> bool:
        return not self._busy() and time.monotonic() - self._last_request >= QUIET_SECONDS

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        with suppress(ProcessLookupError):
            os.kill(self._child.pid, number)


class ShadowKeeper:
    """Keeps the shadow's task, and the metrics, which go on counting over all shadows."""

    def __init__(self, queue: Queue, metrics: Metrics) -> None:
        self.shadow: ShadowModel | None = None
        self.told: list[Callable[[bytes, float], None]] = []  # of each photo, and its probability
        self._queue = queue
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._past: Counter[str] = Counter()  # what earlier shadows have compared
        metrics.shadow_up.set_function(lambda: self.shadow is not None and self.shadow.name is not None)
        metrics.shadow_compared.set_function(lambda: self._compared()["same"], "same")
        metrics.shadow_compared.set_function(lambda: self._compared()["different"], "different")
        metrics.shadow_compared.set_function(lambda: self._compared()["failed"], "failed")

    def request_ended(self, record: RequestRecord, photo: bytes | None = None) -> None:
        """Show the shadow a photo that the model was asked about for this request."""
        if self.shadow is not None and record.prediction is not None and not record.is_shared:
            self.shadow.offer(record.prediction, photo)

    def hold(self) -> None:
        """A request was admitted."""
        if self.shadow is not None:
            self.shadow.hold()

    def begin(self, settings: Settings) -> None:
        """Have the settings' second model score from now on, if they name one."""
        job = job_of(settings)
        if job is None:
            return
        queue = self._queue
        self.shadow = ShadowModel(
            job, settings.shadow_sample, lambda: bool(queue.waiting or queue.running), self._scored
        )
        self._task = asyncio.create_task(self.shadow.run(environment_of(settings)), name="shadow")

    async def renew(self, settings: Settings) -> None:
        """Another model serves: what was compared with the old one is past, and one that took its place has no use."""
        await self.end()
        job = job_of(settings)
        if job is not None and is_served(job, settings):
            log.info("the shadow model %s serves now, so its shadow is stopped", job.config)
        else:
            self.begin(settings)

    async def end(self) -> None:
        """End the shadow and its process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._past, self.shadow, self._task = self._compared(), None, None

    def _compared(self) -> Counter[str]:
        if self.shadow is None:
            return self._past
        tally = self.shadow.tally
        return self._past + Counter(same=tally.same, different=tally.different, failed=tally.failed)

    def _scored(self, photo: bytes, probability: float, seconds: float) -> None:
        self._metrics.shadow_predictions.observe(probability)
        self._metrics.shadow_seconds.observe(seconds)
        for tell in self.told:
            tell(photo, probability)


def job_of(settings: Settings) -> ShadowJob | None:
    """Return the second model, run as the first one is, but on this machine; None when none is wanted."""
    if not settings.shadow_detector_config or not settings.shadow_sample:
        return None
    backend, precision = settings.image_detector_backend, settings.image_detector_precision
    measured = None
    if is_measured(settings):
        with contextlib.suppress(DetectorError):  # loading will say it
            config = read_config(settings.shadow_detector_config)
            measured = measured_best(PreparedModel.find(config, settings.models_dir), precision)
    return ShadowJob(
        detector=settings.shadow_detector or settings.image_detector,
        config=settings.shadow_detector_config,
        models_dir=str(settings.models_dir),
        backend=measured or (default_backend(precision) if backend in (AUTO, REMOTE) else backend),
        precision="fp32" if precision == AUTO else precision,
    )


def is_served(job: ShadowJob, settings: Settings) -> bool:
    """Return whether the second model is the first one."""
    try:
        places = find_config(job.config), find_config(settings.detector_config)
    except DetectorConfigError:
        return False
    return job.detector == settings.image_detector and places[0] == places[1]
