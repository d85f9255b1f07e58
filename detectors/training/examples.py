"""What a network learns from, by number: the number alone says which photo it is, and in which view."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.photos.labelled import Photo
from detectors.preprocess import Preprocessing
from detectors.training.views import PLAIN, Views

Example = dict[str, Any]


def load_pixels(photo: Photo, view: int, views: Views, preprocessing: Preprocessing) -> Tensor:
    """Return a view of a photo as the network takes it when it serves, shape (3, height, width)."""
    return torch.from_numpy(preprocessing(views.view(photo, view))[0])


class PixelExamples:
    """Photos; number `epoch · photos + index` is a new view in each epoch, but the plain one where `plain` is set."""

    def __init__(self, photos: Sequence[Photo], views: Views, preprocessing: Preprocessing, *, plain: bool) -> None:
        self.photos, self._views, self._preprocessing, self._plain = photos, views, preprocessing, plain

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> Example:
        epoch, index = divmod(number, len(self.photos))
        photo = self.photos[index]
        view = PLAIN if self._plain else epoch + 1
        return {"inputs": load_pixels(photo, view, self._views, self._preprocessing), "labels": photo.label}


class FeatureExamples:
    """Cached features, shape (photos, views, width); the views of a photo take turns from epoch to epoch."""

    def __init__(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        self._features, self._labels = torch.from_numpy(features), labels

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, number: int) -> Example:
        epoch, index = divmod(number, len(self))
        view = (epoch + index) % self._features.shape[1]
        return {"inputs": self._features[index, view], "labels": int(self._labels[index])}


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
