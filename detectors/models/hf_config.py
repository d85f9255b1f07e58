"""`preprocessor_config.json` of a Hugging Face model, as transformers 4.57 reads it.

The file names an image processor of transformers and overrides some of its defaults. There are three of each: the slow
one, by its bare name; `…Fast`, which works on tensors; and `…Pil`, the slow one of transformers 5, whose files have the
bare name. They differ in defaults, in what they take for a size, and in what they make of `null`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from detectors.errors import ModelFileError
from detectors.models.documents import read_json, shown, validated
from detectors.models.processors import (
    MODEL_TYPES,
    OWN,
    POOLFORMER,
    PROCESSORS,
    REFUSED,
    SLOW_ONLY,
    TIMM,
    Variant,
    defaults,
    processor_kind,
)

CONFIG_FILE = "config.json"
NOTICE_FILE = "NOTICE"  # of others' weights: their licence asks that it stays beside them
UNNAMED = 2  # classes of a file that names none
NEWER_VERSION = 5  # of transformers, whose processors by the bare names are others

Positive = Annotated[int, Field(ge=1)]

PROCESSOR_FILE = "preprocessor_config.json"
PROCESSORS_FILE = "processor_config.json"  # of a processor of several parts, as transformers 5 saves a SigLIP's
MAX_SIDE = 4096  # pixels a side; no network looks at more
UNSET = {"size", "crop_size", "crop_pct", "image_mean", "image_std"}  # where null means nothing to a slow processor
KEPT = {POOLFORMER: {"crop_pct"}}  # null crops nothing
SIZES = (  # the keys that transformers allows together
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Divisor = Annotated[float, Field(ge=1e-6, le=1e6)]


def _labels(value: object) -> object:
    """Return labels by the number of their output; a file has numbers as text, and may have any kind of label."""
    if value is None:
        return None
    allowed = 'an object from each output\'s number, "0" and up, to its label is allowed'
    if not isinstance(value, dict) or not value:
        raise ValueError(allowed)
    try:
        labels = {int(number): label for number, label in value.items()}
    except (TypeError, ValueError) as error:
        swapped = all(type(number) is int for number in value.values())
        raise ValueError(f"{allowed}{'; this is a label2id' if swapped else ''}") from error
    if sorted(labels) != list(range(len(value))):
        raise ValueError(f"{allowed}, and {len(value)} labels have the numbers 0 to {len(value) - 1}")
    if not all(isinstance(label, str | int | float) for label in labels.values()):
        raise ValueError(f"{allowed}; a label is text, a number, true or false")
    return {number: str(label) for number, label in sorted(labels.items())}


FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
CropMode = Literal["center", "squash", "border"]
Three = Annotated[list[Number], Field(min_length=3, max_length=3)]
TIMM_KEYS = {"architecture", "model_args", "label_names", "num_classes"}


class TimmConfig(BaseModel):
    """The `pretrained_cfg` of timm's config.json: how the pictures are prepared for a network of timm."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    input_size: Annotated[list[Side], Field(min_length=3, max_length=3)] = [3, 224, 224]
    interpolation: Interpolation = "bicubic"
    crop_pct: Divisor | None = None
    crop_mode: CropMode | None = None
    mean: Three | None = None
    std: Annotated[list[Divisor], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _has_colours(self) -> Self:
        if self.input_size[0] != 3:
            raise ValueError(f"input_size={shown(self.input_size)}: [3, height, width] is allowed")
        return self

    def processor_values(self) -> dict[str, Any]:
        """Return the same in the words of a `preprocessor_config.json`; timm takes null for "not set"."""
        values = {
            "size": self.input_size[1:], "resample": FILTERS[self.interpolation], "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode, "image_mean": self.mean, "image_std": self.std,
        }  # fmt: skip
        return {"image_processor_type": TIMM} | {key: value for key, value in values.items() if value is not None}


class ModelConfig(BaseModel):
    """The part of a `config.json` that every image classifier has."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, protected_namespaces=())

    architectures: list[str] | None = None
    model_type: str | None = None
    id2label: Annotated[dict[int, str] | None, BeforeValidator(_labels)] = None
    label2id: dict[str, Any] | None = None
    num_labels: Positive | None = None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    hidden_act: str | None = "gelu"
    image_processor_type: str | None = None
    auto_map: dict[str, Any] | None = None
    # Of timm, whose config.json has no model_type, or "timm_wrapper" where transformers has written it.
    pretrained_cfg: TimmConfig | None = None
    architecture: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None  # no address: timm would fetch from there
    model_args: dict[str, Any] | None = None
    label_names: list[str] | None = None
    num_classes: Positive | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the `config.json` of `folder`.

        Raises:
            ModelError: it can't be read.
            ModelFileError: a value is not what its key allows.
        """
        path = folder / CONFIG_FILE
        return validated(cls, read_json(path), path)

    @model_validator(mode="before")
    @classmethod
    def _without_timms_keys(cls, values: Any) -> Any:
        """Leave out what is timm's where the network is not: there those keys may hold anything."""
        if isinstance(values, Mapping) and values.get("pretrained_cfg") is None:
            return {key: value for key, value in values.items() if key not in TIMM_KEYS}
        return values

    @model_validator(mode="after")
    def _labels_agree(self) -> Self:
        if self.id2label is not None and self.num_labels not in (None, len(self.id2label)):
            raise ValueError(f"num_labels={self.num_labels}: id2label has {len(self.id2label)} labels")
        labels = list(self.labels.values())
        for label, number in (
            self.label2id or {}
        ).items():  # nothing reads it, but it may show labels the wrong way round
            if labels.count(label) == 1 and str(number) != str(labels.index(label)):
                raise ValueError(f"label2id.{label}={shown(number)}: id2label has it as {labels.index(label)}")
        return self

    @model_validator(mode="after")
    def _timm_agrees(self) -> Self:
        if self.pretrained_cfg is None:
            return self
        if self.architecture is None:
            raise ValueError("architecture=None: the name of a network of timm is needed beside pretrained_cfg")
        if self.num_classes is None and self.label_names is None:
            raise ValueError("num_classes=None: the number of the network's outputs is needed beside pretrained_cfg")
        if self.label_names is not None and self.num_classes not in (None, len(self.label_names)):
            raise ValueError(f"num_classes={self.num_classes}: label_names has {len(self.label_names)} labels")
        if not self.pretrained_cfg.model_dump(exclude_unset=True):  # timm takes what it knows of the architecture
            raise ValueError("pretrained_cfg={}: input_size, interpolation, crop_pct, mean and std are needed in it")
        return self

    @property
    def is_newer(self) -> bool:
        """Whether transformers 5 or later has written the file."""
        version = str((self.model_extra or {}).get("transformers_version")).partition(".")[0]
        return version.isdecimal() and int(version) >= NEWER_VERSION

    @property
    def labels(self) -> dict[int, str]:
        """The label of each output, in their order; without names, those that transformers makes up."""
        if self.pretrained_cfg is not None:
            names = self.label_names or [f"LABEL_{number}" for number in range(self.num_classes or 0)]
            return dict(enumerate(names))
        if self.id2label is not None:
            return self.id2label
        return {number: f"LABEL_{number}" for number in range(self.num_labels or UNNAMED)}


def processor_file(folder: Path) -> Path:
    """Return the file of `folder` that says how pictures are prepared, whether or not it is there."""
    names = (PROCESSOR_FILE, PROCESSORS_FILE)
    return next((folder / name for name in names if (folder / name).is_file()), folder / PROCESSOR_FILE)


def timm_config(folder: Path) -> TimmConfig | None:
    """Return the preprocessing that a network of timm was trained with; None: the network is not of timm.

    Raises:
        ModelFileError: a value of config.json is not what its key allows.
    """
    return ModelConfig.read(folder).pretrained_cfg if (folder / CONFIG_FILE).is_file() else None


def allowed(words: str) -> WrapValidator:
    """Say in one sentence what a key may hold, where its type has several forms."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError(words) from error

    return WrapValidator(check)


def _known_keys(size: Any) -> Any:
    if isinstance(size, dict) and set(size) not in SIZES:
        raise ValueError
    return size


def _three(values: float | list[float] | None) -> list[float] | None:
    return [values] * 3 if isinstance(values, float | int) else values


Size = Annotated[
    Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | dict[str, Side] | None,
    AfterValidator(_known_keys),
    allowed(
        f"a whole number from 1 to {MAX_SIDE} (pixels), [height, width], or an object of height and width, of "
        "shortest_edge, or of what else transformers calls a size, is allowed"
    ),
]
Mean = Annotated[
    Number | Annotated[list[Number], Field(min_length=3, max_length=3)] | None,
    AfterValidator(_three),
    allowed("a number, or three of them for red, green and blue, is allowed"),
]
Deviation = Annotated[
    Divisor | Annotated[list[Divisor], Field(min_length=3, max_length=3)] | None,
    AfterValidator(_three),
    allowed("a number from 0.000001 to 1000000, or three of them for red, green and blue, is allowed"),
]
Filter = Annotated[
    Annotated[int, Field(ge=0, le=5)] | None,
    allowed("0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or 5 (hamming) is allowed"),
]


class ProcessorConfig(BaseModel):
    """What a `preprocessor_config.json` says. Keys that no image classifier's processor reads may hold anything."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None  # its older name
    auto_map: dict[str, Any] | None = None
    do_resize: bool | None = None
    size: Size = None
    default_to_square: bool | None = None
    use_square_size: bool | None = None
    resample: Filter = None
    do_center_crop: bool | None = None
    crop_size: Size = None
    crop_pct: Divisor | None = None
    do_rescale: bool | None = None
    rescale_factor: Divisor | None = None
    rescale_offset: bool | None = None
    do_normalize: bool | None = None
    image_mean: Mean = None
    image_std: Deviation = None
    include_top: bool | None = None
    do_flip_channel_order: bool | None = None
    size_divisor: Side | None = None
    crop_mode: CropMode = "center"  # timm's, not of transformers
    do_pad: bool | None = None
    pad_size: Size = None
    letterbox: bool = False  # ours, not of transformers

    _path: Path = PrivateAttr(default=Path(PROCESSOR_FILE))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the `preprocessor_config.json` of `folder`, or what stands for it, and its `config.json`.

        The latter names the processor where the first does not, and the version of transformers that has saved both.

        Raises:
            ModelError: a file can't be read.
            ModelFileError: a value is not what its key allows.
        """
        path = processor_file(folder)
        if not path.is_file() and (timm := timm_config(folder)) is not None:
            return cls.of(timm.processor_values(), folder / CONFIG_FILE)
        values = read_json(path)
        nested = values.get("image_processor", values)  # where a processor of several parts was saved
        if not isinstance(nested, dict):
            raise ModelFileError(f"{path}: image_processor={shown(nested)}: an object of keys and values is allowed")
        return cls.of(nested, path)._named(folder)._versioned(folder)

    @classmethod
    def of(cls, values: Mapping[str, Any], path: Path = Path(PROCESSOR_FILE)) -> Self:
        """Take the values of such a file.

        Raises:
            ModelFileError: a value is not what its key allows.
        """
        config = validated(cls, values, path)
        config._path = path
        return config

    def _named(self, folder: Path) -> Self:
        """Return a configuration that names its processor, by the rules of transformers' AutoImageProcessor."""
        if self.image_processor_type is not None:
            return self
        own = "the processor is code of the model's own, which is not run"
        if "AutoImageProcessor" in (self.auto_map or {}):
            raise self.refusal("auto_map", self.auto_map, own)
        if self.feature_extractor_type is not None:
            return self
        model = ModelConfig.read(folder)
        if "AutoImageProcessor" in (model.auto_map or {}):
            raise self.refusal("auto_map", model.auto_map, own)
        name = model.image_processor_type or MODEL_TYPES.get(model.model_type or "")
        if name is None:
            raise self.refusal(
                "image_processor_type",
                None,
                f"one of {', '.join(PROCESSORS)} is needed, since the model_type {model.model_type!r} stands for none",
            )
        return self.model_copy(update={"image_processor_type": name})

    def _versioned(self, folder: Path) -> Self:
        """Return a configuration whose name means the same whichever transformers has saved the model."""
        name = self.image_processor_type or ""
        known = name in PROCESSORS.keys() - set(SLOW_ONLY) and (folder / CONFIG_FILE).is_file()
        if not known or not ModelConfig.read(folder).is_newer:
            return self
        return self.model_copy(update={"image_processor_type": f"{name}Pil"})

    def with_letterbox(self) -> Self:
        """Return the same with our letterbox in place of its resize and its crop."""
        return self.model_copy(update={"letterbox": True})

    def write(self, folder: Path) -> None:
        """Write the values into the `preprocessor_config.json` of `folder`."""
        text = self.model_dump_json(indent=2, exclude_unset=True)
        (folder / PROCESSOR_FILE).write_text(text + "\n", encoding="utf-8")

    @property
    def kind(self) -> tuple[str, Variant]:
        """The slow processor's name, and which of the three it is.

        Raises:
            ModelFileError: it is not known here.
        """
        older = self.image_processor_type is None and self.feature_extractor_type is not None
        key = "feature_extractor_type" if older else "image_processor_type"
        given = getattr(self, key)
        name = (given or "").replace("FeatureExtractor", "ImageProcessor")
        kind = processor_kind(name)
        if kind is None:
            known = ", ".join(name for name in PROCESSORS if name not in OWN)
            raise self.refusal(
                key, given, f"unknown image processor {name!r}; known: {known}, and their …Fast and …Pil"
            )
        if kind[0] in REFUSED:
            raise self.refusal(key, given, REFUSED[kind[0]])
        return kind

    def values(self) -> dict[str, Any]:
        """Return every key with its value, defaults of the named processor where the file has none.

        `null` means "not set" to a slow processor's sizes, means and deviations, and to every key of a Pil one; for
        everything else it is a value.
        """
        name, variant = self.kind
        unset = {"slow": UNSET - KEPT.get(name, set()), "fast": set(), "pil": type(self).model_fields.keys()}[variant]
        given = {key: getattr(self, key) for key in self.model_fields_set & type(self).model_fields.keys()}
        return defaults(name, variant) | {
            key: value for key, value in given.items() if value is not None or key not in unset
        }

    def refusal(self, key: str, value: object, why: str) -> ModelFileError:
        """Return the error for a value, given or by default, that the named processor can't be served with."""
        return ModelFileError(f"{self._path}: {key}={shown(value)}: {why}")
