"""What detectors say of labelled photos, and how long it takes them."""

import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector
from detectors.photos.changes import View, sent
from detectors.photos.image import decode
from detectors.photos.labelled import Photo

AS_IT_IS: Final = "as it is"  # the very file
Sending = View | Literal["as it is"]
Tell = Callable[[], None]  # one photo is done


def ask(
    detector: Detector, photos: Sequence[Photo], view: Sending = AS_IT_IS, seed: int = 0, tell: Tell = lambda: None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a detector would send for each photo, and the seconds each took; two of shape (photos,).

    Args:
        detector: is asked.
        photos: are asked about.
        view: how they are sent: as it is, or as a validator may send it.
        seed: of what a view leaves to chance.
        tell: is called after each photo.
    """
    answers, seconds = [], []
    for photo in photos:
        data = bytes_sent(photo, view, seed)
        started = time.perf_counter()
        answers.append(detector.predict(data).probability)
        seconds.append(time.perf_counter() - started)
        tell()
    return np.array(answers), np.array(seconds)


def bytes_sent(photo: Photo, view: Sending, seed: int) -> bytes:
    """Return what a validator would send of a photo; it follows from view, seed and the photo's content."""
    data = photo.path.read_bytes()
    if view == AS_IT_IS:
        return data
    return sent(data, view, np.random.default_rng((seed, int(photo.digest[:15], 16))))


def ask_raw(detectors: Sequence[Detector], photos: Sequence[Photo], tell: Tell = lambda: None) -> NDArray[np.float64]:
    """Return what models say before any calibration, shape (detectors, photos); each photo is decoded once."""
    said = np.empty((len(detectors), len(photos)))
    for column, photo in enumerate(photos):
        picture = decode(photo.path.read_bytes())
        for row, detector in enumerate(detectors):
            said[row, column] = detector.judge(picture).probability
        tell()
    return said
