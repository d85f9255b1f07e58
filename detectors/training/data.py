"""Data sets of Hugging Face as folders of photos: fetched once, at one commit, the bytes as they are."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectors.console import Screen
from detectors.errors import DetectorConfigError, ModelError
from detectors.files import write_safely
from detectors.photos.labelled import CLASSES, Photo
from detectors.training.config import HUB, TrainConfig
from detectors.training.dataset import PARTS, DataSet, read_data_set

COMPLETE_FILE = "complete"  # written last into a folder made from a data set: what was left out, in words
SPLITS = {"train": "train", "validation": "val", "val": "val", "valid": "val", "test": "test"}
CLASS_NAMES = {"roadwork": "roadwork", "no_roadwork": "no_roadwork", "none": "no_roadwork", "noroadwork": "no_roadwork"}
EXAMPLE = "--set 'labels={0: no_roadwork, 1: roadwork}'"

QUICK_READ = 130  # photos of each class and folder that a quick run looks at: of 100,000 that alone would take minutes
QUICK_PHOTOS = {"train": 90, "val": 20, "test": 40}  # of each class, that it uses
LISTED_DUPLICATES = 10  # photos alike to others, of which there may be thousands


def pinned(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the commit that its data set has now; offline, or of a folder, as it is."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    name = config.data.removeprefix(HUB)
    if not config.data.startswith(HUB) or _local(name) or "@" in name:
        return config
    try:
        commit = HfApi().dataset_info(name).sha
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError):  # `fetch` says what is wrong, if it can't go on
        return config
    return config.model_copy(update={"data": f"{config.data}@{commit}"})


def fetch(name: str, kinds: Mapping[str, str] | None, scratch: Path, screen: Screen) -> Path:
    """Write a data set's photos into folders, once.

    Args:
        name: on the hub, with `@COMMIT` if need be, or a folder; it needs a column of images, and a `label`.
        kinds: which class each label is; None: the labels are called as our classes are.
        scratch: holds a folder for each data set.
        screen: is told.

    Raises:
        DetectorConfigError: it has no such columns or classes.
        ModelError: it can't be fetched.
    """
    from datasets import Image, load_dataset

    words = repr(sorted(kinds.items())) if kinds is not None else ""
    plain = re.sub(r"[^A-Za-z0-9._@-]+", "--", name.strip("/"))
    folder = scratch / (plain + f"-{hashlib.sha256(words.encode()).hexdigest()[:8]}" * bool(words))
    if not (folder / COMPLETE_FILE).is_file():
        screen.say(f"fetching {name}")
        source, commit = parted(name)
        try:
            parts = load_dataset(source, revision=commit)
        except (OSError, ValueError, RuntimeError) as error:  # the tree of `datasets` hangs from these
            raise ModelError(f"the data set {name!r} can't be fetched: {str(error).splitlines()[0]}") from error
        unknown = [part for part in parts if part not in SPLITS]
        if "train" not in parts or unknown:
            raise DetectorConfigError(f"--data={HUB}{name}: its parts are {list(parts)}; known are {list(SPLITS)}")
        without: Counter[str] = Counter()
        for part, rows in parts.items():
            column, known = _columns(name, rows.features, kinds)
            target = folder / SPLITS[part] if len(parts) > 1 else folder
            without += _write(rows.cast_column(column, Image(decode=False)), column, known, target)
        labels = ", ".join(f"{label}: {count}" for label, count in without.most_common())
        told = f"{without.total()} photos whose label is neither class ({labels})" if without else ""
        write_safely(folder / COMPLETE_FILE, told.encode())
    left_out = (folder / COMPLETE_FILE).read_text(encoding="utf-8")
    if left_out:
        screen.warn(f"left out: {left_out}")
    return folder


def _local(name: str) -> bool:
    return Path(name).expanduser().exists() or name.startswith(("/", "."))


def parted(name: str) -> tuple[str, str | None]:
    """Return the repository or folder, and the commit if there is one."""
    if _local(name) or "@" not in name:
        return name, None
    source, _, commit = name.rpartition("@")
    return source, commit


def _columns(name: str, features: Any, kinds: Mapping[str, str] | None) -> tuple[str, dict[str, str]]:
    """Return the column of pictures, and the class that each label's value stands for."""
    from datasets import ClassLabel, Image

    pictures = [key for key, kind in features.items() if isinstance(kind, Image)]
    label = features.get("label")
    names = list(label.names) if isinstance(label, ClassLabel) else None
    fault = f"--data={HUB}{name}: a column of images and a `label` with the classes {CLASSES} are needed; "
    if len(pictures) != 1 or label is None:
        raise DetectorConfigError(f"{fault}it has the columns {list(features)}")
    if names is None:
        if kinds is None and label.dtype != "string":
            raise DetectorConfigError(
                f"{fault}its labels are of the type {label.dtype}: say which is which by {EXAMPLE}"
            )
        return pictures[0], CLASS_NAMES | {_plain(text): kind for text, kind in (kinds or {}).items()}
    called = {_plain(text): kind for text, kind in (kinds or CLASS_NAMES).items()}  # a name, or a number
    known = {str(index): called.get(_plain(text), called.get(str(index), "")) for index, text in enumerate(names)}
    named = {index: kind for index, kind in known.items() if kind}
    # Labels that the operator does not name are left out; that the data set has others besides is a mistake.
    if set(named.values()) != set(CLASSES) or (kinds is None and len(named) < len(names)):
        raise DetectorConfigError(f"{fault}it has the classes {names}: say which is which by {EXAMPLE}")
    return pictures[0], named


def _plain(text: str) -> str:
    return text.lower().replace(" ", "_").replace("-", "_")


def _write(rows: Iterable[dict[str, Any]], column: str, known: Mapping[str, str], folder: Path) -> Counter[str]:
    """Write the photos of both classes; return how many have another label, or none."""
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    without: Counter[str] = Counter()
    for number, row in enumerate(rows):
        label = row["label"]
        name = _plain(str(label))
        if name not in known:
            without[str(label)] += 1
            continue
        picture = row[column]
        data = picture["bytes"] or Path(picture["path"]).read_bytes()
        suffix = Path(picture["path"] or "").suffix.lower() or ".jpg"
        write_safely(folder / known[name] / f"{number:06}{suffix}", data)
    return without


def open_dataset(config: TrainConfig, scratch: Path, screen: Screen, workers: int) -> DataSet:
    """Read the photos of a training, split them, and say what was left out.

    Args:
        config: names the data.
        scratch: where a Hugging Face data set's photos are put.
        screen: is told.
        workers: threads that decode.

    Raises:
        DetectorConfigError: there are none, or too few, or of one class only.
        ModelError: the data set can't be fetched.
    """
    folder = Path(config.data).expanduser()
    if config.data.startswith(HUB):
        folder = fetch(config.data.removeprefix(HUB), config.labels, scratch, screen)
    with screen.bar("reading photos") as bar:
        data = read_data_set(
            folder, config.val_share, config.test_share, config.seed, lambda done, of: bar(done, total=of), workers,
            QUICK_READ if config.quick else None,
        )  # fmt: skip
    for line in data.skipped:
        screen.warn(f"left out: {line}")
    for line in data.alike[:LISTED_DUPLICATES]:
        screen.warn(f"left out: {line}")
    if data.alike:
        screen.warn(f"{len(data.alike)} photos in all were left out because a part kept back has nearly the same")
    if config.quick:
        data = replace(data, train=_few(data, "train"), val=_few(data, "val"), test=_few(data, "test"))
    counts = data.counts()
    for name in PARTS:
        screen.say(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in counts[name].items()))
    return data


def fingerprint(data: DataSet) -> str:
    """Return the sum over all photos and the parts they are in."""
    names = [(name, photo.digest, photo.label) for name in PARTS for photo in getattr(data, name)]
    return hashlib.sha256(repr(names).encode()).hexdigest()


def _few(data: DataSet, part: str) -> list[Photo]:
    photos: list[Photo] = getattr(data, part)
    kinds = ([photo for photo in photos if photo.label == label] for label in range(len(CLASSES)))
    return [photo for kind in kinds for photo in kind[: QUICK_PHOTOS[part]]]
