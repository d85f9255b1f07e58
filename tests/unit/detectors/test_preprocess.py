"""Our preprocessing against the processors of transformers and the transforms of Ultralytics."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from detectors.errors import ModelError
from detectors.exporters.torchvision_cpu import ensure_torchvision
from detectors.pictures import scene
from detectors.preprocess import PROCESSORS, from_processor_config

SIZES = [(224, 224), (1920, 1080), (1080, 1920), (301, 225), (97, 131), (256, 256)]
HUGGING_FACE = [name for name in PROCESSORS if name != "UltralyticsClassify"]
PUBLISHED: list[dict[str, Any]] = [
    {"image_processor_type": name} for name in HUGGING_FACE if name not in {"ViTImageProcessorFast"}
] + [
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 288}, "crop_pct": 0.95},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3},
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 192, "width": 160}, "do_normalize": False},
    {"image_processor_type": "ViTImageProcessor", "size": 384, "image_mean": [0.4, 0.5, 0.6], "resample": 0},
    {"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 200, "width": 180}},
]


def pictures() -> list[Image.Image]:
    return [Image.fromarray(scene(width, height, seed=3)) for width, height in SIZES]


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda config: "-".join(map(str, config.values())))
def test_equals_the_published_processor_of_transformers(config: dict[str, Any]) -> None:
    ensure_torchvision()
    import transformers

    values = {key: value for key, value in config.items() if key != "image_processor_type"}
    original = getattr(transformers, config["image_processor_type"])(**values)
    ours = from_processor_config(config)
    for picture in pictures():
        expected = original(picture, return_tensors="np")["pixel_values"]
        result = ours(picture)
        assert result.shape == expected.shape == ours.shape
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("size", [224, 225, 640])
def test_equals_the_transforms_of_ultralytics(size: int) -> None:
    from detectors.exporters.yolo import _processor_config, import_yolo

    import_yolo()
    from ultralytics.data.augment import classify_transforms

    transforms = classify_transforms(size)
    ours = from_processor_config(_processor_config(transforms.transforms))
    for picture in pictures():
        np.testing.assert_allclose(ours(picture), transforms(picture).numpy()[np.newaxis], atol=1e-6)


def test_a_fast_processor_is_the_same_processor() -> None:
    assert from_processor_config({"image_processor_type": "ViTImageProcessorFast"}) == from_processor_config(
        {"image_processor_type": "ViTImageProcessor"}
    )


def test_an_unknown_processor_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ModelError, match=r"unknown image processor 'SegformerImageProcessor'; known: ViTImageProcessor"
    ):
        from_processor_config({"image_processor_type": "SegformerImageProcessor"})


def test_a_size_left_open_is_refused() -> None:
    with pytest.raises(ModelError, match="size open"):
        from_processor_config({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False})
