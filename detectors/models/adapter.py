"""The merge of a LoRA adapter of PEFT into its base model: two folders come in, one of a whole model goes out.

In float32 by numpy, so that what needs no torch to be exported needs none with an adapter either. Hu et al. 2021,
arXiv 2106.09685; `rslora` is Kalajdzievski 2023, arXiv 2312.03732.
"""

import json
import logging
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from detectors.errors import ModelError, ModelFileError
from detectors.models.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_KEY,
    Array,
    Weights,
    inspect,
    network_name,
)
from detectors.models.documents import read_json, shown, some, validated
from detectors.models.hf_config import CONFIG_FILE, ModelConfig, Positive, processor_file

log = logging.getLogger(__name__)

LORA = "LORA"
WAY_OUT = "peft merges it: PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(FOLDER)"
# The other keys may hold anything that is false: a kind of adapter that comes later is refused, not half read.
HARMLESS = {
    "exclude_modules", "target_modules", "layers_to_transform", "layers_pattern",  # the names of the weights say it
    "bias", "task_type", "peft_version", "inference_mode", "lora_dropout", "ensure_weight_tying",
    "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "runtime_config",  # only with other keys
    "fan_in_fan_out",  # of GPT's Conv1D, which no classifier here has; peft leaves it out where the layer is another
}  # fmt: skip
UNCHANGED = ("gaussian", "eva", "orthogonal")  # the others begin with another base than the published one
LABEL_KEYS = ("id2label", "label2id", "num_labels", "label_names", "num_classes")
CLASSIFIER = "ForImageClassification"  # in the name of its class
TIMM_PREFIX = "timm_model."  # transformers' TimmWrapper has it in its network and not in its files


def _compilable(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"a regular expression for the names of layers is allowed: {error}") from error
    return pattern


Number = Annotated[float, Field(allow_inf_nan=False)]
Pattern = Annotated[str, AfterValidator(_compilable)]
Stored = NDArray[Any]
Value = TypeVar("Value")


class AdapterConfig(BaseModel):
    """What an `adapter_config.json` says, as peft reads it."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    peft_type: str
    base_model_name_or_path: str | None = None
    revision: str | None = None  # of the base
    auto_mapping: dict[str, Any] | None = None
    r: Positive = 8
    lora_alpha: Number = 8
    use_rslora: bool = False
    rank_pattern: dict[Pattern, Positive] | None = None
    alpha_pattern: dict[Pattern, Number] | None = None
    modules_to_save: list[str] | None = None
    init_lora_weights: bool | str | None = True

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the `adapter_config.json` of `folder`.

        Raises:
            ModelError: it can't be read.
            ModelFileError: a value is not what its key allows, or of an adapter that is not merged here.
        """
        path = folder / ADAPTER_CONFIG
        config = validated(cls, read_json(path), path)
        if config.peft_type != LORA:
            raise ModelFileError(f"{path}: peft_type={shown(config.peft_type)}: {LORA} is allowed; {WAY_OUT}")
        init = config.init_lora_weights
        others = {key: value for key, value in (config.model_extra or {}).items() if value and key not in HARMLESS}
        if isinstance(init, str) and init.lower() not in UNCHANGED:
            others["init_lora_weights"] = init
        for key, value in others.items():
            raise ModelFileError(f"{path}: {key}={shown(value)}: no LoRA that is merged here; {WAY_OUT}")
        if not config.base_model_name_or_path:
            raise ModelFileError(f"{path}: base_model_name_or_path: the base model's repository or folder is needed")
        return config

    @property
    def base(self) -> str:
        """The base model's repository or folder."""
        return str(self.base_model_name_or_path)

    def rank(self, module: str) -> int:
        """Return the rank of a layer."""
        return _matching(self.rank_pattern or {}, module, self.r)

    def scale(self, module: str) -> float:
        """Return what a layer's B·A is multiplied with."""
        rank, alpha = self.rank(module), _matching(self.alpha_pattern or {}, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def saves(self, name: str) -> bool:
        """Return whether a weight is of a module that was trained as a whole, such as a head."""
        return any(f".{module}." in f".{name}" for module in self.modules_to_save or ())


def _matching(patterns: Mapping[str, Value], module: str, default: Value) -> Value:
    """Return what the first pattern says that is the end of a layer's name, as peft 0.21 looks for it."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def merge(adapter: Path, base: Path, folder: Path) -> None:
    """Write the model of an adapter and its base into a new folder.

    Args:
        adapter: a folder with `adapter_config.json` and `adapter_model.safetensors`.
        base: of the model that it was trained on.
        folder: gets `config.json`, `preprocessor_config.json` and `model.safetensors`.

    Raises:
        ModelError: a file can't be read, or the two don't fit.
    """
    from safetensors.numpy import save_file

    config = AdapterConfig.read(adapter)
    if not (adapter / ADAPTER_FILE).is_file():
        raise ModelError(f"{adapter} holds no {ADAPTER_FILE} (pickled weights are not opened); {WAY_OUT}")
    values = read_json(base / CONFIG_FILE)
    folder.mkdir()
    inspect(base)
    parts = _Parts.read(adapter / ADAPTER_FILE, is_timm="pretrained_cfg" in values)
    is_bare = not _classifiers(values)
    merged = parts.named(Weights(base), is_bare=is_bare)
    heads = _replace(merged, parts, config, is_bare=is_bare)
    _add(merged, parts, config)
    described = _with_labels(_with_class(values, adapter, config), adapter, heads)
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    for source in (adapter, base):
        if (processor := processor_file(source)).is_file():
            shutil.copyfile(processor, folder / processor.name)
            break
    save_file(merged, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod((folder / CONFIG_FILE).stat().st_mode)  # the library makes it its owner's alone


@dataclass(frozen=True)
class _Parts:
    """An adapter's weights by the base's names for them: A and B of each layer, and weights as a whole."""

    path: Path
    pairs: dict[str, dict[str, Array]] = field(default_factory=dict)
    whole: dict[str, Stored] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, is_timm: bool) -> Self:
        parts, weights = cls(path), Weights(path.parent, [path])
        for stored in weights:
            name = network_name(stored.removeprefix("base_model.model.")).removeprefix(TIMM_PREFIX if is_timm else "")
            if ".original_module." in name:
                continue  # what stood there before the training
            if found := re.fullmatch(r"(.+)\.lora_([AB])\.weight", name):
                parts.pairs.setdefault(found[1], {})[found[2]] = weights[stored]
            else:
                plain = re.sub(r"\.(?:modules_to_save|base_layer)(?=\.)", "", name)
                parts.whole[plain] = _plain(weights.stored(stored))
        return parts

    def named(self, base: Weights, *, is_bare: bool) -> dict[str, Stored]:
        """Return the base's weights by the names that the adapter has for them.

        A base that was published without a head has no `vit.` before its names, which the network with a head has.
        """
        names = [*(f"{module}.weight" for module in self.pairs), *self.whole]
        halves = [name.partition(".") for name in names if name not in base]
        prefix = next((f"{first}." for first, _, rest in halves if is_bare and rest in base), "")
        known = {name if name.startswith(prefix) else prefix + name: name for name in base}
        return {name: _plain(base.stored(stored)) for name, stored in known.items()}

    def misfit(self, what: str) -> ModelError:
        return ModelError(f"{self.path}: {what}: it is an adapter of another base model, or of another kind; {WAY_OUT}")


def _plain(value: Stored) -> Stored:
    """Return a weight in float32; positions and other whole numbers stay such."""
    return value if value.dtype.kind in "iub" else np.asarray(value, dtype=np.float32)


def _replace(merged: dict[str, Stored], parts: _Parts, config: AdapterConfig, *, is_bare: bool) -> set[int]:
    """Put the weights in that the adapter has as a whole; return how many outputs a head of another size may have."""
    strangers = [name for name in parts.whole if name not in merged and not (is_bare and config.saves(name))]
    if strangers:
        raise parts.misfit(f"{some(strangers)} fits no weight of the base model")
    sizes = set[int]()
    for name, value in parts.whole.items():
        before = merged.get(name)
        if before is None or value.shape != before.shape:
            if before is not None and not (config.saves(name) and value.shape[1:] == before.shape[1:]):
                raise parts.misfit(f"{name} has the shape {value.shape}, the base model's {before.shape}")
            sizes |= set(value.shape[:1])
        merged[name] = value
    return sizes


def _add(merged: dict[str, Stored], parts: _Parts, config: AdapterConfig) -> None:
    """Add B·A to the weights of linear layers and convolutions, the latter's B having a kernel of one pixel."""
    if not parts.pairs and not parts.whole:
        raise parts.misfit("there are no weights in it")
    for module, pair in parts.pairs.items():
        name, rank = f"{module}.weight", config.rank(module)
        if name not in merged or pair.keys() != {"A", "B"}:
            raise parts.misfit(
                f"{module}.lora_{min(pair)}.weight fits no weight of the base model, or has no other half"
            )
        weight = merged[name]
        wanted = {"A": (rank, *weight.shape[1:]), "B": (*weight.shape[:1], rank, *[1] * (weight.ndim - 2))}
        for half, value in pair.items():
            if value.shape != wanted[half]:
                raise parts.misfit(f"{module}.lora_{half}.weight has the shape {value.shape}, {wanted[half]} is needed")
        product = pair["B"].reshape(-1, rank) @ pair["A"].reshape(rank, -1)
        merged[name] = weight + np.float32(config.scale(module)) * product.reshape(weight.shape)


def _classifiers(values: Mapping[str, Any]) -> list[str]:
    """Return the classes of classifiers that a config.json names."""
    names = values.get("architectures")
    return [str(name) for name in names if CLASSIFIER in str(name)] if isinstance(names, list) else []


def _own(adapter: Path) -> dict[str, Any]:
    return read_json(adapter / CONFIG_FILE) if (adapter / CONFIG_FILE).is_file() else {}


def _with_class(values: dict[str, Any], adapter: Path, config: AdapterConfig) -> dict[str, Any]:
    """Return config.json with the class that was trained, where the base was published without a head."""
    values = {key: value for key, value in values.items() if key != WEIGHTS_KEY}
    if _classifiers(values) or "pretrained_cfg" in values:
        return values
    trained = str((config.auto_mapping or {}).get("base_model_class"))
    bare = [str(name) for name in values.get("architectures") or ()]
    named = _classifiers(_own(adapter)) or [trained] * (CLASSIFIER in trained)
    made = [name.removesuffix("Model") + CLASSIFIER for name in bare if name.endswith("Model")]
    return values | {"architectures": named or made or bare}


def _with_labels(values: dict[str, Any], adapter: Path, sizes: set[int]) -> dict[str, Any]:
    """Return config.json with the labels of the adapter's, or with numbers for those of a head of another size."""
    own = {key: value for key, value in _own(adapter).items() if key in (*LABEL_KEYS, "problem_type")}
    if own.keys() & set(LABEL_KEYS):
        values = {key: value for key, value in values.items() if key not in LABEL_KEYS}
    values |= own
    labels = validated(ModelConfig, values, adapter / CONFIG_FILE).labels
    if not sizes or len(labels) in sizes:
        return values
    if own.keys() & set(LABEL_KEYS) or len(sizes) > 1:
        raise ModelError(
            f"{adapter}: the head has {' or '.join(map(str, sorted(sizes)))} outputs, and there are {len(labels)} "
            f"labels: a {CONFIG_FILE} with the id2label of its training is needed beside {ADAPTER_CONFIG}"
        )
    (size,) = sizes
    log.warning(
        "%s: the head has %d outputs, the base model %d labels: they are numbered; roadwork_class_index names one",
        adapter, size, len(labels),
    )  # fmt: skip
    values = {key: value for key, value in values.items() if key not in LABEL_KEYS}
    if "pretrained_cfg" in values:
        return values | {"num_classes": size}
    return values | {"id2label": {str(number): f"LABEL_{number}" for number in range(size)}}
