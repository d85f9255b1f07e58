"""Photos as validators may send them, change by change: which of them a detector bears, and which not.

Every picture is as large as it is sent: at a camera's size blur and noise would be gone before a network sees them.
"""

from typing import Literal, get_args

import numpy as np

from detectors.photos.distortions import blurred, encoded, letterbox, noisy
from detectors.photos.transforms import BLUR, ERAS, NOISE, QUALITY, Era, opened, prepare

Change = Literal["jpeg", "blur", "noise", "together"]
View = Era | Change
CHANGES: tuple[Change, ...] = get_args(Change)  # each of a letterboxed photo
VIEWS: tuple[View, ...] = (*ERAS, *CHANGES)
WORST = 30  # quality of a JPEG that still occurs


def sent(photo: bytes, view: View, random: np.random.Generator) -> bytes:
    """Return the JPEG that a validator sends of an encoded photo: as its era prepares it, or with a change added.

    The strength of a change is drawn, from a little to the most that the augmented era has.

    Raises:
        OSError: the bytes are not a picture.
    """
    if view == "letterbox" or view == "native" or view == "augmented":
        return prepare(photo, view, random)
    picture, quality = letterbox(opened(photo)), QUALITY
    if view in ("blur", "together"):
        picture = blurred(picture, random.uniform(0.3, BLUR[-1]))
    if view in ("noise", "together"):
        picture = noisy(picture, random.uniform(NOISE[0] / 4, NOISE[-1]), random)
    if view in ("jpeg", "together"):
        quality = int(random.integers(WORST, QUALITY))
    return encoded(picture, quality)
