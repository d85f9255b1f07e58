"""Labelled photos to learn from, split once and for all by a seed.

Either `DIR/roadwork` and `DIR/no_roadwork`, or the same two in `DIR/train` and optionally `DIR/val` and `DIR/test`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from detectors.errors import DetectorConfigError
from detectors.photos.labelled import CLASSES, Photo, Tell, read_photos
from detectors.photos.likeness import groups

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class DataSet:
    """Photos to learn from, to choose by, and to judge by.

    `skipped` names what could not be read, `alike` what was left out because a part kept back has nearly the same.
    """

    train: list[Photo]
    val: list[Photo]
    test: list[Photo]
    skipped: list[str]
    alike: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many photos of each class each part has."""
        parts: dict[str, list[Photo]] = {name: getattr(self, name) for name in PARTS}
        return {
            name: {kind: sum(photo.label == label for photo in photos) for label, kind in enumerate(CLASSES)}
            for name, photos in parts.items()
        }


def read_data_set(
    folder: Path, val_share: float, test_share: float, seed: int, tell: Tell = lambda _done, _of: None, workers: int = 2
) -> DataSet:
    """Read `train`, `val` and `test`; those that are missing are split off the rest, stratified, by the seed.

    Raises:
        DetectorConfigError: no such folder, an empty class, or too few photos to split.
    """
    if not folder.is_dir():
        raise DetectorConfigError(f"{folder} is not a folder")
    if not (folder / "train").is_dir():
        found = read_photos(folder, tell, workers)
        shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
        parts = split(found.photos, shares, seed)
        return DataSet(parts["train"], parts["val"], parts["test"], found.skipped)
    given = {name: read_photos(folder / name, tell, workers) for name in PARTS if (folder / name).is_dir()}
    shares = {"val": val_share, "test": test_share}
    missing = {name: shares[name] for name in PARTS[1:] if name not in given}
    parts = {name: found.photos for name, found in given.items()}
    if missing:
        parts |= split(parts["train"], {"train": 1 - sum(missing.values())} | missing, seed)
    skipped = [f"{name}/{line}" for name, found in given.items() for line in found.skipped]
    parts, alike = _apart({name: parts.get(name, []) for name in PARTS})
    return DataSet(parts["train"], parts["val"], parts["test"], skipped, alike)


def _apart(parts: dict[str, list[Photo]]) -> tuple[dict[str, list[Photo]], list[str]]:
    """Leave out of `train` what is alike to `val` or `test`, and of `val` what is alike to `test`; name it.

    Raises:
        DetectorConfigError: nothing of a class is left in a part.
    """
    backwards = [(name, photo) for name in reversed(PARTS) for photo in parts[name]]
    kept: dict[str, list[Photo]] = {name: [] for name in PARTS}
    alike: list[str] = []
    holds: dict[int, str] = {}  # the part that a group belongs to
    for group, (name, photo) in zip(groups([photo.thumbnail for _, photo in backwards]), backwards, strict=True):
        part = holds.setdefault(int(group), name)
        if part == name:
            kept[name].append(photo)
        else:
            alike.append(f"{name}/{photo.name}: alike to a photo in {part}")
    for name, label in product(PARTS, range(len(CLASSES))):
        if parts[name] and not any(photo.label == label for photo in kept[name]):
            raise DetectorConfigError(
                f"every photo of the class {CLASSES[label]!r} in {name} is alike to one in a part kept back: {alike[0]}"
            )
    return kept, alike


def split(photos: Sequence[Photo], shares: dict[str, float], seed: int) -> dict[str, list[Photo]]:
    """Split photos into parts of these shares in each class; near-identical ones stay together.

    The same photos and seed give the same parts, whatever the files are called and wherever they lie.

    Raises:
        DetectorConfigError: a part would be left without a photo of a class.
    """
    labels = np.array([photo.label for photo in photos])
    group = groups([photo.thumbnail for photo in photos])
    wanted = {name: share for name, share in shares.items() if share > 0}
    parts: dict[str, list[Photo]] = {name: [] for name in shares}
    order = np.random.default_rng(seed).permutation(np.unique(group))
    totals = np.bincount(labels, minlength=len(CLASSES))
    have = {name: np.zeros_like(totals) for name in wanted}
    # Large groups first: the small ones then even the shares out.
    for number in sorted(order.tolist(), key=lambda number: -int((group == number).sum())):
        members = np.flatnonzero(group == number)
        lack = {
            name: sum(wanted[name] * totals[label] - have[name][label] for label in labels[members]) for name in wanted
        }
        part = max(lack, key=lambda name: lack[name])
        have[part] += np.bincount(labels[members], minlength=len(CLASSES))
        parts[part] += [photos[int(index)] for index in members]
    for name in wanted:
        for label, kind in enumerate(CLASSES):
            if not have[name][label]:
                count = int(totals[label])
                raise DetectorConfigError(
                    f"the {count} photo{'s' * (count != 1)} of the class {kind!r} are too few to leave one for {name!r}"
                )
    return {name: sorted(members, key=lambda photo: photo.digest) for name, members in parts.items()}
