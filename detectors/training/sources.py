"""Where the photos of a training come from: a folder, or a Hugging Face data set that becomes one."""

import hashlib
from dataclasses import replace
from pathlib import Path

from detectors.console import Screen
from detectors.photos.labelled import CLASSES, Photo
from detectors.training.config import HUB, TrainConfig
from detectors.training.data import fetch
from detectors.training.dataset import PARTS, DataSet, read_data_set

QUICK = 16  # photos of each class and part, to prove the set-up with
NAMED = 10  # photos alike to others, of which there may be thousands


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
        folder = fetch(config.data.removeprefix(HUB), config.labels, scratch, screen)
    with screen.bar("reading photos", 0) as bar:
        data = read_data_set(
            folder, config.val_share, config.test_share, config.seed, lambda done, of: bar(done, f"of {of}"), workers
        )
    for line in data.skipped:
        screen.warn(f"left out: {line}")
    for line in data.alike[:NAMED]:
        screen.warn(f"left out: {line}")
    if data.alike:
        screen.warn(f"{len(data.alike)} photos in all were left out because a part kept back has nearly the same")
    if config.quick:
        data = replace(data, train=_few(data.train), val=_few(data.val), test=_few(data.test))
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
