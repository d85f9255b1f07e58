"""The reload: another model is loaded and compared beside the one that serves, which it then replaces.

Of the settings, which are read again, only those that choose the model and its shadow are taken. Whatever goes wrong
changes nothing.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from detectors.base import Detector
from detectors.errors import DetectorError
from detectors.evaluation.evaluate import ModelComparison, compare
from miner.errors import ConfigurationError, CouldNotStart, StartError
from miner.inference import memory
from miner.inference.background import on_a_thread
from miner.inference.loader import LoadedModel, ModelLoader, in_words
from miner.inference.service import Service
from miner.metrics import Metrics
from miner.settings.settings import Settings

log = logging.getLogger(__name__)

MODEL_KEYS = (
    "image_detector", "image_detector_config", "image_detector_backend", "image_detector_precision",
    "shadow_detector", "shadow_detector_config", "shadow_sample",
)  # fmt: skip
COMPARE_SECONDS = 5.0  # the comparison shares the cores with validators' pictures
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """How a reload ended, in words, and when."""

    ok: bool
    text: str
    at: float


class Reloader:
    """Reloads when asked, one after the other.

    Args:
        loader: of the model that serves.
        service: gets another model.
        metrics: count how reloads end.
        reread: reads the settings again.
        replaced: told of the settings of another model once it serves.
    """

    def __init__(
        self,
        loader: ModelLoader,
        service: Service,
        metrics: Metrics,
        reread: Callable[[], Settings],
        replaced: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self.loader = loader
        self.service = service
        self.metrics = metrics
        self.asked = 0  # how often
        self.done = 0  # and how many of these were seen to; asked during a reload: one more does for all
        self.outcome: ReloadResult | None = None  # of the last
        self._reread = reread
        self._replaced = replaced
        self._started_with = loader.settings
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Begin a reload, or have another one follow that which runs."""
        self.asked += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="reload")
            self._task.add_done_callback(self._report)

    async def stop(self) -> None:
        """Give up what runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        while self.done < self.asked:
            number = self.asked
            try:
                loader, loaded, comparison = await self._prepare()
            except StartError as error:
                self._end(number, False, "; ".join(str(error).splitlines()))
                continue
            self.loader = loader
            old = self.service.replace(loaded.detector, *loaded.paces)
            loader.show(loaded)
            await self._replaced(loader.settings)
            words = in_words(loaded.detector)
            self._end(number, True, f"{words}, {comparison}" if comparison is not None else words)
            del loader, loaded
            await self._retire(old)
            del old
            await asyncio.to_thread(_let_go)

    async def _prepare(self) -> tuple[ModelLoader, LoadedModel, ModelComparison | None]:
        loader = self.loader.beside(self._settings())
        memory.keep_large_blocks_apart()
        try:
            loaded = await loader.load()
        finally:
            memory.keep_pictures_together()
        old = self.service.detector
        recent = list(self.service.recent)
        try:
            comparison = await on_a_thread(
                lambda: compare(old, loaded.detector, recent, COMPARE_SECONDS),
                COMPARE_SECONDS + loader.patience,
                "the model did not answer the pictures of the comparison",
            )
        except DetectorError as error:
            loaded.detector.close()
            raise CouldNotStart(str(error)) from error
        if comparison is not None and comparison.flips > comparison.pictures / 2:
            log.warning("most predictions of the new model are reversed: are its labels swapped?")
        return loader, loaded, comparison

    def _settings(self) -> Settings:
        """Return the settings of the start with the model's as they are now.

        Raises:
            ConfigurationError: they are wrong, or ask for what takes a restart.
        """
        now, was = self._reread(), self._started_with
        others = [
            name.upper()
            for name in type(was).model_fields
            if name not in MODEL_KEYS and getattr(now, name) != getattr(was, name)
        ]
        if others:
            log.warning("changed, and only taken up by a restart: %s", ", ".join(others))
        if now.is_remote != was.is_remote:
            raise ConfigurationError(
                f"IMAGE_DETECTOR_BACKEND={now.image_detector_backend}: to or from remote takes a restart"
            )
        return was.model_copy(update={name: getattr(now, name) for name in MODEL_KEYS})

    async def _retire(self, old: Detector) -> None:
        """Let the old model go when no picture is worked on by it any more."""
        queue = self.service.scheduler.queue
        last, until = set(queue.running), time.monotonic() + self.loader.settings.deadline_cap_seconds
        while last & set(queue.running) and time.monotonic() < until:  # noqa: ASYNC110 - a look
            await asyncio.sleep(LOOK_SECONDS)
        old.close()

    def _end(self, number: int, ok: bool, text: str) -> None:
        self.done, self.outcome = number, ReloadResult(ok, text, time.time())
        self.metrics.reloads.labels("ok" if ok else "failed").inc()
        if ok:
            log.info("reloaded: %s", text)
        else:
            log.error("reload failed, the old model keeps serving: %s", text)

    def _report(self, task: asyncio.Task[None]) -> None:
        """Say what ended the reloads: a fault of ours, since a model's are all expected."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("a reload raised an unexpected error", exc_info=error)
            self._end(self.asked, False, f"{type(error).__name__}, see the log")


def _let_go() -> None:
    """Give the old model's memory back.

    The tracebacks of requests that failed hold its frames, in cycles that only the collector finds: 30 MB and its
    threads stayed for thousands of requests.
    """
    gc.collect()
    memory.give_back()
