"""Photos as validators may send them: each change alone, and all at once."""

import numpy as np
from PIL import Image

from detectors.training.config import Augment
from detectors.training.views import changed

CHANGES = ("letterbox", "jpeg", "blur", "noise")
AS_IT_IS, TOGETHER = "as it is", "together"
VIEWS = (AS_IT_IS, *CHANGES, TOGETHER)
NOTHING = dict.fromkeys(Augment.model_fields, 0.0)


def sent(picture: Image.Image, view: str, seed: tuple[int, ...]) -> Image.Image:
    """Return an RGB picture as a view shows it; how strong a change is follows from the seed.

    Args:
        picture: the photo.
        view: one of `VIEWS`; each of the changes surely happens.
        seed: of the strengths: the same numbers, the same view.
    """
    if view == AS_IT_IS:
        return picture
    chosen = CHANGES if view == TOGETHER else (view,)
    return changed(picture, Augment(**NOTHING | dict.fromkeys(chosen, 1.0)), np.random.default_rng(seed))
