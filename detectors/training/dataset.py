"""The data set of a training: labelled photos, split once and for all by a seed.

Either `DIR/roadwork` and `DIR/no_roadwork`, or the same two in `DIR/train` and optionally `DIR/val` and `DIR/test`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from detectors.errors import DetectorConfigError
from detectors.photos.image import decode
from detectors.photos.labelled import CLASSES, Photo, Tell, groups, read_photos
from detectors.photos.transforms import (
    MIN_CROP_SHARE,
    SIDE,
    blurred,
    hidden,
    letterbox,
    noisy,
    recompressed,
    shrunk,
    tilted,
)
from detectors.photos.views import PooledViews
from detectors.preprocess import Preprocessing
from detectors.training import composed
from detectors.training.config import Augment

VIEWS_VERSION = 3  # goes up with every change of what a view looks like: cached features depend on it
UNCHANGED_VIEW = 0  # the number of the view that is the photo itself
OF_CLEAR_PHOTOS = {"zoom", "recolour", "works"}  # changes of photos without roadwork alone

PARTS = ("train", "val", "test")
Example = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Views:
    """Every view of every photo; two of the same seed show the same."""

    augment: Augment
    seed: int

    def view(self, photo: Photo, number: int) -> Image.Image:
        """Return a view of a photo, RGB; number 0 is the photo as it is.

        Raises:
            ImageError: the file has changed since it was read first.
        """
        picture = decode(photo.path.read_bytes())
        if number == UNCHANGED_VIEW:
            return picture
        return changed(picture, self.augment, self._random(photo, number), is_clear=is_clear(photo))

    def has_drawn_works(self, photo: Photo, number: int) -> bool:
        """Return whether works were drawn into this view, so that it shows roadwork where the photo does not."""
        return number != UNCHANGED_VIEW and "works" in _draw(
            self.augment, self._random(photo, number), is_clear=is_clear(photo)
        )

    def _random(self, photo: Photo, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(photo.digest[:15], 16), number))


def is_clear(photo: Photo) -> bool:
    """Return whether a photo is known to show no roadwork."""
    return photo.label == CLASSES.index("no_roadwork")


def _draw(augment: Augment, random: np.random.Generator, *, is_clear: bool) -> set[str]:
    """Draw which changes happen; those of photos without roadwork happen to these alone."""
    # One draw for each switch, always, so that a switch turned off leaves the others' draws as they are.
    drawn = dict(zip(type(augment).model_fields, random.random(len(type(augment).model_fields)), strict=True))
    happening = {name for name, value in drawn.items() if value < getattr(augment, name)}
    return happening if is_clear else happening - OF_CLEAR_PHOTOS


def changed(
    picture: Image.Image, augment: Augment, random: np.random.Generator, *, is_clear: bool = False
) -> Image.Image:
    """Draw the changes and make them, in the order in which they befall a photo: taken, squared, distorted, sent."""
    happening = _draw(augment, random, is_clear=is_clear)
    if "zoom" in happening:
        picture = composed.zoomed(picture, random)
    if "recolour" in happening:
        picture = composed.recoloured(picture, random)
    if "works" in happening:
        picture = composed.with_works(picture, random)
    if "shapes" in happening:
        picture = composed.with_shapes(picture, random)
    if "flip" in happening:
        picture = ImageOps.mirror(picture)
    if "upside_down" in happening:
        picture = ImageOps.flip(picture)
    if "rotate" in happening:
        picture = tilted(picture, random)
    if "crop" in happening:
        picture = _cropped(picture, random)
    if "light" in happening:
        for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = kind(picture).enhance(float(random.uniform(0.65, 1.4)))
    if "letterbox" in happening:
        picture = letterbox(picture)
    elif happening & {"shrink", "blocks", "noise", "blur"}:
        # Validators distort small pictures: at a camera's size, little of it would be left for the network to see.
        picture = ImageOps.contain(picture, (SIDE, SIDE))
    if "shrink" in happening:
        picture = shrunk(picture, random.uniform(1.0, 3.0))
    if "blocks" in happening:
        picture = hidden(picture, int(random.integers(8, 33)), random)
    if "noise" in happening:
        picture = noisy(picture, random.uniform(0.0002, 0.0025), random)
    if "blur" in happening:
        picture = blurred(picture, random.uniform(0.3, 1.5))
    if "jpeg" in happening:
        picture = recompressed(picture, int(random.integers(30, 96)))
    return picture


def _cropped(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    share, stretch = random.uniform(MIN_CROP_SHARE, 1.0), np.exp(random.uniform(-0.2, 0.2))
    width = max(1, int(min(1.0, np.sqrt(share) * stretch) * picture.width))
    height = max(1, int(min(1.0, np.sqrt(share) / stretch) * picture.height))
    left, top = int(random.integers(picture.width - width + 1)), int(random.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


@dataclass(frozen=True, slots=True)
class DataSet:
    """Photos to learn from, to choose by, and to judge by.

    `skipped` names what could not be read, `alike` what was left out because a part kept back has nearly the same.
    `targets` has, by digest, the probability of roadwork that each photo of `train` should get, where a teacher judged
    it; the other parts go by their labels.
    """

    train: list[Photo]
    val: list[Photo]
    test: list[Photo]
    skipped: list[str]
    alike: list[str] = field(default_factory=list)
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def wanted(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """What each photo of `train` should get: its label, or what a teacher made of it."""
        if not self.targets:
            return np.array([photo.label for photo in self.train], dtype=np.int64)
        return np.array([self.targets[photo.digest] for photo in self.train], dtype=np.float32)

    def wanted_of(self, views: Views, count: int) -> NDArray[np.int64] | NDArray[np.float32]:
        """Return what each of so many views of each photo of `train` should get, shape (photos, views)."""
        wanted: NDArray[Any] = np.repeat(self.wanted[:, None], count, axis=1)
        if not views.augment.works:
            return wanted
        drawn = [[views.has_drawn_works(photo, number) for number in range(count)] for photo in self.train]
        wanted[np.array(drawn, dtype=bool)] = 1
        return wanted

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many photos of each class each part has."""
        parts: dict[str, list[Photo]] = {name: getattr(self, name) for name in PARTS}
        return {
            name: {
                kind: len({photo.digest for photo in photos if photo.label == label})
                for label, kind in enumerate(CLASSES)
            }
            for name, photos in parts.items()
        }


def repeated(data: DataSet, times: Mapping[str, int]) -> DataSet:
    """Return the photos to learn from as often as the name of a subfolder says: few that matter among many.

    In an epoch each copy is another view.
    """
    if not times:
        return data
    counts = [max((times.get(part, 1) for part in Path(photo.name).parts[:-1]), default=1) for photo in data.train]
    return replace(data, train=[photo for photo, count in zip(data.train, counts, strict=True) for _ in range(count)])


def read_data_set(
    folder: Path, val_share: float, test_share: float, seed: int, tell: Tell = lambda _done, _of: None,
    workers: int = 2, most: int | None = None,
) -> DataSet:  # fmt: skip
    """Read `train`, `val` and `test`; those that are missing are split off the rest, stratified, by the seed.

    Raises:
        DetectorConfigError: no such folder, an empty class, or too few photos to split.
    """
    if not folder.is_dir():
        raise DetectorConfigError(f"{folder} is not a folder")
    if not (folder / "train").is_dir():
        found = read_photos(folder, tell, workers, most)
        shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
        parts = split(found.photos, shares, seed)
        return DataSet(parts["train"], parts["val"], parts["test"], found.skipped)
    given = {name: read_photos(folder / name, tell, workers, most) for name in PARTS if (folder / name).is_dir()}
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


def load_pixels(photo: Photo, view: int, views: Views, preprocessing: Preprocessing) -> Tensor:
    """Return a view of a photo as the network takes it when it serves, shape (3, height, width)."""
    return torch.from_numpy(preprocessing(views.view(photo, view))[0])


def load_cuts(photo: Photo, view: int, views: Views, preprocessing: Preprocessing, served: PooledViews) -> Tensor:
    """Return what a head on several views looks at in a view of a photo, shape (cuts, 3, height, width)."""
    arrays = served.arrays(views.view(photo, view), preprocessing, preprocessing.boxed)
    return torch.from_numpy(np.concatenate(list(arrays)))


class PixelExamples:
    """Photos; number `epoch · photos + index` is a new view in each epoch, but the plain one where `plain` is set.

    A photo should get its label, or what `wanted` has for it.
    """

    def __init__(
        self, photos: Sequence[Photo], views: Views, preprocessing: Preprocessing, *, plain: bool,
        wanted: NDArray[np.int64] | NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        self.photos, self._views, self._preprocessing, self._plain = photos, views, preprocessing, plain
        self._labels = np.array([photo.label for photo in photos], dtype=np.int64) if wanted is None else wanted

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> Example:
        epoch, index = divmod(number, len(self.photos))
        photo = self.photos[index]
        view = UNCHANGED_VIEW if self._plain else epoch + 1
        wanted = self._labels[index]
        if self._views.has_drawn_works(photo, view):
            wanted = np.ones_like(wanted)
        return {"inputs": load_pixels(photo, view, self._views, self._preprocessing), "labels": wanted.item()}


class FeatureExamples:
    """Cached features, shape (photos, views, width); the views of a photo take turns from epoch to epoch.

    `labels` has the shape (photos, views) or (photos, 1): of all views of a photo the same.
    """

    def __init__(self, features: NDArray[np.float32], labels: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._features, self._labels = torch.from_numpy(features), labels

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, number: int) -> Example:
        epoch, index = divmod(number, len(self))
        view = (epoch + index) % self._features.shape[1]
        wanted = self._labels[index, view % self._labels.shape[1]]
        return {"inputs": self._features[index, view], "labels": wanted.item()}


class EpochSampler:
    """Numbers of an epoch's examples, in an order that follows from seed and epoch alone."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self._seed, self.epoch)).permutation(self._size)
        return iter((self.epoch * self._size + order).tolist())


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Put examples into one batch."""
    return {
        "inputs": torch.stack([example["inputs"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples]),
    }
