"""What a bench is of: the configured model, its variants, and the threads they get."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectors.backends import MODEL_FILE
from detectors.load import class_words
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder
from miner.bench.entrants import Variant, reference_name
from miner.bench.job import Job
from miner.bench.machine import multiply_adds
from miner.inference.plans import cpu_model, library_versions, plan_of, stored_plan
from miner.inference.threads import ThreadPlan
from miner.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Subject:
    """The model, who runs it, and on how many threads each."""

    settings: Settings
    config: DetectorConfig
    manifest: Manifest
    variants: list[Variant]
    cores: int
    split: ThreadPlan

    def jobs(self, pictures: Sequence[str], *, reference: bool) -> list[Job]:
        """Return a job for each competitor; the first is what all others are compared with."""
        found = [self._job(backend, precision, pictures) for backend, precision in self.variants]
        if reference:
            name = reference_name(self.settings.image_detector, self.config, self.manifest.revision)
            found.insert(0, self._job(name, "fp32", pictures, is_reference=True))
        return found

    def assignments(self, variant: Variant) -> list[str]:
        """Return the settings that make a daemon serve a variant."""
        backend, precision = variant
        return [
            f"IMAGE_DETECTOR_BACKEND={backend}", f"IMAGE_DETECTOR_PRECISION={precision}",
            f"INFERENCE_SLOTS={self.split.slots}", f"INFERENCE_THREADS={self.split.threads}",
        ]  # fmt: skip

    def served(self) -> Variant:
        """Return what the miner would serve with these settings."""
        plan = plan_of(self.settings, self.cores, stored_plan(self.settings, self.cores))
        return plan.backend, plan.precision

    def work(self) -> int:
        """Return the multiply-adds of a picture; of an ensemble, of all its branches."""
        each = self.config.branches.values() if self.config.branches is not None else [self.config]
        return sum(multiply_adds(model_folder(one, self.settings.models_dir) / MODEL_FILE) for one in each)

    def facts(self) -> dict[str, Any]:
        """Return what the figures depend on."""
        model = self.manifest
        return {
            "model": f"{model.detector} {model.name}@{model.revision}", "cpu": cpu_model(), "cores": self.cores,
            "roadwork": class_words(self.config, self.settings.models_dir),
            "libraries": library_versions(), "slots": self.split.slots, "threads": self.split.threads,
        }  # fmt: skip

    def _job(self, backend: str, precision: str, pictures: Sequence[str], *, is_reference: bool = False) -> Job:
        settings = self.settings
        return Job(
            kind="reference" if is_reference else "ours",
            detector=settings.image_detector,
            config=settings.detector_config,
            revision=self.manifest.revision,
            models_dir=str(settings.models_dir),
            backend=backend,
            precision=precision,
            slots=self.split.slots,
            threads=self.split.threads,
            pictures=list(pictures),
        )
