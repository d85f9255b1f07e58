"""The loader of the model: prepared once, verified and warmed up before ready, reloaded beside the running one."""

import asyncio
import logging
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from detectors.base import Detector, RunOptions
from detectors.errors import DetectorConfigError, DetectorError, NotPrepared
from detectors.load import PreparedModel, load_model
from detectors.machine import allowed_cores
from detectors.models.config import read_config
from detectors.quantize.gate import renewal
from miner.errors import ConfigurationError, CouldNotStart, StartError
from miner.inference.background import begin_on_a_thread, on_a_thread
from miner.inference.pace import StagePace, stages_in_time
from miner.inference.plan import fitting, plan_of, planned_paces, stored_plan
from miner.settings.settings import Settings, environment_of
from miner.settings.validators import VALIDATORS_WAIT

if TYPE_CHECKING:  # the metrics are imported while the model is loaded
    from miner.inference.remote import RemoteMetrics
    from miner.metrics import Metrics

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**16  # of a child's output
WRITE_SECONDS = 1.0  # for which a log may take nothing
ERROR_PREFIX = "error: "  # as `miner.cli.common` begins such a line
LOAD_SECONDS = 120.0  # for the sums, and for the graph to be optimised


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A detector that has not proved itself yet, the seconds that took, and why it is this one."""

    detector: Detector
    seconds: float
    words: str


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A detector, verified and warm, the seconds that each stage of it takes, and those of loading and warming up."""

    detector: Detector
    paces: tuple[float, ...]
    load_seconds: float
    warmup_seconds: float


class ModelLoader:
    """Loads the configured model; blocking work runs in threads, so that the status port answers meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cores = allowed_cores()
        self.metrics: Metrics | None = None
        self.remote: RemoteMetrics | None = None
        self._split: RunOptions | None = None  # of the first load; the scheduler's slots do not change afterwards
        self._begun: Future[OpenedModel] | None = None

    def begin(self) -> None:
        """Start to load, on a thread: the rest of the program is imported meanwhile, which takes as long."""
        if not self.settings.is_remote and not self.settings.tune_on_start:
            self._begun = begin_on_a_thread(self._open)

    def show_in(self, metrics: "Metrics") -> None:
        """Show in these metrics what is loaded, and how it does elsewhere."""
        self.metrics = metrics
        if self.settings.is_remote:
            from miner.inference.remote import RemoteMetrics, addresses

            self.remote = RemoteMetrics(metrics.registry, addresses(self.settings))

    def beside(self, settings: Settings) -> Self:
        """Return a loader for other settings, which keeps to this one's split of the machine."""
        other = copy(self)
        other.settings = settings
        return other

    def show(self, loaded: LoadedModel) -> None:
        """Show the model that serves from now on."""
        assert self.metrics is not None
        self.metrics.loaded(loaded.detector, loaded.load_seconds, loaded.warmup_seconds)
        if self.remote is not None and loaded.detector.elsewhere is not None:
            self.remote.see(loaded.detector.elsewhere)

    async def load(self) -> LoadedModel:
        """Return the configured model.

        Raises:
            ConfigurationError: the configuration names no model.
            CouldNotStart: the model is damaged, can't be loaded, hangs, or is too slow to be of use.
        """
        try:
            loaded = await self._load(await self._tune_if_asked())
        except NotPrepared:
            log.info("%s is not prepared yet: fetching and exporting it, once", self.settings.detector_config)
            await self._run_child("models", "download")
            try:
                loaded = await self._load(await self._tune_if_asked())
            except NotPrepared as error:
                raise CouldNotStart(f"{self.settings.detector_config} was prepared, and yet {error}") from error
        self._check_pace(loaded)
        return loaded

    @property
    def split(self) -> RunOptions:
        """What the first model was loaded with: the slots and threads of this process."""
        assert self._split is not None, "nothing was loaded yet"
        return self._split

    async def _load(self, model: PreparedModel | None) -> LoadedModel:
        limit = self.patience
        opening: Callable[[], OpenedModel] = partial(self._open, model) if self._begun is None else self._begun.result
        self._begun = None
        try:
            opened = await on_a_thread(opening, max(LOAD_SECONDS, limit), "the model was not loaded")
            log.info("serving with %s", opened.words)
            detector, began = opened.detector, time.monotonic()
            try:
                await on_a_thread(detector.verify, limit, "the model did not answer the known picture")
            except DetectorError:
                detector.close()
                raise
        except DetectorConfigError as error:
            raise ConfigurationError(self.settings.why_no_model(error)) from error
        except NotPrepared:
            raise
        except DetectorError as error:
            raise CouldNotStart(str(error)) from error
        detector.hold()  # `Health` looks again and again
        return LoadedModel(detector, detector.paces, opened.seconds, time.monotonic() - began)

    @property
    def patience(self) -> float:
        """Seconds after which a model that is tried out is given up; cold, it takes longer than a picture may."""
        return 4 * self.settings.inference_limit_seconds

    def _find(self) -> PreparedModel:
        config = read_config(self.settings.detector_config)
        if self.settings.inference_stages == "all":
            config = config.model_copy(update={"stages": []})  # the last one, whatever the others would say
        return PreparedModel.find(config, self.settings.models_dir)

    def _open(self, model: PreparedModel | None = None) -> OpenedModel:
        settings, started = self.settings, time.monotonic()
        model = model or self._find()
        plan = plan_of(settings, model, self.cores)
        options = plan.options
        if self._split is not None:
            options = replace(options, slots=self._split.slots, threads=self._split.threads)
        if self.remote is not None:
            from miner.inference.remote import engine_options

            options = replace(options, engine=engine_options(settings, self.cores, self.remote))
        options = replace(options, max_pixels=settings.max_image_pixels)
        ways = fitting(plan.branches, options.threads)
        detector = load_model(settings.image_detector, model, plan.backend, options, plan.precision, ways)
        old, cure = renewal(model, plan.precision, plan.backend, ways)
        if old:
            log.info("%s: %s", old, cure)
        self._split = options
        words = f"{replace(plan, branches=ways).runs_on}, {options.slots} × {options.threads} threads ({plan.why})"
        return OpenedModel(detector, time.monotonic() - started, words)

    async def _tune_if_asked(self) -> PreparedModel | None:
        """Tune before the first start on a machine; what keeps it from that is no reason not to serve.

        Returns:
            The model, where that was looked for.
        """
        model = None
        if not self.settings.tune_on_start or self.settings.is_remote or self._split is not None:
            return model  # a reload shares the machine with validators' pictures: nothing could be measured then
        try:
            model = await asyncio.to_thread(self._find)
            if await asyncio.to_thread(stored_plan, self.settings, model, self.cores) is None:
                log.info("tuning for this machine, once: about a minute, of an ensemble for each branch")
                await self._run_child("tune")
        except NotPrepared:
            raise
        except StartError as error:
            log.warning("serving untuned: %s", error)
        except DetectorError:
            pass  # loading will say it
        return model

    async def _run_child(self, *command: str) -> None:
        """Run a command of ours in a process of its own, so that torch never enters this one."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "miner", *command, "--no-env-file",
            env=environment_of(self.settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert child.stdout is not None
        try:
            output = await _pass_on(child.stdout)
            code = await child.wait()
        except asyncio.CancelledError:
            child.terminate()
            raise
        if code != 0:
            kind: type[StartError] = ConfigurationError if code == ConfigurationError.exit_code else CouldNotStart
            where = f"IMAGE_DETECTOR_CONFIG={self.settings.detector_config}: "
            reason = _why_it_failed(output, code).removeprefix(where)
            raise kind(f"{where}`roadwork-miner {' '.join(command)}` failed: {reason}")

    def _check_pace(self, loaded: LoadedModel) -> None:
        allowed = seconds_allowed(self.settings)
        paces = planned_paces(self.settings.inference_stages, loaded.paces)
        if (pace := paces[0]) > allowed:
            loaded.detector.close()
            raise CouldNotStart(
                f"one picture takes {pace:.1f} s with {self.settings.detector_config}, and an answer must be on "
                f"its way after {allowed:.1f} s: take a smaller model or a faster machine"
            )
        stages = [StagePace(seconds) for seconds in paces]
        if (number := stages_in_time(stages, allowed)) < len(stages):
            log.warning(
                "the stage %s is never begun: with those before it may take %.1f s, and %.1f are left for an answer",
                loaded.detector.stages[number], sum(paces[:number]) + stages[number].longest, allowed,
            )  # fmt: skip


async def _pass_on(output: asyncio.StreamReader) -> str:
    """Write what a child says to our own stderr, as it comes and off the loop; return the last of it."""
    last = b""
    while chunk := await output.read(CHUNK_BYTES):
        last = (last + chunk)[-CHUNK_BYTES:]
        await asyncio.to_thread(_write, chunk)
    return last.decode("utf-8", errors="replace")


def _write(data: bytes) -> None:
    """Write to stderr what it takes: a pipe that nobody reads shall hold up neither the child nor our end."""
    if sys.stderr is None:  # closed before we began
        return
    with suppress(OSError):
        number = sys.stderr.fileno()
        while data and select.select([], [number], [], WRITE_SECONDS)[1]:
            data = data[os.write(number, data[: select.PIPE_BUF]) :]


def _why_it_failed(output: str, code: int) -> str:
    """Return the errors that a command of ours ended with, on one line; else what killed it, or its last line."""
    lines = [line.strip() for line in output.splitlines()]
    errors = [line.removeprefix(ERROR_PREFIX) for line in lines if line.startswith(ERROR_PREFIX)]
    if errors:
        return "; ".join(errors)
    if code < 0:
        doubt = "; for its memory?" if code == -signal.SIGKILL else ""
        return f"it was ended by {signal.Signals(-code).name}{doubt}"
    return next((line for line in reversed(lines) if re.search(r"\w", line)), f"exit code {code}")


def seconds_allowed(settings: Settings) -> float:
    """Return the seconds after which an answer has to be on its way, at the validators' patience."""
    return min(VALIDATORS_WAIT, settings.deadline_cap_seconds) - settings.deadline_margin_seconds


def in_words(detector: Detector) -> str:
    """Return the detector's name, revision, backend and precision, views and stages, and which class counts."""
    model = detector.manifest
    stages = f"{len(detector.stages)} stages" if len(detector.stages) > 1 else ""
    runs = "; ".join(filter(None, (detector.runs_on, detector.view_words, stages)))
    return f"{model.detector} {model.name}@{model.revision[:12]} ({runs}), roadwork = {detector.roadwork}"
