"""What detectors say of labelled photos, and how long it takes them."""

import io
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector
from detectors.image import decode
from detectors.training.folder import Photo
from detectors.training.sent import AS_IT_IS, sent

Tell = Callable[[], None]  # one photo is done


def ask(
    detector: Detector, photos: Sequence[Photo], view: str = AS_IT_IS, seed: int = 0, tell: Tell = lambda: None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a detector would send for each photo, and the seconds each took; two of shape (photos,)."""
    answers, seconds = [], []
    for photo in photos:
        data = photo.path.read_bytes() if view == AS_IT_IS else _changed(photo, view, seed)
        started = time.perf_counter()
        answers.append(detector.predict(data).probability)
        seconds.append(time.perf_counter() - started)
        tell()
    return np.array(answers), np.array(seconds)


def ask_raw(detectors: Sequence[Detector], photos: Sequence[Photo], tell: Tell = lambda: None) -> NDArray[np.float64]:
    """Return what models say before any calibration, shape (detectors, photos); each photo is decoded once."""
    said = np.empty((len(detectors), len(photos)))
    for column, photo in enumerate(photos):
        picture = decode(photo.path.read_bytes())
        for row, detector in enumerate(detectors):
            said[row, column] = detector.judge(picture).probability
        tell()
    return said


def _changed(photo: Photo, view: str, seed: int) -> bytes:
    buffer = io.BytesIO()
    picture = decode(photo.path.read_bytes())
    sent(picture, view, (seed, int(photo.digest[:15], 16))).save(buffer, "PNG")  # as it is, without a second JPEG
    return buffer.getvalue()
