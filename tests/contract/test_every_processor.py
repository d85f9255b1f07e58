"""Every image processor that a classifier of transformers' registry uses: equal to the library's, or refused by name.

A new version of transformers with a new type of classifier ends the walk until the type is one of the two.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detectors.backends.torch import ensure_torchvision
from detectors.errors import ModelFileError
from detectors.models.processors import MODEL_TYPES, PROCESSORS, REFUSED
from detectors.photos.synthetic import scene
from detectors.preprocess import Preprocessing, from_processor_config

pytestmark = [
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore:The following named arguments"),  # of keys that a processor does not have
]

# 16:9, tall, square, tiny, and sides that leave odd margins.
SIZES = [(640, 360), (360, 641), (224, 224), (37, 29), (301, 225), (258, 257)]
# Of these a processor reads what it knows; each is set to what no default has.
ODD: list[dict[str, Any]] = [
    {},
    {"size": 97, "crop_size": 96},
    {"size": {"height": 120, "width": 97}, "crop_size": {"height": 99, "width": 64}, "do_center_crop": True},
    {"size": {"shortest_edge": 161}, "crop_size": [120, 161], "crop_pct": 0.77, "do_center_crop": True},
    {"size": [130, 130], "crop_pct": 0.95, "crop_size": 200, "do_center_crop": True, "resample": 3},
    {"size": {"shortest_edge": 70}, "size_divisor": 24, "do_center_crop": True, "crop_size": 71, "resample": 0},
    {"do_center_crop": True, "do_flip_channel_order": False, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.4},
    {"do_center_crop": False, "crop_pct": None},
    {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 61, "width": 80}, "rescale_factor": 1 / 127.5},
    {"do_center_crop": True, "do_normalize": False, "do_rescale": False},
]
NO_PROCESSOR = {"dinov2_with_registers", "hgnet_v2"}  # of which transformers knows none: their files name one
OTHER_FILE = {"timm_wrapper"}  # config.json says it: test_timm.py
# Of 255, in few pixels, where torchvision's 16-bit weights round away from Pillow's: most where a tiny one is enlarged.
LEVELS, FEW = 2.01, 0.08
# The names of the processors, whether or not they can be served here.
SLOW = sorted({*MODEL_TYPES.values()})
PROCESSOR_NAMES = [*SLOW, *(f"{name}Fast" for name in SLOW)]


@cache
def pictures() -> list[Image.Image]:
    return [Image.fromarray(scene(width, height, seed=3)) for width, height in SIZES]


def registry() -> dict[str, tuple[str | None, ...]]:
    """Return the processors of each type of classifier, as transformers has them."""
    ensure_torchvision()
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    return {kind: IMAGE_PROCESSOR_MAPPING_NAMES.get(kind, ()) for kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES}


def test_every_classifier_of_transformers_has_a_processor_that_is_known_here() -> None:
    known = registry()
    assert {kind for kind, names in known.items() if not names} == NO_PROCESSOR
    assert known.keys() - NO_PROCESSOR - OTHER_FILE == MODEL_TYPES.keys()
    for kind, (slow, *fast) in ((kind, names) for kind, names in known.items() if kind in MODEL_TYPES):
        assert slow == MODEL_TYPES[kind]
        assert slow in PROCESSORS or slow in REFUSED
        assert set(fast) <= {f"{slow}Fast", None}


@pytest.mark.parametrize("name", PROCESSOR_NAMES)
def test_a_processor_is_equal_to_that_of_transformers_or_refused_by_its_name(name: str) -> None:
    ensure_torchvision()
    import transformers

    if name.removesuffix("Fast") in REFUSED:
        with pytest.raises(ModelFileError, match=f"image_processor_type='{name}': it"):
            from_processor_config({"image_processor_type": name})
        return
    original = getattr(transformers, name, None)
    if original is None:
        pytest.skip("transformers has no fast one of this name")
    served = 0
    for values in ODD:
        try:
            ours = from_processor_config({"image_processor_type": name} | values)
        except ModelFileError:
            continue
        served += 1
        compare(ours, original(**values))
    assert served >= 3  # what is refused leaves the picture's size open, or is no filter of tensors


def compare(ours: Preprocessing, original: Any) -> None:
    level = max(map(abs, ours.scale))
    for picture in pictures():
        expected = original(picture, return_tensors="pt")["pixel_values"].numpy()
        result = ours(picture)
        assert result.shape == expected.shape == ours.shape
        apart = np.abs(result - expected)
        if original.is_fast:
            assert apart.max() <= LEVELS * level
            assert (apart > level / 2).mean() <= FEW
        else:
            assert (apart <= 1e-6 * np.maximum(1, np.abs(expected))).all()
