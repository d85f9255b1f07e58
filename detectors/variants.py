"""The faster variants of a model that are on this disk."""

from collections.abc import Iterator
from pathlib import Path

from detectors.config import DetectorConfig
from detectors.errors import NotPrepared
from detectors.manifest import Manifest
from detectors.registry import RECIPES
from detectors.weights import model_folder, variant_folder

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
