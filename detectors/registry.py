"""Names become classes here, and nowhere else; what was not chosen is not imported."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from detectors.errors import DetectorConfigError

if TYPE_CHECKING:
    from detectors.base import Backend, Detector
    from detectors.export import Exporter
    from detectors.network import Network
    from detectors.quantize import Recipe

DETECTORS = {
    "ViT": "detectors.network:ViT",
    "YOLOClassifier": "detectors.network:YOLOClassifier",
    "Ensemble": "detectors.ensemble:Ensemble",
}
EXPORTERS = {
    "ViT": "detectors.export.hf:ViTExporter",
    "YOLOClassifier": "detectors.export.yolo:YOLOExporter",
}
BACKENDS = {
    "onnx": "detectors.backends.onnx:OnnxBackend",
    "openvino": "detectors.backends.openvino:OpenVINOBackend",
    "torch": "detectors.backends.torch:TorchBackend",
    "remote": "detectors.backends.remote:RemoteBackend",
}
PRECISIONS = ("fp32", "bf16", "int8")
# How a faster precision is made, for the backend that runs it; each is tried, and measurement decides.
RECIPES = {
    ("int8", "onnx"): {
        "dynamic": "detectors.quantize.recipes:dynamic",
        "static": "detectors.quantize.recipes:static",
        "static, weights only": "detectors.quantize.recipes:static_weights",
    },
    ("int8", "openvino"): {"nncf": "detectors.quantize.recipes:int8"},
    ("bf16", "openvino"): {"bf16": "detectors.quantize.recipes:bf16"},
}
DEFAULT_CONFIGS = {"ViT": "starter.yaml", "YOLOClassifier": "yolo_roadwork.yaml", "Ensemble": "pair_roadwork.yaml"}
FUSED = "Ensemble"  # the one without a graph of its own: it asks others


def detector_class(name: str) -> "type[Detector]":
    """Return a detector's class."""
    return cast("type[Detector]", _resolve("detector", DETECTORS, name))


def network_class(name: str) -> "type[Network]":
    """Return the class of a detector that has one graph.

    Raises:
        DetectorConfigError: an unknown name, or the ensemble.
    """
    table = {known: place for known, place in DETECTORS.items() if known != FUSED}
    return cast("type[Network]", _resolve("detector with a graph of its own", table, name))


def exporter_class(name: str) -> "type[Exporter]":
    """Return the class that turns a detector's original weights into ONNX."""
    return cast("type[Exporter]", _resolve("detector", EXPORTERS, name))


def backend_class(name: str) -> "type[Backend]":
    """Return a backend's class."""
    return cast("type[Backend]", _resolve("backend", BACKENDS, name))


def recipes(precision: str, backend: str) -> "dict[str, Recipe]":
    """Return the recipes for a precision on a backend, by name; none where there is no way."""
    table = RECIPES.get((precision, backend), {})
    return {name: cast("Recipe", _resolve("recipe", table, name)) for name in table}


def _resolve(kind: str, table: Mapping[str, str], name: str) -> Any:
    if name not in table:
        raise DetectorConfigError(f"unknown {kind} {name!r}; known: {', '.join(table)}")
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise DetectorConfigError(
            f"{kind} {name!r} needs the package {error.name!r}, which is not installed; `make setup-all` installs it"
        ) from error
