"""`export --pictures`: how a model's predictions are spread, written down to tell drift by."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from miner.errors import ConfigurationError
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from detectors.base import Detector
    from detectors.evaluation.reversal import Sorting
    from detectors.models.config import DetectorConfig
    from detectors.quantize.photos import Photos


def open_folder(settings: Settings, config: "DetectorConfig", folder: Path) -> "Detector":
    """Load what was exported into a folder, which need not be where the configuration looks for it."""
    from detectors.base import ModelFiles, RunOptions
    from detectors.load import load_detector
    from detectors.models.manifest import Manifest
    from detectors.registry import backend_class, network_class

    manifest = Manifest.read(folder)
    name = manifest.detector
    if config.branches is not None:
        return load_detector(name, config, settings.models_dir, "onnx", RunOptions())
    return network_class(name)(ModelFiles(folder, manifest), backend_class("onnx"), RunOptions())


def record_spread(
    settings: Settings, config: "DetectorConfig", folder: Path, photos: Sequence[bytes], labels: Sequence[bool]
) -> "Sorting":
    """Write into a model's manifest how its predictions of labelled photos are spread; return how it sorts them."""
    from detectors.files import store_spread

    detector = open_folder(settings, config, folder)
    return store_spread(folder, [detector.predict(photo).probability for photo in photos], labels)


def check_class(settings: Settings, config: "DetectorConfig", folder: Path, sorting: "Sorting | None") -> Iterator[str]:
    """Say which class of a model counts as roadwork, and what speaks for or against it.

    Args:
        settings: of the miner.
        config: of the model.
        folder: of the exported model.
        sorting: of labelled photos, where there are any; else drawings are asked about.
    """
    from detectors.evaluation.reversal import ask_drawn
    from detectors.load import class_doubt, remedy

    detector = open_folder(settings, config, folder)
    yield f"roadwork = {detector.roadwork}"
    if doubt := class_doubt(config, detector.manifest):
        yield f"warning: {doubt}: its answers are likely reversed; {remedy(config)}"
    found = sorting or ask_drawn(lambda picture: detector.judge(picture).probability)
    yield f"warning: {found.words}; {remedy(config)}" if found.is_reversed else found.words


def record_spread_alone(
    settings: Settings, config: "DetectorConfig", photos: "Photos | None", progress: Callable[[str], None]
) -> "Sorting":
    """Do so for a configuration that names an exported folder.

    Raises:
        ConfigurationError: the folder is the package's own, or the photos are not labelled.
    """
    from detectors.models.config import SHIPPED
    from detectors.models.manifest import Manifest

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
    return record_spread(settings, config, config.model_folder, photos.data, photos.labels)
