"""`export --pictures`: how a model's predictions are spread, written down to tell drift by."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from miner.errors import ConfigurationError
from miner.settings import Settings

if TYPE_CHECKING:
    from detectors.base import Detector
    from detectors.config import DetectorConfig
    from detectors.precision.photos import Photos


def record_spread(
    settings: Settings, config: "DetectorConfig", folder: Path, photos: Sequence[bytes], labels: Sequence[bool]
) -> None:
    """Write into a model's manifest how its predictions of labelled photos are spread, to tell drift by."""
    from detectors.base import ModelFiles, RunOptions
    from detectors.loading import load_detector
    from detectors.manifest import Manifest
    from detectors.registry import backend_class, network_class
    from detectors.storing import store_spread

    manifest = Manifest.read(folder)
    name = manifest.detector
    detector: Detector = (
        load_detector(name, config, settings.models_dir, "onnx", RunOptions())
        if config.branches is not None
        else network_class(name)(ModelFiles(folder, manifest), backend_class("onnx"), RunOptions())
    )
    store_spread(folder, [detector.predict(photo).probability for photo in photos], labels)


def record_spread_alone(
    settings: Settings, config: "DetectorConfig", photos: "Photos | None", progress: Callable[[str], None]
) -> None:
    """Do so for a configuration that names an exported folder.

    Raises:
        ConfigurationError: the folder is the package's own, or the photos are not labelled.
    """
    from detectors.config import SHIPPED
    from detectors.manifest import Manifest

    assert config.model_folder is not None
    Manifest.read(config.model_folder)
    if SHIPPED.parent in config.model_folder.parents:
        raise ConfigurationError(
            f"{config.model_folder} ships with the package and is not changed: copy it, and name the copy"
        )
    if photos is None or photos.labels is None or len(set(photos.labels)) < 2:
        raise ConfigurationError(
            f"{config.path.name} names an exported folder, which needs no export; --pictures with subfolders roadwork "
            f"and no_roadwork notes the spread of its predictions"
        )
    progress("noting the spread of its predictions")
    record_spread(settings, config, config.model_folder, photos.data, photos.labels)
