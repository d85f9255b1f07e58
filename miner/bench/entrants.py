"""Who takes part: the installed backends, the prepared precisions, and the model's own library."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from detectors.load import has_variant
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.models.sources import find_original
from detectors.registry import PRECISIONS, exporter_class
from miner.errors import ConfigurationError

# What a backend that runs here imports, and the extra that brings it; torch also needs the detector's library.
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
LIBRARIES = {"ViT": ("transformers", "export"), "YOLOClassifier": ("ultralytics", "yolo")}

Variant = tuple[str, str]  # backend, precision


def variants(
    detector: str,
    config: DetectorConfig,
    manifest: Manifest,
    models_dir: Path,
    backends: Sequence[str] | None,
    precisions: Sequence[str] | None,
) -> list[Variant]:
    """Return what is to be measured: all that is there, or what was asked for.

    Raises:
        ConfigurationError: a name is unknown, or what was asked for is not there.
    """
    check_names("--backends", backends or (), tuple(PACKAGES))
    check_names("--precisions", precisions or (), PRECISIONS)
    for backend in backends or ():
        if (lack := missing(backend, detector, config)) is not None:
            raise ConfigurationError(f"--backends={backend}: {lack}")
    usable = list(backends or (name for name in PACKAGES if missing(name, detector, config) is None))
    found = [
        (backend, precision)
        for precision in precisions or PRECISIONS
        for backend in usable
        if has_variant(config, models_dir, precision, backend)
    ]
    for precision in precisions or ():
        if precision not in {kind for _, kind in found}:
            raise ConfigurationError(
                f"--precisions={precision}: not prepared for {manifest.name} and {', '.join(usable)}; "
                f"`roadwork-miner export --precision {precision}` makes it"
            )
    return found


def missing(backend: str, detector: str, config: DetectorConfig) -> str | None:
    """Return what a backend lacks here, or None; for an ensemble, what it lacks for any branch."""
    if config.branches is not None:
        lacks = (missing(backend, branch.detector, branch) for branch in config.branches.values())
        return next((lack for lack in lacks if lack is not None), None)
    if find_spec(PACKAGES[backend]) is None:
        extra = "openvino" if backend == "openvino" else LIBRARIES[detector][1]
        return f"needs the package {PACKAGES[backend]!r} (extra `{extra}`; `make setup-all` installs it)"
    return lacks_library(detector, config) if backend == "torch" else None


def lacks_library(detector: str, config: DetectorConfig) -> str | None:
    """Return what the model's own library needs and is not here, or None; for an ensemble, for any branch."""
    if config.branches is not None:
        lacks = (lacks_library(branch.detector, branch) for branch in config.branches.values())
        return next((lack for lack in lacks if lack is not None), None)
    library, extra = LIBRARIES[detector]
    for package in ("torch", library):
        if find_spec(package) is None:
            return f"needs the package {package!r} (extra `{extra}`; `make setup-all` installs it)"
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
        return "its branches' libraries"
    return exporter_class(detector)(find_original(config, revision).path, config).reference_name


def check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse an unknown name.

    Raises:
        ConfigurationError: the message lists the known ones.
    """
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{option}={name}: known: {', '.join(known)}")
