"""The checkpoint of a Hugging Face folder: which weight files transformers 4.57 would read, and what is in them."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.errors import ModelError, ModelFileError
from detectors.models.documents import LFS_POINTER, read_json, shown, some
from detectors.models.hf_config import CONFIG_FILE, PROCESSOR_FILE, PROCESSORS_FILE
from detectors.photos.view_head import HEAD_FILE

WEIGHTS_KEY = "transformers_weights"  # the key of config.json that names the file
SUFFIX = ".safetensors"
MAX_NAME_BYTES = 255  # bytes of a file's name, as Linux has it
WEIGHTS_FILE = "model.safetensors"
INDEX_SUFFIX = SUFFIX + ".index.json"
WEIGHTS_INDEX = "model" + INDEX_SUFFIX
ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"  # of PEFT
FIRST_FILES = (
    CONFIG_FILE,
    PROCESSOR_FILE,
    PROCESSORS_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX,
    ADAPTER_CONFIG,
    HEAD_FILE,
)  # what has to be there to know the rest; never a pickle

# Before each name: of DataParallel, of torch.compile, and of the class that transformers has for networks of timm.
WRAPPED = re.compile(r"^(?:module\.|_orig_mod\.|timm_model\.)+")
# transformers 5 has other names for some parts, and writes them where it is asked not to write the older ones
# (`save_original_format=False`), or where somebody else saves its weights.
_DINOV2 = {
    f"attention.{letter}_proj": f"attention.attention.{name}"
    for letter, name in zip("qkv", ("query", "key", "value"), strict=True)
} | {"attention.o_proj": "attention.output.dense"}
_MLP = {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
_BIAS = "relative_position_bias"
NEWER_NAMES: tuple[tuple[re.Pattern[str], str, dict[str, str]], ...] = (  # where they are, the place and parts by 4.57
    (
        re.compile(r"(vit|deit|ijepa|beit)\.layers\.(\d+)\."),
        r"\1.encoder.layer.\2.",
        _DINOV2 | _MLP | {_BIAS: f"attention.attention.{_BIAS}"},
    ),
    (re.compile(r"(dinov2\w*\.encoder\.layer\.\d+\.)"), r"\1", _DINOV2),
    (
        re.compile(r"(swin\.encoder\.layers\.\d+\.blocks\.\d+\.)"),
        r"\1",
        {new: old.replace("attention.attention", "attention.self") for new, old in _DINOV2.items()}
        | _MLP
        | {f"attention.{_BIAS}": "attention.self"},
    ),
)
FLOAT_TYPES = {"F64", "F32", "F16", "BF16"}
INTEGER_TYPES = {"I64", "I32", "I16", "BOOL"}  # of buffers: positions, batches seen
QUANTISED = (
    "a quantised checkpoint, which only its own library can read; export the one in 16 or 32 bits that it was made from"
)

Array = NDArray[np.float32]


def weight_names(folder: Path) -> list[str]:
    """Return the names of the files that the weights are read from, whether or not they are there yet.

    A file that config.json names (`transformers_weights`) wins, even where it is not there; then `model.safetensors`,
    then the index and its shards. Empty: there is none of these.

    Raises:
        ModelError: the index can't be read, or a name is that of no file here.
    """
    first = _named(folder) or next((name for name in (WEIGHTS_FILE, WEIGHTS_INDEX) if (folder / name).is_file()), None)
    if first is None:
        return []
    if not first.endswith(INDEX_SUFFIX) or not (folder / first).is_file():
        return [first]
    return [first, *_shards(folder / first)]


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that the weights are in.

    Raises:
        ModelError: there are none, one is missing, or the index can't be read.
    """
    names = weight_names(folder)
    if not names:
        others = [path.name for path in sorted(folder.glob("*.safetensors"))]
        beside = f"; nothing says that {some(others)} should be read" if others else ""
        raise ModelError(
            f"{folder} holds no {WEIGHTS_FILE} and no {WEIGHTS_INDEX} (pickled weights are not opened){beside}"
        )
    for name in names:
        if not (folder / name).is_file():
            why = f", which {names[0]} names" if name != names[0] else ""
            raise ModelError(f"{folder} holds no {name}{why}")
    return [folder / name for name in names if not name.endswith(INDEX_SUFFIX)]


def adapter_names(folder: Path) -> list[str]:
    """Return the names of an adapter's weight files, whether or not they are there yet; none: it is no adapter.

    Weights of a model beside them win: they are merged already, or another model.
    """
    return [ADAPTER_FILE] if (folder / ADAPTER_CONFIG).is_file() and not weight_names(folder) else []


def revision_files(folder: Path) -> list[Path]:
    """Return the files of a folder that make its revision: what describes the model, and its weights."""
    names = {*weight_names(folder), *adapter_names(folder), *(path.name for path in folder.glob("*.json"))}
    return sorted(folder / name for name in names if (folder / name).is_file())


@dataclass(frozen=True, slots=True)
class CheckpointContents:
    """What was found in a folder's weights: what stands before every name, and which files are passed over."""

    read: tuple[str, ...]
    passed_over: tuple[str, ...]
    wrappers: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What the operator should know, and is no fault."""
        found = []
        if self.passed_over:
            found.append(f"the weights are read from {some(self.read)}; passed over: {some(self.passed_over)}")
        if self.wrappers:
            found.append(f"{some(self.wrappers)} is taken off the names of the weights")
        return found


def inspect(folder: Path) -> CheckpointContents:
    """Look into the weights before a library does; only their headers are read.

    Raises:
        ModelError: a file is none of safetensors, is cut short, or holds what only a library of its own can read.
    """
    files = weight_files(folder)
    wrappers = set()
    for path in files:
        kinds = _kinds(path)
        wrappers |= {found.group() for name in kinds if (found := WRAPPED.match(name))}
        odd = sorted({kind for kind in kinds.values() if kind not in FLOAT_TYPES | INTEGER_TYPES})
        if odd:
            raise ModelError(f"{path} holds weights of {_in_words(odd)}: {QUANTISED}")
    if _config(folder).get("quantization_config") is not None:
        raise ModelError(f"{folder / CONFIG_FILE} has a quantization_config: {QUANTISED}")
    others = sorted(path.name for path in folder.glob("*.safetensors") if path not in files)
    return CheckpointContents(tuple(path.name for path in files), tuple(others), tuple(sorted(wrappers)))


def model_type(folder: Path) -> str:
    """Return the kind of network as config.json names it, for messages."""
    config = _config(folder)
    if "pretrained_cfg" in config:
        return f"timm {config.get('architecture')}"
    return str(config.get("model_type") or "network of no named model_type")


class Weights(Mapping[str, Array]):
    """The weights of a folder as float32, by their names without what a wrapper has put before them.

    Each is read when it is asked for, and then forgotten: in float32 a ViT-base has 346 MB of them, and a graph that is
    built holds as many.

    Raises:
        ModelError: they can't be read, or a number in them is not finite; or the one that is asked for is not there.
    """

    def __init__(self, folder: Path, files: Sequence[Path] | None = None) -> None:
        self._places: dict[str, tuple[Path, str]] = {}  # file, and the name there
        for path in weight_files(folder) if files is None else files:
            _refuse_pointer(path)
            with _opened(path) as file:
                self._places |= {network_name(name): (path, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        refuse_unfinished([name for name, value in self.items() if not np.isfinite(value).all()])

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self.stored(name), dtype=np.float32)

    def stored(self, name: str) -> NDArray[Any]:
        """Return a weight in the kind of number that the file has it in."""
        refuse_missing([name] if name not in self._places else [])
        path, stored = self._places[name]
        with _opened(path) as file:  # each time, so that the pages that were read are given back
            return np.asarray(file.get_tensor(stored))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import ml_dtypes  # noqa: F401 - teaches numpy bfloat16; onnx needs it too
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, SafetensorError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error


def network_name(name: str) -> str:
    """Return a weight's name as the network of transformers 4.57 has it."""
    name = WRAPPED.sub("", name)
    for place, older, parts in NEWER_NAMES:
        if found := place.match(name):
            rest = name[found.end() :]
            part = next((part for part in parts if rest.startswith(f"{part}.")), None)
            return found.expand(older) + (parts[part] + rest.removeprefix(part) if part else rest)
    return name


def stored_names(folder: Path) -> set[str]:
    """Return the names that the files have for the weights."""
    return {name for path in weight_files(folder) for name in _kinds(path)}


def refuse_unfinished(names: Sequence[str]) -> None:
    """Refuse weights by the names of those that hold NaN or infinity, if any do.

    Raises:
        ModelError: some do.
    """
    if names:
        raise ModelError(
            f"the weights hold NaN or infinity in {some(names)}, so every answer would be none: the training has "
            "diverged, or the file was written wrongly; take an earlier checkpoint"
        )


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse weights by the names of those that the network needs and they lack, if there are any.

    Raises:
        ModelError: there are some.
    """
    if names:
        raise ModelError(
            f"the weights hold no {some(names)}: random numbers would take their place and the answers would mean "
            "nothing; this is a network before its training for roadwork, or one of another architecture than "
            "config.json says"
        )


def _named(folder: Path) -> str | None:
    name = _config(folder).get(WEIGHTS_KEY)
    if name is None:
        return None
    if not isinstance(name, str) or not name.endswith((SUFFIX, INDEX_SUFFIX)) or not _is_within(name):
        raise ModelFileError(
            f"{folder / CONFIG_FILE}: {WEIGHTS_KEY}={shown(name)}: a file of this folder that ends in {SUFFIX} or "
            f"{INDEX_SUFFIX} is allowed"
        )
    return name


def _is_within(name: str) -> bool:
    """Return whether somebody else's file means one of its own folder, in a name that a disk can hold."""
    path = Path(name)
    is_own = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return is_own and name.isprintable() and len(os.fsencode(name)) <= MAX_NAME_BYTES


def _config(folder: Path) -> dict[str, object]:
    """Return what config.json says, as far as it can be read; whether it is right is for others to say."""
    try:
        return read_json(folder / CONFIG_FILE)
    except ModelError:
        return {}


def _shards(index: Path) -> list[str]:
    try:
        files = read_json(index)["weight_map"].values()
        names = sorted({str(name) for name in files})
    except (KeyError, AttributeError) as error:
        raise ModelFileError(
            f"{index}: weight_map: an object from the name of each tensor to that of its file is needed"
        ) from error
    wrong = [shown(name) for name in names if not _is_within(name)]
    if wrong or not names:
        raise ModelError(f"{index} names {some(wrong) if wrong else 'no files'}: files of its own folder are allowed")
    return names


def _kinds(path: Path) -> dict[str, str]:
    """Return the kind of number of each tensor."""
    from safetensors import SafetensorError, safe_open

    _refuse_pointer(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path} ({size} bytes) is no whole safetensors file: {error}; it was cut short or damaged on its way, so "
            "fetch it again"
        ) from error


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError(
                f"{path} is a git-LFS pointer in place of the weights: `git lfs pull` in its repository fetches them"
            )


def _in_words(kinds: Sequence[str]) -> str:
    names = {"F8": "8-bit floats", "F6": "6-bit floats", "F4": "4-bit floats", "I8": "8-bit integers", "U8": "bytes"}
    return ", ".join(f"{kind} ({names[kind[:2]]})" if kind[:2] in names else kind for kind in kinds)
