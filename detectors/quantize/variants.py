"""The faster variants of a model that are on this disk, and which of them serves best."""

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from detectors.errors import NotPrepared
from detectors.load import has_variant
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder, variant_folder
from detectors.quantize.gate import best
from detectors.registry import BACKENDS, RECIPES

log = logging.getLogger(__name__)

Sums = list[tuple[str, list[tuple[str, str]]]]


def model_sums(config: DetectorConfig, models_dir: Path) -> Sums:
    """Return the sums of a model's files and of those of its faster variants, by folder; of an ensemble, of all.

    Raises:
        NotPrepared: the model is not on this disk yet.
        ModelError: a manifest can't be read.
    """
    return [
        (f"{manifest.name} {folder.name}", sorted(manifest.files.items()))
        for folder, manifest in prepared_folders(config, models_dir)
    ]


def prepared_folders(config: DetectorConfig, models_dir: Path) -> Iterator[tuple[Path, Manifest]]:
    """Yield a model's folder and those of its faster variants, with their manifests; of an ensemble, its branches' too.

    Raises:
        NotPrepared: the model is not on this disk yet.
        ModelError: a manifest can't be read.
    """
    for one in (config, *(config.branches or {}).values()):
        folder = model_folder(one, models_dir)
        manifest = Manifest.read(folder)
        yield folder, manifest
        for precision, backend in RECIPES:
            variant = variant_folder(manifest, models_dir, precision, backend)
            try:
                yield variant, Manifest.read(variant)
            except NotPrepared:
                continue


def of_precision(config: DetectorConfig, models_dir: Path, precision: str) -> dict[str, Path]:
    """Return the folders of a prepared model's variants of one precision, by backend, of those that are installed."""
    backends = [backend for kind, backend in RECIPES if kind == precision and is_installed(backend)]
    manifest = Manifest.read(model_folder(config, models_dir))
    return {
        backend: variant_folder(manifest, models_dir, precision, backend)
        for backend in backends
        if has_variant(config, models_dir, precision, backend)
    }


def measured_best(config: DetectorConfig, models_dir: Path, precision: str) -> str | None:
    """Return the backend whose variant was the best when they were made; None where there is none.

    Raises:
        NotPrepared: the model is not on this disk yet.
        ModelError: a manifest can't be read.
    """
    manifests = {name: Manifest.read(folder) for name, folder in of_precision(config, models_dir, precision).items()}
    gates = {backend: manifest.gate for backend, manifest in manifests.items() if manifest.gate is not None}
    if not gates:
        return None
    chosen = best(gates)
    if len(gates) > 1 and any(gate.speed is None for gate in gates.values()):
        log.warning(
            "which backend serves %s fastest could not be measured when it was made, as other programs were busy: %s "
            "is taken, whose answers differ least from fp32's; `roadwork-miner tune` measures", precision, chosen
        )  # fmt: skip
    return chosen


def is_installed(backend: str) -> bool:
    """Return whether what a backend runs with is here."""
    return all(find_spec(package) is not None for package in BACKENDS[backend].packages[:1])
