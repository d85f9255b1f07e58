"""The model's life: prepared once, verified and warmed up before ready, reloaded beside the running one."""

import asyncio
import logging
import sys
import time

from detectors.base import Detector, RunOptions
from detectors.config import DetectorConfig, read_config
from detectors.errors import DetectorConfigError, ModelError, NotPrepared
from detectors.loading import load_detector
from detectors.manifest import NAME as MANIFEST
from detectors.manifest import Manifest
from detectors.weights import model_folder, variant_folder
from miner.errors import ConfigurationError, CouldNotStart, StartError
from miner.metrics import Metrics
from miner.plan import Plan, choose, cpu_model, library_versions, plan_key, read_plan
from miner.settings import Settings, environment_of
from miner.threads import allowed_cores

log = logging.getLogger(__name__)

VALIDATORS_WAIT = 9.0  # seconds


class ModelLoader:
    """Loads the configured model; blocking work runs in threads, so that the status port answers meanwhile."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.cores = allowed_cores()
        self._split: RunOptions | None = None  # of the first load; the scheduler's slots do not change afterwards

    async def load(self) -> tuple[Detector, float]:
        """Return the detector, verified and warm, and the seconds one picture takes.

        Raises:
            ConfigurationError: the configuration names no model.
            CouldNotStart: the model is damaged, can't be loaded, or is too slow to be of use.
        """
        try:
            detector, pace, seconds = await asyncio.to_thread(self._load)
        except NotPrepared:
            await self._prepare()
            detector, pace, seconds = await asyncio.to_thread(self._load)
        self._check_pace(pace)
        self.metrics.loaded(detector, *seconds)
        return detector, pace

    def _load(self) -> tuple[Detector, float, tuple[float, float]]:
        """Return the detector, the seconds one picture takes, and those of loading and of warming up."""
        settings, started = self.settings, time.monotonic()
        try:
            config = read_config(settings.detector_config)
            plan = self._plan(config)
            options = plan.options if self._split is None else self._split
            log.info(
                "serving with %s %s, %d × %d threads (%s)",
                plan.backend,
                plan.precision,
                options.slots,
                options.threads,
                plan.why,
            )
            detector = load_detector(
                settings.image_detector, config, settings.models_dir, plan.backend, options, plan.precision
            )
            self._split = options
            loaded = time.monotonic()
            pace = detector.verify()
        except DetectorConfigError as error:
            raise ConfigurationError(f"IMAGE_DETECTOR_CONFIG={settings.detector_config}: {error}") from error
        except NotPrepared:
            raise
        except ModelError as error:
            raise CouldNotStart(str(error)) from error
        return detector, pace, (loaded - started, time.monotonic() - loaded)

    def _plan(self, config: DetectorConfig) -> Plan:
        """Return how to serve; a tuned plan whose variant is gone is passed over."""
        folder = model_folder(config, self.settings.models_dir)
        manifest = Manifest.read(folder)
        key = plan_key(manifest, self.cores, cpu_model(), library_versions())
        tuned = read_plan(self.settings.models_dir, key)
        if tuned is not None and tuned.precision != "fp32":
            variant = variant_folder(manifest, self.settings.models_dir, tuned.precision, tuned.backend)
            if not (variant / MANIFEST).is_file():
                tuned = None
        return choose(self.settings, self.cores, tuned)

    async def _prepare(self) -> None:
        """Fetch and export the model in a process of its own, so that torch never enters this one."""
        name = self.settings.detector_config
        log.info("%s is not prepared yet: fetching and exporting it, once", name)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "miner", "models", "download", env=environment_of(self.settings)
        )
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            child.terminate()
            raise
        if code != 0:
            kind: type[StartError] = ConfigurationError if code == ConfigurationError.exit_code else CouldNotStart
            raise kind(f"IMAGE_DETECTOR_CONFIG={name}: the model could not be prepared, for the reason above")

    def _check_pace(self, pace: float) -> None:
        allowed = min(VALIDATORS_WAIT, self.settings.deadline_cap_seconds) - self.settings.deadline_margin_seconds
        if pace > allowed:
            raise CouldNotStart(
                f"one picture takes {pace:.1f} s with {self.settings.detector_config}, and an answer must be on its "
                f"way after {allowed:.1f} s: take a smaller model or a faster machine"
            )


def in_words(detector: Detector) -> str:
    """Return the detector's name, revision, backend and precision."""
    model = detector.manifest
    return f"{model.detector} {model.name}@{model.revision[:12]} ({detector.backend_name}, {model.precision})"
