"""The registry of detectors, backends, recipes and training methods, by their names.

Names become classes here and nowhere else, so that what was not chosen is not imported.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from detectors.errors import DetectorConfigError

if TYPE_CHECKING:
    from detectors.base import Backend, BareRun, Detector
    from detectors.export.export import Exporter
    from detectors.network import Network
    from detectors.quantize import Recipe
    from detectors.training.methods import TrainingMethod

PRECISIONS = ("fp32", "bf16", "int8", "merged", "int8-merged")
MERGED = {"fp32": "merged", "int8": "int8-merged"}  # a precision, and what it is called with tokens merged before
DEFAULT = "onnx"  # the backend that serves where nothing else was chosen, and that others are compared with
FUSED = "Ensemble"  # the one without a graph of its own: it asks others


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """A kind of detector: its class as `module:name`, and what others need to know before it is imported.

    Attributes:
        place: of the class.
        config: the YAML file that is meant where none is named, in `detectors/configs`.
        exporter: the class that turns its original weights into ONNX; none where there is no graph of its own.
        library: runs the original weights.
        extra: of `pyproject.toml`, brings the library.
    """

    place: str
    config: str
    exporter: str = ""
    library: str = ""
    extra: str = ""


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A backend: its class as `module:name`, and what others need to know before it is imported.

    Attributes:
        place: of the class.
        packages: what it runs and makes graphs with, the one that it imports first; none: nothing runs here.
        extra: of `pyproject.toml`, brings them; empty: that of the detector's library.
        stands_in: whether it may serve here while the remote endpoints are away (`REMOTE_FALLBACK`).
        recipes: the ways to make each faster precision that it runs; each is tried, and measurement decides.
        original: whether it runs the original weights and not the graph: the reference, which is never the fastest.
        onnxruntime: whether it is that library, whose graphs are kept optimised and whose arena `tune` tries.
        products: the precisions in which its matrix products tell what a machine can do at most.
        bare_run: makes such a product's run on one thread, with nothing copied.
        layouts: other servers' repositories (`export --layout`) that take its faster graphs.
    """

    place: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    stands_in: bool = False
    recipes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    original: bool = False
    onnxruntime: bool = False
    products: tuple[str, ...] = ()
    bare_run: str = ""
    layouts: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether what it runs with is here."""
        return all(find_spec(package) is not None for package in self.packages[:1])


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A training method: its class as `module:name`, and what is chosen by it where nothing else is said.

    Attributes:
        place: of the class.
        words: what learns, for people.
        epochs: at most.
        rate: the learning rate at its highest.
        convolutional_rate: the same for a network that sees by convolutions; None: the same.
        whole: whether every weight learns, which takes the most memory.
    """

    place: str
    words: str
    epochs: int
    rate: float
    convolutional_rate: float | None = None
    whole: bool = False


OWN_GRAPH = "detectors.export.onnx_file:OnnxFileExporter"  # of an ONNX file, whichever detector serves it

_ONNX_INT8 = {
    "dynamic": "detectors.quantize.recipes:dynamic",
    "static": "detectors.quantize.recipes:static",
    "static, weights only": "detectors.quantize.recipes:static_weights",
}
_OPENVINO_INT8 = {"nncf": "detectors.quantize.recipes:int8"}
_AS_IT_IS = {"fp32": "detectors.quantize.recipes:as_it_is"}

DETECTORS = {
    "ViT": DetectorEntry(
        "detectors.network:ViT", "starter.yaml", "detectors.export.hf:ViTExporter", "transformers", "export"
    ),
    "YOLOClassifier": DetectorEntry(
        "detectors.network:YOLOClassifier",
        "yolo_roadwork.yaml",
        "detectors.export.yolo:YOLOExporter",
        "ultralytics",
        "yolo",
    ),
    "Ensemble": DetectorEntry("detectors.ensemble:Ensemble", "pair_roadwork.yaml"),
}
BACKENDS = {
    "onnx": BackendEntry(
        "detectors.backends.onnx:OnnxBackend",
        ("onnxruntime", "onnx"),
        stands_in=True,
        recipes={"int8": _ONNX_INT8, "merged": _AS_IT_IS, "int8-merged": _ONNX_INT8},
        onnxruntime=True,
        products=("fp32", "int8"),
        bare_run="detectors.backends.onnx:bare_run",
        layouts=("triton",),
    ),
    "openvino": BackendEntry(
        "detectors.backends.openvino:OpenVINOBackend",
        ("openvino", "nncf"),
        "openvino",
        stands_in=True,
        recipes={
            "int8": _OPENVINO_INT8,
            "bf16": {"bf16": "detectors.quantize.recipes:bf16"},
            "merged": _AS_IT_IS,
            "int8-merged": _OPENVINO_INT8,
        },
        products=("fp32", "bf16"),
        bare_run="detectors.backends.openvino:bare_run",
        layouts=("ovms",),
    ),
    "torch": BackendEntry("detectors.backends.torch:TorchBackend", ("torch",), original=True),
    "remote": BackendEntry("detectors.backends.remote:RemoteBackend"),
}
# Precision and backend of each variant that a model can have, the default backend's first.
VARIANTS = tuple(
    (precision, name)
    for name in sorted(BACKENDS, key=lambda name: name != DEFAULT)
    for precision in BACKENDS[name].recipes
)
METHODS = {
    "head": MethodEntry(
        "detectors.training.methods:HeadMethod", "last layer from cached features (minutes)", 100, 1e-3
    ),
    "lora": MethodEntry("detectors.training.methods:LoraMethod", "adapters", 15, 5e-4),
    "full": MethodEntry("detectors.training.methods:FullMethod", "every weight", 15, 5e-5, 3e-4, whole=True),
}


def detector_class(name: str) -> "type[Detector]":
    """Return a detector's class."""
    return cast("type[Detector]", _resolve("detector", _places(DETECTORS), name))


def network_class(name: str) -> "type[Network]":
    """Return the class of a detector that has one graph.

    Raises:
        DetectorConfigError: an unknown name, or the ensemble.
    """
    table = {known: entry.place for known, entry in DETECTORS.items() if known != FUSED}
    return cast("type[Network]", _resolve("detector with a graph of its own", table, name))


def exporter_class(name: str, *, is_graph: bool = False) -> "type[Exporter]":
    """Return the class that turns a detector's original weights, or a graph of one's own, into one that serves."""
    table = {known: OWN_GRAPH if is_graph else entry.exporter for known, entry in DETECTORS.items() if entry.exporter}
    return cast("type[Exporter]", _resolve("detector", table, name))


def backend_class(name: str) -> "type[Backend]":
    """Return a backend's class."""
    return cast("type[Backend]", _resolve("backend", _places(BACKENDS), name))


def bare_run(backend: str) -> "BareRun":
    """Return what makes the bare runs of a backend that has `products`."""
    return cast("BareRun", _resolve("yardstick", {backend: BACKENDS[backend].bare_run}, backend))


def default_backend(precision: str) -> str:
    """Return the backend that serves a precision where nothing was chosen or measured."""
    makes = [backend for kind, backend in VARIANTS if kind == precision]
    return makes[0] if makes else DEFAULT


def method_class(name: str) -> "type[TrainingMethod]":
    """Return a training method's class."""
    return cast("type[TrainingMethod]", _resolve("method", {key: entry.place for key, entry in METHODS.items()}, name))


def recipes(precision: str, backend: str) -> "dict[str, Recipe]":
    """Return the recipes for a precision on a backend, by name; none where there is no way."""
    table = BACKENDS[backend].recipes.get(precision, {})
    return {name: cast("Recipe", _resolve("recipe", table, name)) for name in table}


def _places(table: "Mapping[str, DetectorEntry] | Mapping[str, BackendEntry]") -> dict[str, str]:
    return {name: entry.place for name, entry in table.items()}


def _resolve(kind: str, table: Mapping[str, str], name: str) -> Any:
    if name not in table:
        raise DetectorConfigError(f"unknown {kind} {name!r}; known: {', '.join(table)}")
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise DetectorConfigError(
            f"{kind} {name!r} needs the package {error.name!r}, which is not installed; {how_to_install()} installs it"
        ) from error


def how_to_install(extra: str = "", root: Path | None = None, prefix: Path | None = None) -> str:
    """Return the command that installs an extra of `pyproject.toml` here, in words; it depends on how we came here.

    Args:
        extra: its name; empty: all of them.
        root: the folder that holds this package; a clone has a Makefile there.
        prefix: of the environment: one of pipx's, of uv's, or another.
    """
    root, prefix = root or Path(__file__).resolve().parents[1], prefix or Path(sys.prefix)
    if (root / "Makefile").is_file():
        return "`make setup-eval`" if extra == "eval" else "`make setup-all`"
    marked = [line.partition(";") for line in requires("roadwork-miner") or ()]
    named = [
        one.strip() for one, _, mark in marked if re.search(rf"extra == .{extra or '(?!dev|ray)[a-z]+'}['\"]", mark)
    ]
    packages = " ".join(f"'{one}'" for one in dict.fromkeys(named))
    match prefix.parts:
        case (*_, "pipx", "venvs", name):
            return f"`pipx inject {name} {packages}`"
        case (*_, "uv", "tools", _):
            return f"`uv pip install --python {prefix} {packages}`"
        case _:
            return f"`{prefix / 'bin' / 'python'} -m pip install {packages}`"
