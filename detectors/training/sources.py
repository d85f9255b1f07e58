"""Where the photos of a training come from: a folder, or a Hugging Face data set that becomes one."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectors.errors import DetectorConfigError, ModelError
from detectors.storing import write_safely
from detectors.training.config import TrainConfig
from detectors.training.folder import CLASSES, PARTS, DataSet, Photo, read_data_set
from detectors.training.screen import Screen

HUB = "hf:"
QUICK = 16  # photos of each class and part, to prove the set-up with
DONE = "complete"  # written last into a folder made from a data set
SPLITS = {"train": "train", "validation": "val", "val": "val", "valid": "val", "test": "test"}


def read(config: TrainConfig, scratch: Path, screen: Screen, workers: int) -> DataSet:
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
        folder = fetch(config.data.removeprefix(HUB), scratch, screen)
    with screen.bar("reading photos", 0) as bar:
        data = read_data_set(
            folder, config.val_share, config.test_share, config.seed, lambda done, of: bar(done, f"of {of}"), workers
        )
    for line in data.skipped:
        screen.warn(f"left out: {line}")
    if config.quick:
        data = DataSet(_few(data.train), _few(data.val), _few(data.test), data.skipped)
    counts = data.counts()
    for name in PARTS:
        screen.say(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in counts[name].items()))
    return data


def sum_of(data: DataSet) -> str:
    """Return the sum over all photos and the parts they are in."""
    names = [(name, photo.digest, photo.label) for name in PARTS for photo in getattr(data, name)]
    return hashlib.sha256(repr(names).encode()).hexdigest()


def _few(photos: list[Photo]) -> list[Photo]:
    return [photo for label in range(len(CLASSES)) for photo in [p for p in photos if p.label == label][:QUICK]]


def fetch(name: str, scratch: Path, screen: Screen) -> Path:
    """Write a data set's photos into folders, once; the bytes stay as they are.

    Args:
        name: on the hub, or a folder; it needs a column of images, and a label with the classes' names.
        scratch: holds a folder for each data set.
        screen: is told.

    Raises:
        DetectorConfigError: it has no such columns or classes.
        ModelError: it can't be fetched.
    """
    from datasets import Image, load_dataset

    folder = scratch / name.strip("/").replace("/", "--")
    if (folder / DONE).is_file():
        return folder
    screen.say(f"fetching {name}")
    try:
        parts = load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:  # the tree of `datasets` hangs from these
        raise ModelError(f"the data set {name!r} can't be fetched: {str(error).splitlines()[0]}") from error
    unknown = [part for part in parts if part not in SPLITS]
    if "train" not in parts or unknown:
        raise DetectorConfigError(f"--data={HUB}{name}: its parts are {list(parts)}; known are {list(SPLITS)}")
    several = len(parts) > 1
    for part, rows in parts.items():
        column, labels = _columns(name, rows.features)
        target = folder / SPLITS[part] if several else folder
        _write(rows.cast_column(column, Image(decode=False)), column, labels, target)
    (folder / DONE).touch()
    return folder


def _columns(name: str, features: Any) -> tuple[str, list[str]]:
    """Return the column of pictures, and the class each label stands for."""
    from datasets import ClassLabel, Image

    pictures = [key for key, kind in features.items() if isinstance(kind, Image)]
    label = features.get("label")
    names = list(label.names) if isinstance(label, ClassLabel) else []
    plain = [text.lower().replace(" ", "_").replace("-", "_") for text in names]
    known = {"roadwork": "roadwork", "no_roadwork": "no_roadwork", "none": "no_roadwork", "noroadwork": "no_roadwork"}
    if len(pictures) != 1 or {known.get(text) for text in plain} != set(CLASSES):
        raise DetectorConfigError(
            f"--data={HUB}{name}: a column of images and a `label` with the classes {CLASSES} are needed; "
            f"it has the columns {list(features)} and the classes {names}"
        )
    return pictures[0], [known[text] for text in plain]


def _write(rows: Iterable[dict[str, Any]], column: str, labels: list[str], folder: Path) -> None:
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        picture = row[column]
        data = picture["bytes"] or Path(picture["path"]).read_bytes()
        suffix = Path(picture["path"] or "").suffix.lower() or ".jpg"
        write_safely(folder / labels[row["label"]] / f"{number:06}{suffix}", data)
