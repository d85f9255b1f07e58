"""The mix of eras: how validators send photos now, by what a recorder has kept, and an era for each of one's own.

A threshold belongs to photos as they are sent. A validator's photo tells its era by its size and its black bars.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.errors import DetectorConfigError, ImageError
from detectors.photos.image import decode, size_of
from detectors.photos.labelled import SUFFIXES, Photo
from detectors.photos.transforms import ERAS, SIDE, Era

EDGE = 2  # pixels at either end that bars are looked for in; those of a 4:3 photo are 28 wide
BLACK = 12.0  # of 255, on average: a JPEG's black

Mix = Mapping[Era, float]  # shares, which add up to 1


def era_of(data: bytes) -> Era:
    """Return the era of a photo as it was received: letterboxed, cut to the same square, or of another size.

    Only the square is decoded: a recorder keeps thousands.

    Raises:
        ImageError: it is no photo.
    """
    if size_of(data) != (SIDE, SIDE):
        return "native"
    pixels = np.asarray(decode(data).convert("L"), dtype=np.float64)
    has_bars = any(max(side[:EDGE].mean(), side[-EDGE:].mean()) < BLACK for side in (pixels, pixels.T))
    return "letterbox" if has_bars else "augmented"


def mix_of(eras: Iterable[Era]) -> Mix:
    """Return the share of each era that occurs; at least one has to."""
    counts = Counter(eras)
    return {era: counts[era] / counts.total() for era in ERAS if counts[era]}


def eras_in(folder: Path) -> list[Era]:
    """Return the era of each photo in a recorder's folder, in the order of their names."""
    eras: list[Era] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        # One that can't be decoded was sent by who knows whom, or the recorder has removed it meanwhile.
        with suppress(ImageError, OSError):
            eras += [era_of(path.read_bytes())] if path.suffix in SUFFIXES else []
    return eras


def drawn(photos: Sequence[Photo], mix: Mix, seed: int) -> list[Era]:
    """Return an era for each photo, in the proportions of the mix; it follows from seed and the photo's content."""
    names = list(mix)
    bounds = np.cumsum(list(mix.values()))[:-1]
    draws = [np.random.default_rng((seed, int(photo.digest[:15], 16), 1)).random() for photo in photos]
    return [names[int(np.searchsorted(bounds, draw, side="right"))] for draw in draws]


def subset(labels: NDArray[np.bool_], eras: NDArray[np.str_], mix: Mix, seed: int) -> NDArray[np.int64]:
    """Return the numbers of as many photos as can be had with the eras of each class in the proportions of the mix.

    Raises:
        DetectorConfigError: an era of the mix is missing in a class.
    """
    random = np.random.default_rng(seed)
    rows: list[NDArray[np.int64]] = []
    for flag, kind in ((False, "no_roadwork"), (True, "roadwork")):
        there = {era: np.flatnonzero((labels == flag) & (eras == era)) for era in mix}
        if lacking := [era for era, numbers in there.items() if not len(numbers)]:
            known = ", ".join(sorted(set(eras[labels == flag].tolist()))) or "none"
            raise DetectorConfigError(f"no photo of {kind!r} was sent as {lacking[0]}; those there are: {known}")
        whole = min(len(numbers) / mix[era] for era, numbers in there.items())
        rows += [random.choice(one, max(1, int(whole * mix[era] + 1e-9)), replace=False) for era, one in there.items()]
    return np.sort(np.concatenate(rows))
