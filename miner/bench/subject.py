"""The subject of a bench: the configured model, the variants and libraries beside it, and the photos they are asked."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from detectors.base import RunOptions, Way
from detectors.load import PreparedModel
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.sources import find_original
from detectors.photos.labelled import SUFFIXES, openable
from detectors.photos.synthetic import scene
from detectors.registry import BACKENDS, DETECTORS, PRECISIONS, exporter_class, how_to_install
from miner.bench.machine import multiply_adds
from miner.bench.worker import BenchJob
from miner.errors import ConfigurationError
from miner.inference.plan import Plan, cpu_model, fitting, library_versions, plan_of
from miner.settings.settings import Settings

Variant = tuple[str, str]  # backend, precision

SIZES = ((224, 224), (1920, 1080))
MAX_PHOTOS = 64  # of an operator's photos; each is read into every worker
QUALITY = 90


def variants(
    detector: str,
    model: PreparedModel,
    backends: Sequence[str] | None,
    precisions: Sequence[str] | None,
) -> list[Variant]:
    """Return what is to be measured: all that is there, or what was asked for.

    Raises:
        ConfigurationError: a name is unknown, or what was asked for is not there.
    """
    here = [name for name, entry in BACKENDS.items() if entry.packages]
    check_names("--backends", backends or (), here)
    check_names("--precisions", precisions or (), PRECISIONS)
    for backend in backends or ():
        if (lack := missing(backend, detector, model.config)) is not None:
            raise ConfigurationError(f"--backends={backend}: {lack}")
    usable = list(backends or (name for name in here if missing(name, detector, model.config) is None))
    found = [
        (backend, precision)
        for precision in precisions or PRECISIONS
        for backend in usable
        if model.has(precision, backend)
    ]
    for precision in precisions or ():
        if precision not in {kind for _, kind in found}:
            raise ConfigurationError(
                f"--precisions={precision}: not prepared for {model.manifest.name} and {', '.join(usable)}; "
                f"`roadwork-miner export --precision {precision}` makes it"
            )
    return found


def missing(backend: str, detector: str, config: DetectorConfig) -> str | None:
    """Return what a backend lacks here, or None; for an ensemble, what it lacks for any branch."""
    if config.branches is not None:
        lacks = (missing(backend, branch.detector, branch) for branch in config.branches.values())
        return next((lack for lack in lacks if lack is not None), None)
    package, *_ = BACKENDS[backend].packages
    if find_spec(package) is None:
        extra = BACKENDS[backend].extra or DETECTORS[detector].extra
        return f"needs the package {package!r} (extra `{extra}`; {how_to_install(extra)} installs it)"
    return lacks_library(detector, config) if BACKENDS[backend].original else None


def lacks_library(detector: str, config: DetectorConfig) -> str | None:
    """Return what the model's own library needs and is not here, or None; for an ensemble, for any branch."""
    if config.branches is not None:
        lacks = (lacks_library(branch.detector, branch) for branch in config.branches.values())
        return next((lack for lack in lacks if lack is not None), None)
    if config.onnx_path is not None:
        return f"needs a library that made the model, and {config.path.name} names an ONNX file"
    library, extra = DETECTORS[detector].library, DETECTORS[detector].extra
    for package in ("torch", library):
        if find_spec(package) is None:
            return f"needs the package {package!r} (extra `{extra}`; {how_to_install(extra)} installs it)"
    if config.model_folder is not None:
        return f"needs the original weights (hf_repo or weights_path), and {config.path.name} names an exported model"
    return None


def reference_name(detector: str, config: DetectorConfig, revision: str) -> str:
    """Return what the model's own library calls its pipeline; an ensemble has those of its branches.

    Raises:
        ConfigurationError: it can't be run here.
    """
    if (lack := lacks_library(detector, config)) is not None:
        raise ConfigurationError(f"--reference: {lack}")
    if config.branches is not None:
        return "branches' libraries"
    return exporter_class(detector)(find_original(config, revision).path, config).reference_name


def check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse an unknown name.

    Raises:
        ConfigurationError: the message lists the known ones.
    """
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{option}={name}: known: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Subject:
    """The model, who runs it, and on how many threads each."""

    settings: Settings
    model: PreparedModel
    variants: list[Variant]
    cores: int
    split: RunOptions
    tuned: dict[str, Way] = field(default_factory=dict)  # of an ensemble's branches, if they are not alike in turn

    def jobs(self, pictures: Sequence[str], *, reference: bool) -> list[BenchJob]:
        """Return a job for each competitor; the first is what all others are compared with."""
        found = [self._job(backend, precision, pictures) for backend, precision in self.variants]
        if self.tuned:
            found.append(replace(found[0], branches=self.tuned))
        if reference:
            name = reference_name(self.settings.image_detector, self.model.config, self.model.manifest.revision)
            found.insert(0, self._job(name, "fp32", pictures, is_reference=True))
        return found

    def graphs(self) -> list[BenchJob]:
        """Return a job for each graph of the variants: of an ensemble, one for each branch."""
        jobs = [self._job(backend, precision, []) for backend, precision in self.variants]
        return [replace(job, branch=name) for job in jobs for name in self.model.branches or ("",)]

    def assignments(self, variant: Variant) -> list[str]:
        """Return the settings that make a daemon serve a variant."""
        backend, precision = variant
        return [
            f"IMAGE_DETECTOR_BACKEND={backend}", f"IMAGE_DETECTOR_PRECISION={precision}",
            f"INFERENCE_SLOTS={self.split.slots}", f"INFERENCE_THREADS={self.split.threads}",
        ]  # fmt: skip

    def served(self) -> str:
        """Return what the miner would serve with these settings, as the competitor is called."""
        return self.plan().runs_on

    def plan(self) -> Plan:
        """Return the plan of these settings, on as many threads as are measured."""
        plan = plan_of(self.settings, self.model, self.cores)
        return replace(plan, branches=fitting(plan.branches, self.split.threads))

    def work(self) -> int:
        """Return the multiply-adds of a picture in all its views; of an ensemble, of all its branches."""
        models = self.model.branches.values() or [self.model]
        views = (one.config.pooled_views for one in models)
        counts = [1 if one is None else one.count for one in views]
        return sum(count * multiply_adds(one.folder / MODEL_FILE) for count, one in zip(counts, models, strict=True))

    def facts(self) -> dict[str, Any]:
        """Return what the figures depend on."""
        model = self.model.manifest
        return {
            "model": f"{model.detector} {model.name}@{model.revision}", "cpu": cpu_model(), "cores": self.cores,
            "roadwork": self.model.roadwork, "views": model.view_words,
            "libraries": library_versions(), "slots": self.split.slots, "threads": self.split.threads,
        }  # fmt: skip

    def _job(self, backend: str, precision: str, pictures: Sequence[str], *, is_reference: bool = False) -> BenchJob:
        settings = self.settings
        return BenchJob(
            kind="reference" if is_reference else "ours",
            detector=settings.image_detector,
            config=settings.detector_config,
            revision=self.model.manifest.revision,
            models_dir=str(settings.models_dir),
            backend=backend,
            precision=precision,
            slots=self.split.slots,
            threads=self.split.threads,
            pictures=list(pictures),
        )


@dataclass(frozen=True, slots=True)
class Pictures:
    """Files, what each is counted as, and which could not be opened and why."""

    paths: list[Path]
    kinds: list[str]
    left_out: list[str] = field(default_factory=list)


def made_pictures(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> Pictures:
    """Write a JPEG of each size into `folder`."""
    paths = []
    for width, height in sizes:
        path = folder / f"{width}x{height}.jpg"
        path.write_bytes(made_jpeg(width, height))
        paths.append(path)
    return Pictures(paths, [f"{width}×{height}" for width, height in sizes])


def made_jpeg(width: int, height: int) -> bytes:
    """Return an encoded street-like picture; 320×240 is about 20 kB."""
    buffer = io.BytesIO()
    Image.fromarray(scene(width, height, seed=3)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def own_pictures(folder: Path, most: int | None = MAX_PHOTOS) -> Pictures:
    """Find an operator's photos, labelled or not; None: all of them.

    Raises:
        ConfigurationError: there are none that can be opened.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"--pictures={folder}: there is no such folder")
    found = list(islice(openable(folder), most))
    paths = [one.resolve() for one in found if isinstance(one, Path)]
    left_out = [one for one in found if isinstance(one, str)]
    if not paths:
        faults = f" that can be opened ({'; '.join(left_out[:3])})" if left_out else ""
        raise ConfigurationError(f"--pictures={folder}: no {', '.join(SUFFIXES)} file in that folder{faults}")
    return Pictures(paths, ["photo"] * len(paths), left_out)
