"""The export of original weights to a model folder that serves without torch.

It is refused when the graph's answers differ from those of the original's own library.
"""

import errno
import io
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
from PIL import Image

from detectors.backends.ort_cache import ensure_graph
from detectors.base import ModelFiles, RunOptions
from detectors.builders.half import halve
from detectors.console import NO_STEPS, Steps
from detectors.errors import DetectorConfigError, InferenceError, ModelError, library_errors
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.hf_config import NOTICE_FILE
from detectors.models.labels import is_by_name, refuse_constant, roadwork_index
from detectors.models.manifest import NO_REFERENCE, Activation, Manifest, Output, Parity, Source, sha256
from detectors.models.sources import Original, find_original, model_name, remember_revision
from detectors.models.store import keep_calibration, move_into_place, move_weights_out, package_versions, write_graph
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture, many_pictures, parity_pictures
from detectors.photos.view_head import ViewHead
from detectors.preprocess import Preprocessing, letterboxed
from detectors.registry import DEFAULT, DETECTORS, backend_class, exporter_class, how_to_install, network_class

MAX_DIFFERENCE = 1e-3
CUT_PICTURES = 4  # on which a graph without its last layer is compared
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # faults of a disk, or of a quota, that is written to
WAY_OUT = "an architecture that is known to work, such as a ViT, Swin, ConvNeXt, DINOv2 or YOLO11-cls, is the way out"


class Exporter(ABC):
    """Turns one kind of original weights into the files of a model folder."""

    def __init__(self, original: Path, config: DetectorConfig) -> None:
        self.original = original
        self.config = config

    def squared(self, data: bytes, preprocessing: Preprocessing) -> Image.Image:
        """Return a photo as the library gets it: whole between black bars if the configuration says so."""
        picture = Image.open(io.BytesIO(data))
        if not self.config.letterbox:
            return picture
        *_, height, width = preprocessing.shape
        return letterboxed(decode(data), width, height, preprocessing.resample)

    def output(self, labels: Mapping[int, str], activation: Activation) -> Output:
        """Say which output means roadwork, by the configuration and the labels' names.

        Raises:
            DetectorConfigError: they do not say it, or there is only one class, whose share is always 1.
        """
        ordered = [labels[key] for key in sorted(labels)]
        refuse_constant(ordered, activation)
        label = self.config.roadwork_label
        index = roadwork_index(labels, label, self.config.roadwork_class_index)
        return Output(index=index, labels=ordered, activation=activation, named=is_by_name(labels, index, label))

    @property
    def kind(self) -> str:
        """The kind of network, for messages."""
        return "network"

    @property
    def head(self) -> ViewHead | None:
        """The head that was learned on views of a picture, where there is one beside the weights."""
        return None

    @property
    @abstractmethod
    def packages(self) -> tuple[str, ...]:
        """Whose versions go into the manifest."""

    @property
    def own_versions(self) -> dict[str, str]:
        """What of our own made the graph, in which version."""
        return {}

    @property
    @abstractmethod
    def reference_name(self) -> str:
        """What the answers are compared with."""

    @abstractmethod
    def write(self, folder: Path) -> Output:
        """Write `model.onnx` (one picture, fp32) and `preprocessor_config.json`; say what the outputs mean.

        Raises:
            ModelError: the weights can't be read.
            DetectorConfigError: they have no such roadwork output as is configured.
        """

    @abstractmethod
    def reference(self) -> Callable[[bytes], float]:
        """Return the library's own pipeline: an encoded photo to the probability of roadwork."""

    def compare(self, exported: Network, photos: Sequence[bytes]) -> Parity:
        """Compare the exported graph's answers with the library's own.

        Raises:
            ModelError: they differ by more than `MAX_DIFFERENCE`, or the library has no number for a photo.
            InferenceError: the graph has none.
        """
        reference = self.reference()
        expected = [reference(photo) for photo in photos]
        differences = [
            abs(exported.predict(photo).probability - value) for photo, value in zip(photos, expected, strict=True)
        ]
        if not all(math.isfinite(value) for value in expected):
            raise ModelError(
                f"{self.reference_name} has no number for a picture: the weights of this {self.kind} overflow"
            )
        if not max(differences) <= MAX_DIFFERENCE:  # a NaN is refused too
            raise ModelError(
                f"the exported model's probabilities differ from {self.reference_name}'s by up to "
                f"{max(differences):.2g} on {len(photos)} pictures; at most {MAX_DIFFERENCE} is allowed"
            )
        return Parity(
            reference=self.reference_name,
            pictures=len(photos),
            max_difference=max(differences),
            mean_difference=sum(differences) / len(differences),
        )


def prepare(
    detector: str,
    config: DetectorConfig,
    models_dir: Path,
    *,
    out: Path | None = None,
    name: str | None = None,
    pictures: Sequence[bytes] | None = None,
    force: bool = True,
    half: bool = False,
    progress: Steps = NO_STEPS,
) -> Path:
    """Fetch, export, compare with the library's own pipeline, and put the folder into its place.

    Args:
        detector: a name in the registry.
        config: where the weights come from.
        models_dir: holds `<name>/<revision>/`.
        out: another place for the folder.
        name: of the model; None: that of its repository, folder or file.
        pictures: encoded photos for the parity check, besides the made ones.
        force: of an ensemble, also the branches that are there already.
        half: its weights are stored in 16 bits, and widened as they are loaded.
        progress: told each step in words.

    Returns:
        The folder.

    Raises:
        ModelError: the weights can't be got or exported, or the answers differ by more than `MAX_DIFFERENCE`.
        DetectorConfigError: the model has no such roadwork output as is configured.
    """
    if config.branches is not None:
        return _prepare_branches(config, models_dir, out, pictures, force, half, progress)
    progress(f"finding {config.source}")
    original = find_original(config)
    folder = out or models_dir / model_name(config) / original.revision
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        exporter = exporter_class(detector, is_graph=config.onnx_path is not None)(original.path, config)
        _fill(partial, detector, exporter, original, name or model_name(config), pictures, half, progress)
        keep_calibration(folder, partial)
        move_into_place(partial, folder)
        remember_revision(config, models_dir, original.revision, *original.resolved)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"exporting {config.source} needs the package {error.name!r}, which is not installed; "
            f"{how_to_install(DETECTORS[detector].extra)} installs it"
        ) from error
    except OSError as error:
        # Of a copy that failed the source comes first, though the target's disk is full.
        is_of_source = error.filename is not None and Path(error.filename).is_relative_to(original.path)
        if is_of_source and error.errno not in FULL:
            raise ModelError(f"{error.filename} can't be read: {error.strerror or error}") from error
        raise ModelError(f"{folder} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress("optimising for this machine")
    ensure_graph(folder, Manifest.read(folder))
    return folder


def _prepare_branches(
    config: DetectorConfig, models_dir: Path, out: Path | None, pictures: Sequence[bytes] | None, force: bool,
    half: bool, progress: Steps,
) -> Path:  # fmt: skip
    from detectors.export.ensemble import prepare_ensemble

    if out is not None:
        raise DetectorConfigError(f"{config.path.name} has branches: they go into MODELS_DIR, not into one folder")

    def one(detector: str, branch: DetectorConfig) -> Path:
        return prepare(detector, branch, models_dir, pictures=pictures, half=half, progress=progress)

    return prepare_ensemble(config, models_dir, one, force=force, progress=progress)


def _fill(
    folder: Path,
    detector: str,
    exporter: Exporter,
    original: Original,
    name: str,
    pictures: Sequence[bytes] | None,
    half: bool,
    progress: Steps,
) -> None:
    head, kind = exporter.head, exporter.kind  # a head that can't be served is refused before the work
    progress("exporting to ONNX")
    with library_errors(f"a {kind} can't be exported to ONNX by {', '.join(exporter.packages)}", WAY_OUT):
        output = exporter.write(folder)
    if head is not None and len(head.bias) != len(output.labels):
        raise ModelError(f"the head on views has {len(head.bias)} outputs; there are {len(output.labels)} labels")
    if half:
        graph = onnx.load(folder / MODEL_FILE)
        halve(graph)
        write_graph(graph, folder / MODEL_FILE)
    move_weights_out(folder)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    draft = Manifest(
        name=name,
        revision=original.revision,
        detector=detector,
        source=Source(origin=original.origin, revision=original.revision),
        output=output,
        files=files,
        known_answer=0.0,
        parity=Parity(reference=exporter.reference_name, pictures=0, max_difference=0.0, mean_difference=0.0),
        made_with=package_versions((*exporter.packages, "onnxruntime")) | exporter.own_versions,
    )
    exported = network_class(detector)(ModelFiles(folder, draft, None), backend_class(DEFAULT), RunOptions())
    if exporter.reference_name != NO_REFERENCE:
        progress(f"comparing with {exporter.reference_name}")
    # The made ones are of every shape, 16:9 above all: own photos of one shape would not show a wrong resize or crop.
    photos = [*parity_pictures(), *(pictures or ())]
    try:
        with library_errors(f"a {kind} can't be asked by {exporter.reference_name}", WAY_OUT):
            parity = exporter.compare(exported, progress.each(photos))
            if head is not None:
                progress(f"its head judges {head.views}")
                draft, exported = _with_head(folder, draft, exported, head)
            known = exported.judge(decode(known_picture())).probability
    except InferenceError as error:
        raise ModelError(f"the exported {kind} has no answer to a picture of the comparison: {error}") from error
    draft.model_copy(update={"known_answer": known, "parity": parity}).write(folder)
    if (notice := original.path / NOTICE_FILE).is_file():
        shutil.copyfile(notice, folder / NOTICE_FILE)


def _with_head(folder: Path, draft: Manifest, whole: Network, head: ViewHead) -> tuple[Manifest, Network]:
    """Cut the graph, which was compared with its last layer, and let the head judge its features in place of that.

    Raises:
        ModelError: the two don't fit.
    """
    from detectors.export.features import cut

    cut(folder, head.width, [whole.preprocessing(decode(data)) for data in many_pictures(CUT_PICTURES)])
    head.write(folder)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    made = draft.model_copy(update={"files": files, "head": str(head.views)})
    return made, type(whole)(ModelFiles(folder, made, None), backend_class(DEFAULT), RunOptions())
