"""The configuration of a training: printed at its start, saved with its run, read again to resume it."""

from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from detectors.errors import DetectorConfigError, about
from detectors.files import write_safely
from detectors.models.config import usable
from detectors.models.documents import faults, read_yaml, shown
from detectors.models.sources import named_model
from detectors.photos.labelled import SUFFIXES, photos_below
from detectors.photos.view_head import head_views
from detectors.photos.views import PooledViews
from detectors.registry import METHODS

CONFIG_FILE = "config.yaml"
YOLO_RATE = 1e-3
QUICK_EPOCHS, QUICK_VIEWS, QUICK_HOURS = 3, 0, 2 / 60
SMOOTHING = 0.05  # of labels, where all that learns could learn them by heart
PATIENCE = 8  # epochs
EVEN = 0.5  # share of each class, as validators draw them
HUB = "hf:"  # what a data set's name begins with
NAMED_MODELS = ("lite2", "lite0", "starter", "tiny", "small", "base")  # whatever folders are called so


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"one of {', '.join(METHODS)} is allowed")
    return name


Method = Annotated[str, AfterValidator(_known_method)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Augment(_Part):
    """How probable each change of a photo is; 0 switches it off.

    The first mirror what validators send. The last four are for what a few hundred photos can't show.
    """

    flip: Probability = 0.5  # mirrored
    upside_down: Probability = 0.1  # turned top to bottom
    rotate: Probability = 0.3  # by up to 20 degrees either way
    crop: Probability = 0.5  # cut to 20 to 100 % of its area
    letterbox: Probability = 0.5  # whole in a 224-pixel square, between black bars
    light: Probability = 0.5  # another brightness, contrast and saturation
    shrink: Probability = 0.2  # half or a third of the pixels a side, enlarged again
    blocks: Probability = 0.1  # grey blocks hide parts
    noise: Probability = 0.2  # noise added
    blur: Probability = 0.2  # blurred a little
    jpeg: Probability = 0.5  # compressed as JPEG of quality 30 to 95
    zoom: Probability = 0.0  # without roadwork: a part of 3 to 100 % of its area
    recolour: Probability = 0.0  # without roadwork: all hues turned
    works: Probability = 0.0  # without roadwork: drawn cones and barrels put in, so that it has some
    shapes: Probability = 0.0  # coloured shapes drawn on it that are no works


def _full(name: str) -> str:
    """Return the full path of what lies on this disk; any other name as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


class TrainConfig(_Part):
    """One training. What is None is chosen by the method, the data or the machine, and printed."""

    data: str = Field(description="folder of photos, or hf:NAME or hf:NAME@COMMIT for a Hugging Face data set")
    labels: dict[str, Literal["roadwork", "no_roadwork"]] | None = Field(
        None, description="of a data set whose labels have other names: which class each is"
    )
    cache: str | None = Field(None, description="folder of the features, for all runs; None: in ~/.cache")
    detector: Literal["ViT", "YOLOClassifier"] = Field("ViT", description="what serves it later")
    model: str = Field(
        min_length=1,
        default_factory=lambda known: "small" if known.get("detector") == "YOLOClassifier" else "lite2",
        description="lite2, lite0, starter; tiny, small, base or a repository of the hub; a folder; YOLO: .pt or .yaml",
    )
    revision: str = Field("main", description="branch, tag or commit of the repository")
    method: Method = Field("head", description=f"{'; '.join(METHODS)}. YOLO: always full")
    epochs: int | None = Field(None, ge=1, description="at most; None: by the method")
    batch_size: int = Field(32, ge=1, description="photos between two steps of the optimiser")
    micro_batch: int | None = Field(None, ge=1, description="photos in memory at once; None: by the memory")
    learning_rate: float | None = Field(None, gt=0, description="at its highest; None: by method and network")
    weight_decay: float = Field(0.05, ge=0)
    warm_up: float = Field(0.1, ge=0, lt=1, description="share of all steps; a cosine to zero follows")
    label_smoothing: float | None = Field(None, ge=0, lt=0.5, description="None: 0 for a head, 0.05 otherwise")
    class_weights: bool = Field(True, description="a class with fewer photos weighs more")
    prior: float = Field(
        EVEN,
        gt=0,
        lt=1,
        description="share of roadwork among what is to be judged; less: fewer false alarms (not YOLO)",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="epochs without a better validation before it stops; None: 8, and a head takes its last",
    )
    validate_every: int = Field(1, ge=1, description="epochs from one validation to the next; the last one has its own")
    average: float = Field(0.0, ge=0, lt=1, description="kept of the weights' average at a step (full); 0: no average")
    frozen: float = Field(
        0.0, ge=0, lt=1, description="share of the layers, from the input on, that stay as they are (full)"
    )
    lora_rank: int = Field(8, ge=1)
    served_views: str | None = Field(
        None, description="of each photo, that a head learns on all together, such as whole,tiles:2x3 (method head)"
    )
    repeats: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(
        {}, description="how many times a photo to learn from counts, by its subfolder's name, such as {traffic: 5}"
    )
    views: int = Field(8, ge=0, description="changed copies of each photo, for cached features")
    augment: Augment = Augment()
    val_share: float = Field(0.15, gt=0, lt=0.5, description="of the photos, where the folder has no val/")
    test_share: float = Field(0.15, ge=0, lt=0.5, description="of the photos, where the folder has no test/")
    seed: int = Field(0, ge=0, lt=2**31)
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where it is measured faster")
    threads: int | None = Field(None, ge=1, description="None: all cores the quota allows")
    workers: int | None = Field(None, ge=0, description="processes that load photos; None: as many as pay")
    save_every: int = Field(5, ge=1, description="epochs from one kept checkpoint to the next")
    save_total_limit: int = Field(2, ge=1, description="how many of those are kept, besides best and latest")
    checkpoint_minutes: float = Field(10.0, ge=0, description="time between checkpoints within an epoch")
    max_hours: float | None = Field(None, gt=0, description="stops cleanly after that, with the best so far")
    quick: bool = Field(False, description="a few photos and epochs: two minutes that show what photos are worth")
    teacher: str | None = Field(None, description="YAML file or folder of a model that serves, to learn from")
    teacher_share: float = Field(0.5, ge=0, le=1, description="of a labelled photo's target that is the teacher's")
    teacher_confidence: float = Field(
        0.5, ge=0.5, lt=1, description="of the teacher, either way, below which a photo without a label is left out"
    )
    unlabelled: list[str] = Field([], description="folders of photos that the teacher alone judges")

    @field_validator("served_views")
    @classmethod
    def _in_one_order(cls, value: str | None) -> str | None:
        return None if value is None else ",".join(head_views(value).parts)

    @model_validator(mode="after")
    def _of_a_head(self) -> Self:
        if self.served_views is not None and (self.is_yolo or self.method != "head"):
            method = "full (YOLO)" if self.is_yolo else self.method
            raise ValueError(
                f"served_views (--views)={self.served_views}: method=head is needed for these; found {method}"
            )
        return self

    @model_validator(mode="after")
    def _of_its_own_layer(self) -> Self:
        if self.is_yolo and self.prior != EVEN:
            raise ValueError(f"prior={self.prior}: with YOLOClassifier {EVEN} is allowed")
        return self

    @model_validator(mode="after")
    def _of_all_weights(self) -> Self:
        if self.is_yolo or self.method != "full":
            found = "YOLOClassifier" if self.is_yolo else f"method={self.method}"
            for name in ("frozen", "average"):
                if value := getattr(self, name):
                    raise ValueError(f"{name}={value:g}: with {found} 0 is allowed; ViT with method=full takes more")
        return self

    @model_validator(mode="after")
    def _of_its_own_loop(self) -> Self:
        if self.is_yolo and self.validate_every > 1:
            raise ValueError(
                f"validate_every={self.validate_every}: with YOLOClassifier 1 is allowed: Ultralytics judges each epoch"
            )
        return self

    @model_validator(mode="after")
    def _judged_by_somebody(self) -> Self:
        if self.unlabelled and self.teacher is None:
            raise ValueError(f"unlabelled={self.unlabelled[0]}: a teacher is needed that judges these photos")
        return self

    @property
    def head_views(self) -> PooledViews | None:
        """What of each photo the head looks at, where that is more than the whole."""
        return None if self.served_views is None else head_views(self.served_views)

    @property
    def is_yolo(self) -> bool:
        """Whether Ultralytics trains it."""
        return self.detector == "YOLOClassifier"

    @property
    def words(self) -> str:
        """What is trained: the detector, the model it starts from, by the last name of a path, and the method."""
        model = Path(self.model).name if self.model.startswith(("/", ".", "~")) else self.model
        return f"{self.detector} {model}, {'full' if self.is_yolo else self.method}"

    @property
    def most_epochs(self) -> int:
        """Epochs at most: many for a head, whose epochs take no time, more from scratch than from weights."""
        most = self.epochs or (40 if self.is_yolo else METHODS[self.method].epochs)
        return min(most, QUICK_EPOCHS) if self.quick and self.learns_from_photos else most

    @property
    def learns_from_photos(self) -> bool:
        """Whether each epoch runs the whole network, which takes time."""
        return self.is_yolo or self.method != "head"

    @property
    def hours(self) -> float | None:
        """Hours after which it stops cleanly; where every epoch takes time, a quick run has two minutes."""
        if self.max_hours is None and self.quick and self.learns_from_photos:
            return QUICK_HOURS
        return self.max_hours

    @property
    def changed_views(self) -> int:
        """Changed copies of each photo, for cached features."""
        return min(self.views, QUICK_VIEWS) if self.quick else self.views

    def rate(self, *, convolutional: bool) -> float:
        """Return the learning rate at its highest.

        Args:
            convolutional: whether the network sees by convolutions.
        """
        entry = METHODS[self.method]
        chosen = entry.convolutional_rate if convolutional and entry.convolutional_rate else entry.rate
        return self.learning_rate or (YOLO_RATE if self.is_yolo else chosen)

    @property
    def smoothing(self) -> float:
        """What of a label is shared out among both classes.

        Nothing for a head: it made the validation's log loss, which settles ties, best after the first few epochs.
        """
        chosen = SMOOTHING if self.learns_from_photos else 0.0
        return chosen if self.label_smoothing is None else self.label_smoothing

    @property
    def takes_last(self) -> bool:
        """Whether the last epoch is taken, and none chosen by validation.

        Only a head's, which is a convex problem: more steps come nearer to its one solution. A few dozen photos that
        are all right after three epochs stopped it there, and of works on unlike streets it found 14 % and not 71 %.
        """
        return not self.learns_from_photos and self.patience is None

    @property
    def most_waited(self) -> float:
        """Epochs without a better validation before it stops."""
        return inf if self.takes_last else self.patience or PATIENCE

    def anchored(self) -> Self:
        """Return it with every path in full, so that it means the same from another working folder."""
        hub = self.data.startswith(HUB)
        data = _full(self.data.removeprefix(HUB)) if hub else str(Path(self.data).expanduser().resolve())
        values: dict[str, Any] = {
            "data": HUB * hub + data,
            "model": self.model if self.model in NAMED_MODELS else _full(self.model),
        }
        if self.cache is not None:
            values["cache"] = str(Path(self.cache).expanduser().resolve())
        if self.teacher is not None:
            values["teacher"] = _full(self.teacher)
        values["unlabelled"] = [_full(folder) for folder in self.unlabelled]
        return self.model_copy(update=values)

    def check_places(self, *, resumed: bool = False) -> None:
        """See that the folders it names are there, before anything is fetched or written.

        Args:
            resumed: the run may have unlabelled photos of its own by now.

        Raises:
            DetectorConfigError: one is missing.
        """
        if not self.data.startswith(HUB):
            with usable(f"data={shown(self.data)}"):
                data = Path(self.data).expanduser()
                is_folder, is_there = data.is_dir(), data.exists()
            if not is_folder:
                what = "is not a folder" if is_there else "there is no such folder"
                raise DetectorConfigError(f"data={self.data}: {what}; one with roadwork and no_roadwork, or hf:DATASET")
        if self.model.startswith(("/", ".", "~")):
            with usable(f"model={shown(self.model)}"):
                is_there = Path(self.model).expanduser().exists()
            if not is_there:
                raise DetectorConfigError(f"model={self.model}: there is no such folder or file")
        if self.teacher is not None:
            with about(f"teacher={self.teacher}"):
                named_model(self.teacher)
        for name in () if resumed else self.unlabelled:
            with usable(f"unlabelled={shown(name)}"):
                folder = Path(name).expanduser()
                is_folder = folder.is_dir()
            if not is_folder:
                raise DetectorConfigError(f"unlabelled={name}: there is no such folder")
            if not photos_below(folder):
                raise DetectorConfigError(f"unlabelled={name}: holds no photo; {', '.join(SUFFIXES)} count")

    def to_yaml(self) -> str:
        """Return it as YAML, in the order of the fields."""
        return str(yaml.safe_dump(self.model_dump(), sort_keys=False))

    def write(self, run: Path) -> None:
        """Save it in the run's folder."""
        write_safely(run / CONFIG_FILE, self.to_yaml().encode())

    @field_validator("labels", mode="before")
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        return {str(key): kind for key, kind in value.items()} if isinstance(value, dict) else value

    @classmethod
    def make(cls, values: dict[str, Any]) -> Self:
        """Check values.

        Raises:
            DetectorConfigError: a wrong one; the message names each, with what is allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise DetectorConfigError(faults(error)) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a YAML file of such values, as `write` makes.

        Raises:
            DetectorConfigError: it can't be read, or a value is wrong.
        """
        return cls.make(read_yaml(path))
