"""The chores of commands that train and judge: models by name, labelled photos, the machine, errors."""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from detectors.base import Detector, RunOptions
from detectors.console import Screen, Steps, bar_on
from detectors.errors import DetectorConfigError, DetectorError, ModelError
from detectors.evaluation.branch_file import BranchFile
from detectors.export.export import prepare
from detectors.load import PreparedModel, is_prepared, load_detector
from detectors.machine import allowed_cores, children_seconds, cpu_quota, read_cpu, read_memory, read_throttling
from detectors.models.config import SHIPPED, DetectorConfig
from detectors.models.documents import BROKEN_YAML, first_line
from detectors.models.manifest import NAME
from detectors.models.sources import named_model
from detectors.photos.eras import Mix, eras_in, mix_of, subset
from detectors.photos.labelled import CLASSES, LabelledPhotos, read_photos
from detectors.photos.transforms import ERAS
from detectors.photos.view_head import head_views
from detectors.quantize.gate import measured_best
from detectors.registry import default_backend, how_to_install
from detectors.training.budget import Machine, MachineReading, Probe, is_out_of_memory
from miner.cli.common import chosen_file, read_settings
from miner.errors import ConfigurationError, CouldNotStart
from miner.feedback import FOLDER as FEEDBACK
from miner.feedback.answers import TrafficSample
from miner.feedback.labels import Labels
from miner.inference.memory import give_back
from miner.recorder import FOLDER as RECORDER
from miner.recorder.records import IMAGES
from miner.settings.settings import Settings
from miner.settings.validators import AUTO

if TYPE_CHECKING:
    from rich.progress import Progress

CACHE_FOLDER = Path("~/.cache/roadwork-miner/training")
PACKAGES = {  # that a command can't do without, by extra, with their modules
    "eval": {"scikit-learn": "sklearn"},
    "train": {"scikit-learn": "sklearn", "torch": "torch"},
}

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="YAML|FOLDER", help="A detector's YAML file or model folder; may be repeated."),
]


class EraChoice(StrEnum):
    """How photos are sent to a model that is judged; an enumeration, since Typer repeats no other choice."""

    LETTERBOX = "letterbox"
    NATIVE = "native"
    AUGMENTED = "augmented"
    RECORDED = "recorded"


Recorded = Annotated[
    bool,
    typer.Option("--recorded", help="The photos that `label` has labelled of the random tenth, as they were sent."),
]

ERA_HELP = (
    "Photos as validators of that era send them; recorded: in the mix of eras that RECORDER=images has kept; default: "
    "as they are"
)
EraOption = Annotated[EraChoice | None, typer.Option("--era", help=ERA_HELP + ".")]


def mix_for(settings: Settings, era: EraChoice) -> Mix:
    """Return the shares of the eras that an option asks for; of a recorded mix it is said.

    Raises:
        ConfigurationError: nothing was recorded.
    """
    if era is not EraChoice.RECORDED:
        return {one: 1.0 for one in ERAS if one == era.value}
    folder = settings.state_dir / RECORDER / IMAGES
    found = eras_in(folder)
    if not found:
        raise ConfigurationError(
            f"--era=recorded: {folder} holds no photo: a miner with RECORDER=images keeps those that it is sent"
        )
    mix = mix_of(found)
    words = ", ".join(f"{share:.0%} {name}" for name, share in mix.items())
    _say(f"{len(found)} recorded photo{'s' * (len(found) != 1)}: {words}")
    return mix


def in_era(settings: Settings, path: Path, found: BranchFile, era: EraChoice | None, seed: int) -> BranchFile:
    """Return what a file says of photos as they were sent in an era, or in a mix of them; all where none is asked for.

    Raises:
        ConfigurationError: the file does not know, or has none of these.
    """
    if era is None:
        return found
    if found.eras is None:
        raise ConfigurationError(
            f"--era={era}: {path.name} does not say how its photos were sent: `precompute branches --era` does"
        )
    try:
        return found.only(subset(found.labels, found.eras, mix_for(settings, era), seed))
    except DetectorConfigError as error:
        raise ConfigurationError(f"--era={era}: {path.name}: {error}") from error


def cache_folder(named: str | Path | None) -> Path:
    """Return the folder of features, for all runs.

    Raises:
        ConfigurationError: it would be in a home that is not known.
    """
    try:
        return Path(named or CACHE_FOLDER).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"--cache={named or CACHE_FOLDER}: nobody's home is known: set HOME, or give a path without ~"
        ) from None


def make_screen() -> "Screen":
    """Return what says things on stderr, so that stdout holds results alone."""
    from rich.console import Console

    return Screen(Console(file=sys.stderr))


def read_machine() -> "Machine":
    """Read what this process may use."""

    reading = make_probe()()
    cpu, features = read_cpu()
    return Machine(allowed_cores(), cpu_quota(), reading.memory, reading.available, cpu, features)


def make_probe() -> Probe:
    """Return what reads memory, swap and throttling now; limits of a cgroup count as the machine's end."""
    import psutil

    whole = float(psutil.virtual_memory().total)

    def read() -> MachineReading:
        memory = read_memory()
        within = memory.cgroup_limit - memory.cgroup_usage + memory.cgroup_reclaimable
        times, machine = os.times(), psutil.cpu_times()
        ended = times.user + times.system + times.children_user + times.children_system
        return MachineReading(
            resident=memory.resident,
            available=max(0.0, min(memory.machine_available, within)),
            memory=min(whole, memory.cgroup_limit),
            swapped_out=float(psutil.swap_memory().sout),
            throttled=read_throttling().seconds,
            cpu=ended + children_seconds(),
            idle=machine.idle + machine.iowait,
        )

    return patient(read, give_back)


def patient(read: Probe, release: Callable[[], None]) -> Probe:
    """Return what reads again, where memory is short, once what the allocator holds but nobody uses was given back."""

    def probe() -> "MachineReading":
        reading = read()
        if not reading.is_short:
            return reading
        release()
        return read()

    return probe


def parse(assignments: list[str] | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `--set key=value` and of the flags that were given; `augment.blur=0` names an inner one.

    Raises:
        ConfigurationError: no `=`, no YAML behind it, or an inner key of what has none.
    """

    values: dict[str, Any] = {}
    for assignment in assignments or []:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {assignment}: key=value is needed; --print-config lists the keys")
        outer, _, inner = key.partition(".")
        try:
            value = yaml.safe_load(text)
        except BROKEN_YAML as error:
            raise ConfigurationError(f"--set {assignment}: can't be read as YAML: {first_line(error)}") from error
        if inner and not isinstance(values.setdefault(outer, {}), dict):
            raise ConfigurationError(f"--set {assignment}: {outer} was given a value of its own before")
        if inner:
            values[outer][inner] = value
        else:
            values[outer] = value
    return values | {key: value for key, value in flags.items() if value is not None}


def check_views(views: str | None) -> None:
    """See that what was given as views can be read.

    Raises:
        ConfigurationError: it can't.
    """
    try:
        if views is not None:
            head_views(views)
    except ValueError as error:
        raise ConfigurationError(f"--views={views}: {error}") from None


def need_packages(command: str, extra: str = "eval") -> None:
    """Say before a photo is read that nothing could be judged, or trained with the extra `train`.

    Raises:
        CouldNotStart: scikit-learn or torch is not installed.
    """
    for package, module in PACKAGES[extra].items():
        if find_spec(module) is None:
            raise CouldNotStart(
                f"{command} needs the package {package!r} (extra `{extra}`; {how_to_install(extra)} installs it)"
            )


@contextmanager
def training_errors(hint: Callable[[], str] = str) -> Iterator[None]:
    """Turn the detectors' errors into the command line's, and hold the libraries' own chatter back.

    Args:
        hint: says what to do after a failure of the machine, such as a full disk.
    """

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    try:
        yield
    except DetectorConfigError as error:
        raise ConfigurationError(str(error)) from error
    except DetectorError as error:
        raise CouldNotStart(str(error)) from error
    except ModuleNotFoundError as error:
        raise CouldNotStart(
            f"training needs the package {error.name!r}, which is not installed; {how_to_install('train')} installs it"
        ) from error
    except BrokenPipeError:
        raise  # who read the output has seen enough
    except (OSError, MemoryError, RuntimeError) as error:  # above all a full disk, and a full memory
        if is_out_of_memory(error):
            words = "memory is full even with one photo at a time: stop other programs, or choose a smaller --model"
        elif isinstance(error, OSError):
            words = str(error)
        else:
            raise
        raise CouldNotStart("; ".join(filter(None, (words, hint())))) from error


def find_models(settings: Settings, models: Sequence[str] | None) -> "dict[str, DetectorConfig]":
    """Return the configurations that are named, or the configured one, by a short name each.

    Two of one name, such as `detector.yaml` of two runs, get that of their folder before it.

    Raises:
        DetectorConfigError: one is not there, or two have the same name all the same.
    """

    given = list(models or [settings.detector_config])
    places: list[Path] = []
    configs: list[DetectorConfig] = []
    for model in given:
        configs.append(named_model(model))
        path = configs[-1].path.resolve()
        places.append(path.parent if path.name == NAME else path.with_suffix(""))
    names = [place.name for place in places]
    names = [
        name if names.count(name) == 1 else f"{place.parent.name}-{name}"
        for name, place in zip(names, places, strict=True)
    ]
    for model, name in zip(given, names, strict=True):
        if names.count(name) > 1:
            raise DetectorConfigError(f"--model={model}: there is another one of the name {name!r}")
    return dict(zip(names, configs, strict=True))


def open_model(settings: Settings, config: "DetectorConfig", precision: str = "fp32") -> Detector:
    """Load a model, prepared if it was not, and have it prove itself; on all cores."""

    if config.model_folder is None and not is_prepared(config, settings.models_dir):
        prepare(config.detector, config, settings.models_dir, force=False, progress=Steps(_say))
    backend = settings.image_detector_backend
    if backend == AUTO:  # as `measured_best` does for the miner
        chosen = measured_best(PreparedModel.find(config, settings.models_dir), precision)
        backend = chosen or default_backend(precision)
    options = RunOptions(1, allowed_cores())
    detector = load_detector(config.detector, config, settings.models_dir, backend, options, precision)
    detector.verify()
    return detector


def open_serving() -> tuple[str, Detector]:
    """Load what serves now by this folder's settings, and name it; nothing is fetched or exported for it.

    Raises:
        DetectorError: it can't be loaded, or the settings are wrong.
    """
    try:
        settings = read_settings(chosen_file(None, None, refused=False), None)
    except ConfigurationError as error:
        raise DetectorConfigError(first_line(error)) from error
    ((name, config),) = find_models(settings, None).items()
    if config.model_folder is None and not is_prepared(config, settings.models_dir):
        raise ModelError(f"{settings.detector_config} has never been prepared")
    # No path of this machine: the name goes into the model card.
    told = name if config.path.parent == SHIPPED else f"{config.path.parent.name}/{config.path.name}"
    return told, open_model(settings, config)


def read_labelled(folder: Path, option: str = "", *, one_will_do: bool = False) -> LabelledPhotos:
    """Read a labelled folder that an option named, of one class if that will do; says on stderr what is left out.

    Raises:
        ConfigurationError: there is none, or a class is empty.
    """

    with _bar() as bar:
        task = bar.add_task("reading photos", total=None)
        try:
            photos = read_photos(
                folder, lambda done, total: bar.update(task, completed=done, total=total), one_will_do=one_will_do
            )
        except DetectorConfigError as error:
            raise ConfigurationError(f"{option}: {error}" if option else str(error)) from error
    say_left_out(photos.skipped)
    return photos


def read_recorded(settings: Settings, *, one_will_do: bool = False) -> LabelledPhotos:
    """Read the labelled photos of the random tenth of what validators send; says on stderr what is left out.

    Raises:
        ConfigurationError: there is none, or none of a class where one will not do.
    """
    folder = settings.state_dir / FEEDBACK
    sample = TrafficSample.read(Labels(folder))
    photos = LabelledPhotos(sample.photos, sample.left_out)
    say_left_out(photos.skipped)
    if not photos.photos:
        raise ConfigurationError(
            f"--recorded: {folder} holds no label of the random tenth: `roadwork-miner label` makes them of what "
            "RECORDER=images keeps"
        )
    if not one_will_do and len(found := set(photos.labels.tolist())) == 1:
        raise ConfigurationError(
            f"--recorded: all labels of the random tenth are {CLASSES[found.pop()]}; both are needed"
        )
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

    return bar_on(Console(file=sys.stderr))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # before whatever stdout gets later
