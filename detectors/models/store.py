"""The store of model folders: how a prepared one is put into place, and what its manifest is told later."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors.files import write_safely
from detectors.models import MODEL_FILE
from detectors.models.calibration import Calibration, spread
from detectors.models.labels import Separation, sorting_of
from detectors.models.manifest import NAME, ExportFigures, Manifest, ViewFigures, same_branches
from detectors.photos.views import PooledViews

if TYPE_CHECKING:
    import onnx

LARGE_GRAPH_BYTES = 50_000_000  # bytes; smaller graphs stay one file
OUTSIDE_BYTES = 1024  # bytes; smaller tensors of a larger graph stay in it


def move_into_place(partial: Path, folder: Path) -> None:
    """Move the files, the manifest last: without it a folder counts as not prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == NAME):
        path.replace(folder / path.name)


def store_calibration(
    folder: Path,
    calibration: Calibration | None,
    predictions: list[float] | None = None,
    views: PooledViews | None = None,
) -> None:
    """Write a calibration into a folder's manifest, or take the one there out of it.

    Args:
        folder: of the model.
        calibration: None: there is none any more.
        predictions: the spread of mapped probabilities; None forgets the spread, which is that of another map.
        views: that it was measured in, and that it belongs to; None: the whole picture.
    """
    _store(folder, views, {"calibration": calibration, "predictions": predictions})


def store_spread(
    folder: Path, probabilities: Sequence[float], labels: Sequence[bool], views: PooledViews | None = None
) -> Separation:
    """Write into a manifest how a model's answers to labelled photos are spread, and how well they sort them."""
    found = sorting_of(labels, probabilities)
    right = {True: 0, False: 0}
    for probability, label in zip(probabilities, labels, strict=True):
        right[bool(label)] += (probability > 0.5) == bool(label)
    counts = {side: sum(bool(label) is side for label in labels) for side in right}
    update = {
        "predictions": [round(share, 4) for share in spread(probabilities, labels)],
        "judged": ExportFigures(
            photos=found.photos,
            auc=round(found.auc, 4),
            reversed=found.is_reversed,
            sensitivity=round(right[True] / counts[True], 4),
            specificity=round(right[False] / counts[False], 4),
        ),
    }
    _store(folder, views, update)
    return found


def _store(folder: Path, views: PooledViews | None, update: Mapping[str, Any]) -> None:
    """Write what was measured into a folder's manifest, beside what was in other views."""
    manifest = Manifest.read(folder)
    if views is not None:
        own = manifest.views.get(str(views), ViewFigures()).model_copy(update=update)
        others = {words: figures for words, figures in manifest.views.items() if words != str(views)}
        update = {"views": others if own == ViewFigures() else {**others, str(views): own}}
    write_manifest(manifest.model_copy(update=update), folder)


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Replace a folder's manifest."""
    write_safely(folder / NAME, (manifest.model_dump_json(indent=2) + "\n").encode())


def keep_calibration(old: Path, new: Path) -> None:
    """Take what was measured on photos over into the folder that takes a folder's place, if it is the same model."""
    if (old / NAME).is_file():
        manifest, made = Manifest.read(old), Manifest.read(new)
        if _is_same_model(manifest, made):
            kept = {name: getattr(manifest, name) for name in ("calibration", "predictions", "judged", "views")}
            write_manifest(made.model_copy(update=kept), new)


def _is_same_model(old: Manifest, new: Manifest) -> bool:
    """Return whether two manifests' models answer alike; how the class was named makes no difference."""
    outputs = [one.output.model_copy(update={"named": False}) for one in (old, new)]
    return old.revision == new.revision and outputs[0] == outputs[1] and same_branches(old.branches, new.branches)


def move_weights_out(folder: Path) -> None:
    """Put a large graph's weights into a file of their own, as `write_graph` does."""
    path = folder / MODEL_FILE
    if path.stat().st_size < LARGE_GRAPH_BYTES:
        return
    import onnx

    write_graph(onnx.load(path), path)


def write_graph(graph: "onnx.ModelProto", path: Path) -> None:
    """Write a graph; a large one's weights go into a file of their own, which the runtime maps instead of copying.

    Inline weights cost half as much memory again (609 MB instead of 437 MB for a ViT-base). One at a time leaves the
    graph, which has none afterwards: onnx's own function has all of them twice in memory.
    """
    if sum(len(tensor.raw_data) for tensor in graph.graph.initializer) >= LARGE_GRAPH_BYTES:  # ByteSize() copies all
        from onnx.external_data_helper import set_external_data

        data = path.with_name(path.name + ".data")
        with data.open("wb") as file:
            for tensor in graph.graph.initializer:
                if len(raw := tensor.raw_data) >= OUTSIDE_BYTES:
                    set_external_data(tensor, data.name, offset=file.tell(), length=len(raw))
                    tensor.ClearField("raw_data")
                    file.write(raw)
    else:
        path.with_name(path.name + ".data").unlink(missing_ok=True)  # of a graph that was larger
    path.write_bytes(graph.SerializeToString())


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each package."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
