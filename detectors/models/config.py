"""A detector's YAML file, with the keys of StreetVision's own."""

import difflib
import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from detectors.errors import DetectorConfigError, NoConfig
from detectors.models.calibration import WORTH_ANSWERING, Fusion, Inside, Stage
from detectors.models.documents import faults, read_yaml, shown
from detectors.models.hf_config import FILTERS, MAX_SIDE, Deviation, Mean, allowed
from detectors.models.labels import INDEX_KEY, LABEL_KEY
from detectors.models.processors import BILINEAR
from detectors.photos.view_head import HEAD
from detectors.photos.views import LETTERBOX, WHOLE, Pool, PooledViews, parse, views_of

VIT, YOLO, THIRD, KERAS = "vit_config", "yolo_weights_path", "googlenet_fusion_path", "use_keras"
log = logging.getLogger(__name__)
FUSION_KEYS = {VIT, YOLO, THIRD, KERAS}
YOLO_CLASS_KEY = "roadwork_class_index"  # of its YOLO branch
MAX_PASTED_CHARACTERS = 2000  # characters of what is to be pasted
DEFAULTS = {VIT: "ViT_roadwork.yaml", YOLO: "best.pt"}
THRESHOLDS = "a number above 0 and below 1, such as 0.35, is allowed"
SHIPPED = Path(__file__).parents[1] / "configs"
SOURCES = ("hf_repo", "weights_path", "onnx_path", "model_folder", "branches")

# Of an ONNX file of one's own: what no graph says of itself.
KEYS = ("input_size", "mean", "std", "resample", "crop", "labels", "output")
NEEDED = ("mean", "std", "labels", "output")
MISSPELT = 0.85  # of a key's letters alike, from which on it is one of ours and no other program's
SMALL_BYTES = 50_000_000  # bytes; a graph whose weights lie elsewhere is never larger
# A pair of protobuf's: `location`, then the name of a file of at most 127 bytes.
LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])")


def _size(value: object) -> object:
    sides = [value, value] if type(value) is int else value
    if value is None:
        return None
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(type(one) is int for one in sides):
        height, width = sides
        if 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE:
            return height, width
    raise ValueError(f"a whole number from 1 to {MAX_SIDE} (pixels), or [height, width] of such, is allowed")


def _filter(value: object) -> object:
    number = FILTERS.get(value.strip().lower()) if isinstance(value, str) else value
    if type(number) is int and number in FILTERS.values():
        return number
    raise ValueError(f"{', '.join(FILTERS)}, or Pillow's number of one, is allowed")


def _crop(value: object) -> object:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in ("none", None) or word is False:
        return None
    if word in ("center", "centre"):
        return 1.0
    if isinstance(word, int | float) and word is not True and (0 < word <= 1 or word in range(2, MAX_SIDE + 1)):
        return float(word)
    raise ValueError(
        "none (the picture is squeezed), center (the shorter side fills the input), a share up to 1 of the shorter "
        "side, or what the shorter side is resized to before the crop (pixels), is allowed"
    )


def _labels(value: object) -> object:
    if isinstance(value, dict) and list(value) == list(range(len(value))):
        value = list(value.values())
    if value is None or (
        isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value)
    ):
        return value if value is None else [str(one) for one in value]
    raise ValueError("a list of the classes' names, in the order of the outputs, is allowed")


InputSize = Annotated[tuple[int, int] | None, BeforeValidator(_size)]
Resample = Annotated[int, BeforeValidator(_filter)]
Crop = Annotated[float | None, BeforeValidator(_crop)]
Labels = Annotated[list[str] | None, BeforeValidator(_labels)]
GraphOutput = Literal["logits", "probability"]
ViewList = Annotated[tuple[str, ...], BeforeValidator(parse)]


def data_files(path: Path) -> list[Path]:
    """Return the files beside a graph that hold its weights, as far as they are there.

    Found in the bytes: to import onnx would take a fifth of a second of every start.
    """
    if path.stat().st_size >= SMALL_BYTES:
        return []
    data = path.read_bytes()
    names = {data[found.end() : found.end() + found[1][0]] for found in LOCATION.finditer(data)}
    found = []
    for name in sorted(names):
        with suppress(OSError, ValueError):  # bytes that only look like a name
            if (file := path.parent / name.decode("utf-8", "replace")).is_file():
                found.append(file)
    return found


def _graph(given: Path) -> Path:
    """Return a graph by the name that its weights lie beside: a link's own, as in a hub's cache, or its target's."""
    named, target = given.parent.resolve() / given.name, given.resolve()
    is_link = named != target and target.is_file()
    return target if is_link and not data_files(named) and data_files(target) else named


def translated(path: Path, values: Mapping[str, Any], shipped: Path) -> str:
    """Return what to write in place of such a file.

    Args:
        path: of the file.
        values: what is in it.
        shipped: the folder of our own YAML files, whose names its `vit_config` may use.
    """
    yolo: dict[str, Any] = {"detector": "YOLOClassifier", "weights_path": str(values.get(YOLO) or DEFAULTS[YOLO])}
    if values.get(YOLO_CLASS_KEY) is not None:
        yolo[YOLO_CLASS_KEY] = values[YOLO_CLASS_KEY]
    branches = {"vit": {"detector": "ViT", **_vit(path, str(values.get(VIT) or DEFAULTS[VIT]), shipped)}, "yolo": yolo}
    ours = {"branches": branches, "fusion": {"kind": "mean", "branches": list(branches)}}
    third = f"{THIRD}={shown(values[THIRD])} " if values.get(THIRD) else ""
    return (
        f"{path.name}: {', '.join(sorted(FUSION_KEYS & values.keys()))}: an InceptionFusion of a fork, which is an "
        f"Ensemble here. Its third network and its fusion {third}are not read; `roadwork-miner fuse` fits a fusion of "
        f"these two. Set IMAGE_DETECTOR=Ensemble, and write into {path.name}: {_on_one_line(ours)}"
    )


def _on_one_line(values: Mapping[str, Any]) -> str:
    """Return the values as YAML that is pasted as it stands, unless nobody could mean it."""
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=True, width=math.inf).rstrip()
    return text if len(text) <= MAX_PASTED_CHARACTERS else shown(text)


def _vit(path: Path, name: str, shipped: Path) -> dict[str, Any]:
    """Return the keys of the ViT: the file that is named, or what is in ours of that name."""
    if not (path.parent / name).is_file() and (shipped / name).is_file():
        found: dict[str, Any] = yaml.safe_load((shipped / name).read_text(encoding="utf-8"))
        return found
    return {"config": name}


class DetectorConfig(BaseModel):
    """Where a detector's model comes from and what its outputs mean. Exactly one of the sources is set."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=False, coerce_numbers_to_str=True)

    hf_repo: str | None = Field(None, description="a Hugging Face repository, or a local folder of the same files")
    revision: str = Field("main", description="branch, tag or, better, commit of hf_repo")
    subfolder: str | None = Field(None, description="the folder of the model within hf_repo")
    weights_path: Path | None = Field(None, description="an Ultralytics .pt file")
    onnx_path: Path | None = Field(None, description="an ONNX file of one's own; the keys up to `output` are its alone")
    input_size: InputSize = Field(None, description="N or [height, width] in pixels; default: the graph's own")
    mean: Mean = Field(None, description="of each channel, of pixels from 0 to 1; of 0 to 255 if a number is above 1")
    std: Deviation = Field(None, description="the deviation, likewise")
    resample: Resample = Field(BILINEAR, description="the filter of the resize")
    crop: Crop = Field(None, description="none, center, a share of the shorter side, or its pixels before the crop")
    labels: Labels = Field(None, description="the names of the classes, in the order of the outputs")
    output: GraphOutput | None = Field(None, description="logits, or probability where the graph ends in a softmax")
    model_folder: Path | None = Field(None, description="a folder that `roadwork-miner export` has written")
    roadwork_label: str | None = Field(None, description="the class that means roadwork, by name or number")
    roadwork_class_index: int | None = Field(None, ge=0, description="the class that means roadwork, by number")
    threshold: Annotated[Inside | None, allowed(THRESHOLDS)] = Field(
        None, description="what the model says counts as roadwork above this number; it is moved to 0.5"
    )
    letterbox: bool = Field(False, description="fit the whole picture between black bars, in place of resize and crop")
    views: ViewList = Field((), description="what of a picture the model looks at in turn; default: the whole")
    pool: Pool | None = Field(None, description="of several views: how their answers become one; default: mean")
    branches: dict[str, "DetectorConfig"] | None = Field(None, min_length=1, description="of an Ensemble: by a name")
    fusion: Fusion | None = Field(None, description="of an Ensemble: how they become one; default: their mean")
    fallbacks: list[Fusion] = Field(
        default_factory=list, description="of an Ensemble: what answers when a branch fails, each with its measurement"
    )
    stages: list[Stage] = Field(
        default_factory=list, description="of an Ensemble: cheaper combinations in turn; what is unsure goes on"
    )
    detector: str = Field("ViT", description="of a branch: ViT or YOLOClassifier")
    config: str | None = Field(None, description="of a branch: a YAML file in place of these keys")
    config_name: str | None = Field(None, description="of the original files; not needed")
    weights: str | None = Field(None, description="of the original files; not needed")
    path: Path = Field(Path(), exclude=True, description="the YAML file itself")

    @field_validator("roadwork_label", mode="before")
    @classmethod
    def _truth_as_text(cls, value: object) -> object:
        # A label of true or false, as a config.json may have it and YAML reads it; numbers become text by themselves.
        return str(value) if isinstance(value, bool) else value

    @field_validator("subfolder")
    @classmethod
    def _within(cls, value: str | None) -> str | None:
        if value is not None and (PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts):
            raise ValueError("a folder within the repository is allowed")
        return value

    @property
    def pooled_views(self) -> PooledViews | None:
        """What the model looks at, and how that becomes one answer; None: the whole alone, or what its head learned."""
        return None if self.pool == HEAD else views_of(self.views, self.pool)

    @property
    def source(self) -> str:
        """The source in words, for messages."""
        if self.branches is not None:
            return " + ".join(branch.source for branch in self.branches.values())
        within = f"/{self.subfolder}" if self.subfolder else ""
        path = self.weights_path or self.onnx_path or self.model_folder
        return f"{self.hf_repo}{within}" if self.hf_repo is not None else str(path)


def find_config(name: str) -> Path:
    """Find a YAML file by path, or by name among the shipped ones.

    Raises:
        NoConfig: there is none.
    """
    with usable(f"no detector configuration {shown(name)}"):
        for candidate in (Path(name).expanduser(), SHIPPED / name):
            if candidate.is_file():
                return candidate.resolve()
    shipped = ", ".join(sorted(path.name for path in SHIPPED.glob("*.yaml")))
    raise NoConfig(f"no detector configuration {name!r}; give a path to a YAML file, or one of: {shipped}")


def read_config(name: str) -> DetectorConfig:
    """Read and validate a YAML file; relative paths in it are taken from its own folder.

    Raises:
        DetectorConfigError: missing, not YAML, a wrong value, or not exactly one source.
    """
    path = find_config(name)
    return _complete(_read(path), path, path.name)


def _read(path: Path) -> DetectorConfig:
    values = read_yaml(path)
    if FUSION_KEYS & values.keys():
        with usable(path.name):
            raise DetectorConfigError(translated(path, values, SHIPPED))
    _check_keys(path, values)
    try:
        return DetectorConfig(**{str(key): value for key, value in values.items()} | {"path": path})
    except ValidationError as error:
        raise DetectorConfigError(f"{path.name}: {faults(error)}") from error


def _check_keys(path: Path, values: Mapping[Any, Any]) -> None:
    known = [key for key in DetectorConfig.model_fields if key != "path"]
    branches = values.get("branches")
    nested = [branch for branch in branches.values() if isinstance(branch, dict)] if isinstance(branches, dict) else []
    for key in [*values, *(key for branch in nested for key in branch)]:
        if key not in known:
            misspelt = difflib.get_close_matches(str(key).lower(), known, n=1, cutoff=MISSPELT)
            if misspelt:  # what it says would be passed over, as a threshold
                raise DetectorConfigError(f"{path.name}: unknown key {key}: {misspelt[0]} is meant")
            near = difflib.get_close_matches(str(key), known, n=1)
            log.warning("%s: unknown key %s%s", path.name, key, f" (did you mean {near[0]}?)" if near else "")


def _complete(config: DetectorConfig, path: Path, where: str) -> DetectorConfig:
    """Check the sources, make paths absolute, and read what branches name."""
    sources = [key for key in SOURCES if getattr(config, key) is not None]
    if len(sources) != 1:
        found = " and ".join(sources) or "none"
        raise DetectorConfigError(f"{where}: exactly one of {', '.join(SOURCES)} is needed; found {found}")
    if config.subfolder is not None and config.hf_repo is None:
        raise DetectorConfigError(f"{where}: subfolder={config.subfolder}: only hf_repo has subfolders")
    _check_onnx_keys(config, where)
    _check_views(config, where)
    if config.branches is None:
        if joint := [key for key in ("fusion", "fallbacks", "stages") if getattr(config, key)]:
            raise DetectorConfigError(f"{where}: {', '.join(joint)}: only an Ensemble, which has branches, has these")
        return _anchored(config.model_copy(update={"path": path}))
    for key in (LABEL_KEY, INDEX_KEY):
        if (value := getattr(config, key)) is not None:
            raise DetectorConfigError(f"{where}: {key}={value}: each of the branches has a class of its own")
    branches = {name: _branch(branch, path, f"{where}: branches.{name}") for name, branch in config.branches.items()}
    fusion = config.fusion or Fusion(branches=list(branches))
    _check_fusions(fusion, config.fallbacks, set(branches), where)
    _check_stages(config, set(branches), where)
    if config.threshold is not None and fusion.threshold != 0.5:
        raise DetectorConfigError(
            f"{where}: threshold={config.threshold}: fusion.threshold={fusion.threshold} is one already: remove either"
        )
    return config.model_copy(update={"branches": branches, "fusion": fusion})


def _check_onnx_keys(config: DetectorConfig, where: str) -> None:
    """Refuse the keys of an ONNX file without one, and one without what no graph says of itself."""
    given = [key for key in KEYS if key in config.model_fields_set and getattr(config, key) is not None]
    if config.onnx_path is None and given:
        raise DetectorConfigError(f"{where}: {', '.join(given)}: only onnx_path has these; a model's own files say it")
    lacks = [key for key in NEEDED if config.onnx_path is not None and getattr(config, key) is None]
    if lacks:
        raise DetectorConfigError(f"{where}: onnx_path needs {', '.join(lacks)} as well: the graph does not say it")
    if config.letterbox and config.crop is not None:
        raise DetectorConfigError(f"{where}: crop={config.crop:g}: letterbox shows the whole picture: remove either")


def _check_views(config: DetectorConfig, where: str) -> None:
    """Refuse views of an ensemble as a whole, a pool of nothing, and the same picture twice."""
    if config.views and config.branches is not None:
        raise DetectorConfigError(f"{where}: views={list(config.views)}: each of the branches has views of its own")
    if config.pool is not None and not config.views:
        raise DetectorConfigError(f"{where}: pool={config.pool}: it pools several `views`, which are needed beside it")
    if config.letterbox and config.model_folder is not None:  # which would be passed over
        told = "an exported folder has its preprocessing in it; `views: [letterbox]` shows the picture in bars"
        raise DetectorConfigError(f"{where}: letterbox: true: {told}")
    if config.letterbox and {WHOLE, LETTERBOX} <= set(config.views):
        raise DetectorConfigError(f"{where}: views={list(config.views)}: letterbox: true has the whole in bars already")


def _branch(branch: DetectorConfig, path: Path, where: str) -> DetectorConfig:
    named = branch.config
    if named is not None:
        with usable(f"{where}: config={shown(named)}"):
            places = (path.parent / Path(named).expanduser(), SHIPPED / named)
            found = next((place.resolve() for place in places if place.is_file()), None)
        if found is None:
            raise DetectorConfigError(f"{where}: config={shown(named)}: neither in {path.parent} nor among the shipped")
        path = found
        own = {key: getattr(branch, key) for key in branch.model_fields_set - {"config"}}
        branch = _read(path).model_copy(update={"detector": branch.detector} | own)
    if branch.threshold is not None:
        raise DetectorConfigError(
            f"{where}: threshold={branch.threshold}: what the branches say together has one, which stands beside "
            f"`branches`; `threshold: null` in a branch takes out that of its own file"
        )
    if branch.branches is not None:  # asked before they are read: a file may name itself
        raise DetectorConfigError(f"{where}: a branch can't have branches")
    return _complete(branch, path, where if named is None else path.name)


def _check_fusions(fusion: Fusion, fallbacks: list[Fusion], branches: set[str], where: str) -> None:
    if set(fusion.branches) != branches:
        raise DetectorConfigError(
            f"{where}: fusion.branches={fusion.branches}: all branches are needed, and no other: {sorted(branches)}"
        )
    for fallback in fallbacks:
        if not set(fallback.branches) < branches:
            raise DetectorConfigError(
                f"{where}: fallbacks.branches={fallback.branches}: some of these are needed: {sorted(branches)}"
            )
        _check_worth("fallback", fallback, where)


def _check_stages(config: DetectorConfig, branches: set[str], where: str) -> None:
    """Refuse a cascade whose stages do not grow, or whose answers were not measured to be better than none."""
    if config.stages and config.threshold is not None:
        raise DetectorConfigError(f"{where}: threshold={config.threshold}: each of the stages has one of its own")
    larger = branches
    for stage in reversed(config.stages):
        if not set(stage.branches) < larger:
            raise DetectorConfigError(
                f"{where}: stages.branches={stage.branches}: some of the next stage's are needed: {sorted(larger)}"
            )
        _check_worth("stage", stage, where)
        larger = set(stage.branches)


def _check_worth(kind: str, fusion: Fusion, where: str) -> None:
    if not fusion.is_worth_answering:
        raise DetectorConfigError(
            f"{where}: the {kind} {fusion.words} was not measured to be better than no answer: `roadwork-miner fuse"
            f"{' --stages' * (kind == 'stage')}` writes `measured`, an accuracy above {WORTH_ANSWERING} in it is needed"
        )


def _anchored(config: DetectorConfig) -> DetectorConfig:
    """Make paths absolute; a `hf_repo` that is a folder on this disk counts as one."""
    home = config.path.parent
    key = next(key for key in SOURCES if getattr(config, key) is not None)
    given = getattr(config, key)
    with usable(f"{config.path.name}: {key}={shown(str(given))}"):
        local = (home / Path(given).expanduser()).resolve()
        is_folder = local.is_dir()
        if key != "hf_repo":
            named = _graph(home / Path(given).expanduser()) if key == "onnx_path" else local
            return config.model_copy(update={key: named})
        if is_folder or given.startswith(("/", ".", "~")):
            return config.model_copy(update={key: str(local)})
    return config


@contextmanager
def usable(where: str) -> Iterator[None]:
    """Say of a path that the system can't look at what it says: too long, a user who is not there, links in a ring."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise DetectorConfigError(f"{where}: {getattr(error, 'strerror', None) or error}") from error
