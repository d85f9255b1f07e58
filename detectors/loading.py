"""From a configuration on disk to a detector that has proved itself."""

from pathlib import Path

from detectors.base import Detector, ModelFiles
from detectors.config import DetectorConfig
from detectors.errors import DetectorConfigError, ModelError, NotPrepared
from detectors.manifest import Manifest
from detectors.registry import backend_class, detector_class
from detectors.weights import find_original, model_folder


def load_detector(name: str, config: DetectorConfig, models_dir: Path, backend: str, threads: int) -> Detector:
    """Verify the model folder's sums and load it; `Detector.verify` is the caller's next step.

    Raises:
        NotPrepared: the folder is not there yet.
        ModelError: a file is damaged or can't be loaded.
        DetectorConfigError: an unknown name, or a model of another kind.
    """
    detector = detector_class(name)
    folder = model_folder(config, models_dir)
    manifest = Manifest.read(folder)
    if manifest.detector != name:
        raise DetectorConfigError(f"{config.path.name} holds a model for {manifest.detector}, not for {name}")
    manifest.verify(folder)
    original = None
    if backend == "torch":
        if config.model_folder is not None:
            raise ModelError(
                f"the torch backend needs the original weights (hf_repo or weights_path), "
                f"and {config.path.name} names an exported model"
            )
        original = find_original(config, manifest.revision).path
    return detector(ModelFiles(folder, manifest, original), backend_class(backend), threads)


def is_prepared(config: DetectorConfig, models_dir: Path) -> bool:
    """Return whether the exported model is on this disk."""
    try:
        Manifest.read(model_folder(config, models_dir))
    except NotPrepared:
        return False
    return True
