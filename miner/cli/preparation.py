"""The chores of `models` and `export`: photos, progress, the spread of predictions, errors."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from detectors.base import Detector, ModelFiles, RunOptions
from detectors.console import Steps, bar_on
from detectors.errors import DetectorConfigError, ImageError, InferenceError, ModelError, library_errors
from detectors.export.export import prepare
from detectors.export.serving_repos import Layout, write_layout
from detectors.load import PreparedModel, load_detector, remedy
from detectors.machine import allowed_cores
from detectors.models.config import SHIPPED, DetectorConfig, read_config
from detectors.models.labels import Separation, ask_drawn, class_doubt
from detectors.models.manifest import Gate, Manifest, Precision, as_served
from detectors.models.sources import model_folder, variant_folder
from detectors.models.store import store_spread
from detectors.photos.labelled import is_labelled
from detectors.quantize.gate import compare, doubts, judged_variant, measured_best, of_precision, speed_in_words
from detectors.registry import BACKENDS, DEFAULT, MERGED, VARIANTS, backend_class, network_class
from miner.bench.subject import own_pictures
from miner.cli.training import read_labelled, say_left_out
from miner.errors import ConfigurationError, CouldNotStart
from miner.settings.settings import Settings
from miner.settings.validators import AUTO

if TYPE_CHECKING:
    from rich.console import Console

    from detectors.quantize.quantize import CalibrationPhotos
    from detectors.quantize.schedule import MergeRequest


def open_folder(settings: Settings, config: DetectorConfig, folder: Path) -> Detector:
    """Load what was exported into a folder, which need not be where the configuration looks for it."""

    manifest = as_served(Manifest.read(folder), None, config.pooled_views)
    name = manifest.detector
    if config.branches is not None:
        return load_detector(name, config, settings.models_dir, DEFAULT, RunOptions())
    network = network_class(name)(ModelFiles(folder, manifest), backend_class(DEFAULT), RunOptions())
    return network.viewed(manifest, config.pooled_views)


def record_spread(
    settings: Settings, config: DetectorConfig, folder: Path, photos: Sequence[bytes], labels: Sequence[bool]
) -> Separation:
    """Write into a model's manifest how its predictions of labelled photos are spread; return how it sorts them."""

    # As the model itself answers: a threshold of the YAML file may be another one tomorrow.
    detector = open_folder(settings, config.model_copy(update={"threshold": None}), folder)
    said = [detector.predict(photo).probability for photo in photos]
    return store_spread(folder, said, labels, config.pooled_views)


def check_class(settings: Settings, config: DetectorConfig, folder: Path, sorting: Separation | None) -> Iterator[str]:
    """Say which class of a model counts as roadwork, and what speaks for or against it.

    Args:
        settings: of the miner.
        config: of the model.
        folder: of the exported model.
        sorting: of labelled photos, where there are any; else drawings are asked about.
    """

    detector = open_folder(settings, config, folder)
    yield f"roadwork = {detector.roadwork}"
    if doubt := class_doubt(config, detector.manifest):
        yield f"warning: {doubt}: its answers are likely reversed; {remedy(config)}"
    found = sorting or ask_drawn(lambda picture: detector.judge(picture).probability)
    yield f"warning: {found.words}; {remedy(config)}" if found.is_reversed else found.words


def record_spread_alone(
    settings: Settings, config: DetectorConfig, photos: "CalibrationPhotos | None", progress: Steps
) -> Separation:
    """Do so for a configuration that names an exported folder.

    Raises:
        ConfigurationError: the folder is the package's own, or the photos are not labelled.
    """

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
    return record_spread(settings, config, config.model_folder, progress.each(photos.data), photos.labels)


def read_photos(folder: Path) -> "CalibrationPhotos":
    """Read the photos below a folder; in subfolders `roadwork` and `no_roadwork` they count as labelled.

    Raises:
        ConfigurationError: there are none that can be opened.
    """
    from detectors.quantize.quantize import CalibrationPhotos

    if is_labelled(folder):
        labelled = read_labelled(folder, "--pictures").photos
        return CalibrationPhotos(
            [photo.path.read_bytes() for photo in labelled], [photo.label == 1 for photo in labelled]
        )
    pictures = own_pictures(folder, most=None)
    say_left_out(pictures.left_out)
    return CalibrationPhotos([path.read_bytes() for path in pictures.paths])


def prepare_fp32(
    settings: Settings, out: Path | None = None, photos: "CalibrationPhotos | None" = None, *, force: bool = True,
    half: bool = False,
) -> Path:  # fmt: skip
    """Fetch and export the configured model, with a bar that names the step; return its folder."""

    config = read_config(settings.detector_config)
    with _steps() as (console, progress):
        if config.model_folder is not None:  # exported before: only its spread can be new
            if out is not None:
                raise ConfigurationError(f"--out={out}: {config.path.name} names an exported folder: copy that instead")
            noted = record_spread_alone(settings, config, photos, progress)
            console.print(f"{config.model_folder}: its predictions' spread is noted")
            for line in check_class(settings, config, config.model_folder, noted):
                console.print(line, markup=False)
            return config.model_folder
        folder = prepare(
            settings.image_detector,
            config,
            settings.models_dir,
            out=out,
            pictures=photos.data if photos is not None else None,
            force=force,
            half=half,
            progress=progress,
        )
        sorting: Separation | None = None
        if photos is not None and photos.labels is not None and len(set(photos.labels)) > 1:
            progress("noting the spread of its predictions")
            sorting = record_spread(settings, config, folder, progress.each(photos.data), photos.labels)
        parity = Manifest.read(folder).parity
        size = sum(path.stat().st_size for path in folder.glob("model.onnx*")) / 1e6
        stored = f"; weights in 16 bits: {size:.1f} MB" if half else ""
        console.print(f"{folder}: {parity.words}" + (f"; {parity.caveat}" if parity.caveat else "") + stored)
        progress("checking the roadwork class on drawings")
        for line in check_class(settings, config, folder, sorting):
            console.print(line, markup=False)
    return folder


def prepare_faster(
    settings: Settings,
    config: DetectorConfig,
    precision: Precision,
    max_flips: float,
    photos: "CalibrationPhotos | None",
    merge: "MergeRequest" = "auto",
    *,
    asked: str,
) -> None:
    """Make a faster variant of the prepared model for the configured backend, or for all that are installed.

    Of an ensemble it is each branch's, and what they say together has to get through the gate as well. `merge` is for
    precisions with merged tokens: how many in a layer. `asked` is the flag or setting that asked for it.

    Raises:
        ConfigurationError: a package is missing, or there are too few photos to merge tokens by.
        CouldNotStart: nothing gets through the gate.
    """
    from detectors.quantize.ensemble import make_faster_ensemble, word_of_answers
    from detectors.quantize.quantize import CalibrationPhotos, PrecisionRequest, make_faster
    from detectors.quantize.schedule import why_too_few

    chosen = settings.image_detector_backend
    backends = [backend for kind, backend in VARIANTS if kind == precision and chosen in (AUTO, backend)]
    installed = [backend for backend in backends if BACKENDS[backend].is_installed]
    if not installed:
        wanted = f"the package {backends[0]!r} (extra `openvino`)" if backends else f"another backend than {chosen!r}"
        raise ConfigurationError(f"{asked}: needs {wanted}")
    refusals: list[str] = []
    models_dir, options = settings.models_dir, RunOptions(1, allowed_cores())
    photos = photos or CalibrationPhotos.by_arithmetic()
    request = merge if precision in MERGED.values() else None
    if request is not None and (lack := why_too_few(len(photos.data), made=photos.made)):
        raise ConfigurationError(f"{asked}: {lack}: --pictures FOLDER gives them")
    with _steps() as (console, progress):
        if config.branches is not None and (word := word_of_answers(config, models_dir, photos, precision, installed)):
            console.print(f"warning: {word}")
        for backend in installed:
            try:
                order = PrecisionRequest(
                    precision, backend, models_dir, options, photos, max_flips, progress, config.threshold,
                    config.pooled_views, request,
                )  # fmt: skip
                if config.branches is not None:
                    target = make_faster_ensemble(config, order)
                else:
                    target = make_faster(model_folder(config, models_dir), order)
            except (ModelError, InferenceError) as error:
                refusals.append(str(error))
                console.print(f"{backend}: {error}")
                continue
            made = Manifest.read(target).gate
            assert made is not None
            console.print(f"{target}: {_gate_in_words(made)}")
            for doubt in doubts(made):
                console.print(f"warning: {doubt}")
        if len(refusals) == len(installed):
            raise CouldNotStart("; ".join(dict.fromkeys(refusals)))
        _compare_backends(console, progress, config, precision, models_dir, options)


def _compare_backends(
    console: "Console", progress: Steps, config: DetectorConfig, precision: Precision,
    models_dir: Path, options: RunOptions,
) -> None:  # fmt: skip
    """Measure a precision's backends in turn, if there are several, and say which `auto` takes from now on."""

    model = PreparedModel.find(config, models_dir)
    folders = {backend: model.variant_folder(precision, backend) for backend in of_precision(model, precision)}
    if len(folders) < 2:
        return
    if config.branches is None:  # the parts of an ensemble were measured beside fp32's as a whole
        progress("measuring the backends in turn")
        with library_errors(f"{' and '.join(folders)} can't be compared", "--backend makes it for one alone"):
            compare(model.folder, folders, options)
        model = PreparedModel.find(config, models_dir)
    gates = {backend: judged_variant(model, precision, backend).gate for backend in folders}
    words = [f"{name} {speed_in_words(gate)}, differing by {gate.mean_difference:.1e}"
             for name, gate in gates.items() if gate is not None]  # fmt: skip
    console.print(f"{precision} is served by {measured_best(model, precision)}: {'; '.join(words)}")


def put_into_repository(
    settings: Settings, folder: Path, precision: Precision, layout: Layout, repository: Path
) -> Path:
    """Put an fp32 folder, or the faster variant of it that is there already, into another server's repository."""

    if precision != "fp32":
        backend = settings.image_detector_backend
        if backend == AUTO:
            backend = next(name for name, entry in BACKENDS.items() if layout in entry.layouts)
        folder = variant_folder(Manifest.read(folder), settings.models_dir, precision, backend)
    return write_layout(layout, folder, repository, settings.inference_threads or allowed_cores())


def _gate_in_words(gate: Gate) -> str:

    kept = f", {len(gate.kept_fp32)} layers in fp32" if gate.kept_fp32 else ""
    merged = f", {gate.merging.words}" if gate.merging is not None else ""
    line = (
        f"{gate.recipe}{merged}{kept}, {speed_in_words(gate)}, probabilities within "
        f"{gate.max_difference:.1e} (mean {gate.mean_difference:.1e}); {gate.flips:.2%} of {gate.pictures} flip"
    )
    if gate.labelled is not None:
        found = gate.labelled
        line += (
            f"; accuracy {found.accuracy:.1%} (fp32 {found.accuracy_fp32:.1%}), "
            f"expected reward {found.reward:.2f} (fp32 {found.reward_fp32:.2f})"
        )
    return line


@contextmanager
def _steps() -> "Iterator[tuple[Console, Steps]]":
    """Show steps as they come and how far each is, and hold the libraries' own chatter back."""
    from rich.console import Console

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    console = Console(file=sys.stderr, soft_wrap=True)
    with bar_on(console) as bar:
        yield console, Steps(lambda step: console.print(f"· {step}", markup=False), bar)


@contextmanager
def start_errors(settings: Settings) -> Iterator[None]:
    """Turn the detectors' errors into the command line's, and those of a disk that is full or not ours."""

    try:
        yield
    except (DetectorConfigError, ImageError) as error:
        raise ConfigurationError(settings.why_no_model(error)) from error
    except ModelError as error:
        raise CouldNotStart(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise CouldNotStart(f"{error.filename}: {error.strerror}") from error
