"""From a configuration on disk to a detector that has proved itself."""

from pathlib import Path

from detectors.backends import MODEL_FILE
from detectors.base import Detector, ModelFiles, RunOptions
from detectors.config import DetectorConfig
from detectors.errors import DetectorConfigError, ModelError, NotPrepared
from detectors.manifest import Manifest
from detectors.registry import RECIPES, backend_class, detector_class
from detectors.weights import find_original, model_folder, variant_folder


def ensure_graph(folder: Path, manifest: Manifest) -> Path | None:
    """Return onnxruntime's own graph for this machine; imports onnxruntime, which other backends do without."""
    from detectors import optimized

    return optimized.ensure_graph(folder, manifest)


def load_detector(
    name: str,
    config: DetectorConfig,
    models_dir: Path,
    backend: str,
    options: RunOptions,
    precision: str = "fp32",
) -> Detector:
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
    if precision != "fp32":
        if not RECIPES.get((precision, backend)):
            raise DetectorConfigError(f"the backend {backend!r} has no {precision}")
        folder = variant_folder(manifest, models_dir, precision, backend)
        manifest = Manifest.read(folder)
    runs_here = backend if options.engine is None else options.engine.fallback
    optimized = ensure_graph(folder, manifest) if runs_here == "onnx" else None
    # The optimised graph has sums of its own, and the one it was made from is then not read at all; neither is a graph
    # that runs elsewhere.
    manifest.verify(folder, but=MODEL_FILE if optimized is not None or runs_here is None else None)
    original = None
    if backend == "torch":
        if config.model_folder is not None:
            raise ModelError(
                f"the torch backend needs the original weights (hf_repo or weights_path), "
                f"and {config.path.name} names an exported model"
            )
        original = find_original(config, manifest.revision).path
    return detector(ModelFiles(folder, manifest, original, optimized), backend_class(backend), options)


def is_prepared(config: DetectorConfig, models_dir: Path) -> bool:
    """Return whether the exported model is on this disk."""
    try:
        Manifest.read(model_folder(config, models_dir))
    except NotPrepared:
        return False
    return True
