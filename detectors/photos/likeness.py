"""Near-identical photos: what is cut from one scene must not be on both sides of a split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 24  # pixels of a thumbnail
ALIKE = 0.88  # correlation of two thumbnails; copies at another size or JPEG quality are above .99
BLOCK = 1024  # rows compared at a time, so that memory stays small with many photos


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """Return an RGB picture in little, shape (SIDE, SIDE, 3)."""
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0), dtype=np.uint8)


def groups(thumbnails: Sequence[NDArray[np.uint8]], alike: float = ALIKE) -> NDArray[np.int64]:
    """Number the groups of near-identical photos: thumbnails, mirrored or not, that correlate by more than `alike`.

    Returns:
        The number of each photo's group, which is that of its first member.
    """
    tiny = np.stack(thumbnails).astype(np.float32)
    plain, mirrored = _normal(tiny), _normal(tiny[:, :, ::-1])
    first = np.arange(len(tiny))

    def root(number: int) -> int:
        while first[number] != number:
            number = int(first[number])
        return number

    for start in range(0, len(tiny), BLOCK):
        rows = plain[start : start + BLOCK]
        likeness = np.maximum(rows @ plain.T, rows @ mirrored.T)
        for one, other in zip(*np.nonzero(likeness > alike), strict=True):
            a, b = sorted((root(start + int(one)), root(int(other))))
            first[b] = a
    return np.array([root(number) for number in range(len(tiny))], dtype=np.int64)


def _normal(values: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), dtype=np.float32)
