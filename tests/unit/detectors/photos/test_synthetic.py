"""Pictures made by arithmetic."""

import io

import numpy as np
from PIL import Image

from detectors.photos.synthetic import known_picture, scene


def test_the_known_picture_is_the_scene_that_it_was_made_of() -> None:
    picture = Image.open(io.BytesIO(known_picture()))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), scene(320, 240, seed=3))
