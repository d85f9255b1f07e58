"""What the commands that judge share: models by name, labelled photos (also of `simulate`), progress."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.errors import ConfigurationError
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from detectors.base import Detector
    from detectors.models.config import DetectorConfig
    from detectors.photos.labelled import Photos

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="YAML|FOLDER", help="A detector's YAML file or model folder; may be repeated."),
]


def find_models(settings: Settings, models: Sequence[str] | None) -> "dict[str, DetectorConfig]":
    """Return the configurations that are named, or the configured one, by a short name each.

    Two of one name, such as `detector.yaml` of two runs, get that of their folder before it.

    Raises:
        DetectorConfigError: one is not there, or two have the same name all the same.
    """
    from detectors.errors import DetectorConfigError
    from detectors.models.config import DetectorConfig, read_config
    from detectors.models.manifest import NAME, Manifest

    given = list(models or [settings.detector_config])
    places: list[Path] = []
    configs: list[DetectorConfig] = []
    for model in given:
        folder = Path(model).expanduser()
        if (folder / NAME).is_file():
            config = DetectorConfig.model_validate({"model_folder": folder.resolve(), "path": folder / NAME})
            places.append(folder.resolve())
        else:
            config = read_config(model)
            places.append(config.path.resolve().with_suffix(""))
        if config.model_folder is not None:
            kind = Manifest.read(config.model_folder).detector
        else:
            kind = "Ensemble" if config.branches else "ViT" if config.hf_repo is not None else "YOLOClassifier"
        configs.append(config.model_copy(update={"detector": kind}))
    names = [place.name for place in places]
    names = [
        name if names.count(name) == 1 else f"{place.parent.name}-{name}"
        for name, place in zip(names, places, strict=True)
    ]
    for model, name in zip(given, names, strict=True):
        if names.count(name) > 1:
            raise DetectorConfigError(f"--model={model}: there is another one of the name {name!r}")
    return dict(zip(names, configs, strict=True))


def open_model(settings: Settings, config: "DetectorConfig", precision: str = "fp32") -> "Detector":
    """Load a model, prepared if it was not, and have it prove itself; on all cores."""
    from detectors.base import RunOptions
    from detectors.export.export import prepare
    from detectors.load import is_prepared, load_detector
    from miner.inference.threads import allowed_cores
    from miner.settings.settings import AUTO

    if config.model_folder is None and not is_prepared(config, settings.models_dir):
        prepare(config.detector, config, settings.models_dir, force=False, progress=_say)
    backend = "onnx" if settings.image_detector_backend == AUTO else settings.image_detector_backend
    options = RunOptions(1, allowed_cores())
    detector = load_detector(config.detector, config, settings.models_dir, backend, options, precision)
    detector.verify()
    return detector


def read_labelled(folder: Path, option: str = "") -> "Photos":
    """Read a labelled folder that an option named; says on stderr what is left out.

    Raises:
        ConfigurationError: there is none, or a class is empty.
    """
    from detectors.errors import DetectorConfigError
    from detectors.photos.labelled import read_photos

    with _bar() as bar:
        task = bar.add_task("reading photos", total=None)
        try:
            photos = read_photos(folder, lambda done, total: bar.update(task, completed=done, total=total))
        except DetectorConfigError as error:
            raise ConfigurationError(f"{option}: {error}" if option else str(error)) from error
    say_left_out(photos.skipped)
    return photos


def say_left_out(lines: Iterable[str]) -> None:
    """Name photos that could not be used, on stderr."""
    for line in lines:
        _say(f"left out: {line}")


@contextmanager
def progress_bar(words: str, total: int) -> "Iterator[Callable[[], None]]":
    """Show a bar on stderr; call what it yields for every step."""
    with _bar() as bar:
        task = bar.add_task(words, total=total)
        yield lambda: bar.advance(task)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # before whatever stdout gets later
