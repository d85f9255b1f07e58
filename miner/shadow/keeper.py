"""The shadow of the moment: of the start, or of the last reload, which begins another count."""

import asyncio
import logging
from collections import Counter

from miner.inference.scheduler import Scheduler
from miner.metrics import Metrics
from miner.settings.settings import Settings, environment_of
from miner.shadow.choice import is_served, job_of
from miner.shadow.shadow import Shadow

log = logging.getLogger(__name__)


class ShadowKeeper:
    """Keeps the shadow's task, and the metrics, which go on counting over all shadows."""

    def __init__(self, scheduler: Scheduler, metrics: Metrics) -> None:
        self.shadow: Shadow | None = None
        self._scheduler = scheduler
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._past: Counter[str] = Counter()  # what earlier shadows have compared
        scheduler.admitted = self.hold
        metrics.shadow_up.set_function(lambda: self.shadow is not None and self.shadow.name is not None)
        metrics.shadow_compared.set_function(lambda: self._compared()["same"], "same")
        metrics.shadow_compared.set_function(lambda: self._compared()["different"], "different")
        metrics.shadow_compared.set_function(lambda: self._compared()["failed"], "failed")

    def offer(self, prediction: float, picture: bytes | None) -> None:
        """Show the shadow a picture that was answered."""
        if self.shadow is not None:
            self.shadow.offer(prediction, picture)

    def hold(self) -> None:
        """A request was admitted."""
        if self.shadow is not None:
            self.shadow.hold()

    def begin(self, settings: Settings) -> None:
        """Have the settings' second model score from now on, if they name one."""
        job = job_of(settings)
        if job is None:
            return
        scheduler = self._scheduler
        self.shadow = Shadow(
            job, settings.shadow_sample, lambda: bool(scheduler.waiting + scheduler.running), self._scored
        )
        self._task = asyncio.create_task(self.shadow.run(environment_of(settings)), name="shadow")

    async def renew(self, settings: Settings) -> None:
        """Another model serves: what was compared with the old one is past, and one that took its place has no use."""
        await self.end()
        job = job_of(settings)
        if job is not None and is_served(job, settings):
            log.info("the shadow model %s is the one that serves now: it scores no more", job.config)
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

    def _scored(self, probability: float, seconds: float) -> None:
        self._metrics.shadow_predictions.observe(probability)
        self._metrics.shadow_seconds.observe(seconds)
