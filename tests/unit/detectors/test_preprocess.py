"""Our preprocessing against the processors of transformers and the transforms of Ultralytics."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from detectors.errors import ImageError, ModelError, ModelFileError
from detectors.models.processors import OWN, PROCESSORS, SLOW_ONLY
from detectors.photos.synthetic import scene
from detectors.preprocess import Preprocessing, from_processor_config

SIZES = [(224, 224), (1920, 1080), (1080, 1920), (301, 225), (97, 131), (256, 256)]
HUGGING_FACE = [name for name in PROCESSORS if name not in OWN]
FAST = [f"{name}Fast" for name in HUGGING_FACE if name not in SLOW_ONLY]
CROPPED = {"TextNetImageProcessor", "TextNetImageProcessorFast"}  # which leave the size open by themselves
PUBLISHED: list[dict[str, Any]] = [
    {"image_processor_type": name} | ({"do_center_crop": True} if name in CROPPED else {})
    for name in [*HUGGING_FACE, *FAST]
] + [
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 288}, "crop_pct": 0.95},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3},
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 192, "width": 160}, "do_normalize": False},
    {"image_processor_type": "ViTImageProcessor", "size": 384, "image_mean": [0.4, 0.5, 0.6], "resample": 0},
    {"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 200, "width": 180}},
    {"image_processor_type": "ViTImageProcessor", "size": [192, 160], "image_mean": 0.5, "image_std": 0.25},
    {"image_processor_type": "ViTImageProcessor", "do_center_crop": True, "crop_size": 100, "do_pad": True},
    {"image_processor_type": "CLIPImageProcessor", "size": [200, 260], "crop_size": [225, 180]},
    {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": [225, 180]},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 240, "longest_edge": 300}},
    {"image_processor_type": "BeitImageProcessor", "size": 224, "do_center_crop": False},
    {"image_processor_type": "EfficientNetImageProcessor", "do_center_crop": True, "rescale_factor": 1 / 127.5}
    | {"rescale_offset": True, "include_top": False},
    {"image_processor_type": "EfficientNetImageProcessorFast", "rescale_offset": True, "size": 301},
    {"image_processor_type": "ConvNextImageProcessorFast", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
    {"image_processor_type": "ConvNextImageProcessorFast", "size": 225, "crop_pct": 0.95, "resample": 3},
    {"image_processor_type": "ConvNextImageProcessorFast", "size": 64, "crop_pct": 1.2},
    {"image_processor_type": "ViTImageProcessorFast", "size": {"shortest_edge": 225}, "crop_size": 224}
    | {"do_center_crop": True},
    {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 256, "width": 455}, "image_std": 0.5},
    {"image_processor_type": "ViTImageProcessorFast", "resample": 0, "do_pad": True},
    {"image_processor_type": "SiglipImageProcessorFast", "size": 192, "default_to_square": True},
    {"image_processor_type": "BitImageProcessorFast", "size": 97, "crop_size": [120, 98]},
    {"image_processor_type": "DeiTImageProcessorFast", "do_resize": False, "crop_size": [225, 180]},
]
LEVELS = 2  # of 255, by which torchvision's 16-bit weights round away from Pillow's, in few pixels
FEW = 0.02  # share of them


@cache
def pictures() -> list[Image.Image]:
    return [Image.fromarray(scene(width, height, seed=3)) for width, height in SIZES]


@pytest.mark.export
@pytest.mark.parametrize("config", PUBLISHED, ids=lambda config: "-".join(map(str, config.values())))
def test_equals_the_published_processor_of_transformers(config: dict[str, Any]) -> None:
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    import transformers

    values = {key: value for key, value in config.items() if key != "image_processor_type"}
    original = getattr(transformers, config["image_processor_type"])(**values)
    ours = from_processor_config(config)
    for picture in pictures():
        assert_equal(ours, original, picture)


def assert_equal(ours: Preprocessing, original: Any, picture: Image.Image) -> None:
    expected = original(picture, return_tensors="pt")["pixel_values"].numpy()
    result = ours(picture)
    assert result.shape == expected.shape == ours.shape
    level = max(map(abs, ours.scale))
    if original.is_fast:
        apart = np.abs(result - expected) / level
        assert apart.max() <= LEVELS + 0.01
        assert (apart > 0.5).mean() <= FEW
    else:
        np.testing.assert_allclose(result, expected, atol=1e-3 * level, rtol=1e-5)


def possible(**keys: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw some of the keys, each with one of its values."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in keys.items()})


SWITCH = [True, False, None]
FILES = possible(
    size=[
        None, 48, 225, [64, 48], {"height": 64, "width": 48}, {"shortest_edge": 72}, {"longest_edge": 64},
        {"shortest_edge": 73, "longest_edge": 200}, {"max_height": 64, "max_width": 64}, {"shortest_edge": 400},
    ],
    crop_size=[None, 64, 63, 300, [50, 61], {"height": 60, "width": 71}, {"shortest_edge": 64}],
    do_center_crop=SWITCH, do_resize=SWITCH, do_rescale=SWITCH, do_normalize=SWITCH, do_pad=SWITCH,
    do_flip_channel_order=SWITCH, size_divisor=[1, 16, 32, None],
    default_to_square=SWITCH, include_top=SWITCH, rescale_offset=SWITCH,
    resample=[0, 1, 2, 3, 4, 5, None], rescale_factor=[1 / 255, 1 / 127.5, 1, None],
    crop_pct=[0.9, 1.0, 0.3, 1.2, None],
    image_mean=[0.5, [0.4, 0.5, 0.6], None], image_std=[0.5, [0.4, 0.5, 0.6], None],
    pad_size=[{"height": 64, "width": 48}, None],
)  # fmt: skip


@pytest.mark.export
@pytest.mark.filterwarnings("ignore:The following named arguments")  # of keys that a processor does not have
@hypothesis_settings(max_examples=120)
@given(st.sampled_from([*HUGGING_FACE, *FAST]), FILES, st.sampled_from([(160, 90), (91, 161), (64, 48), (97, 131)]))
def test_any_file_is_served_as_transformers_does_or_refused(
    name: str, values: dict[str, Any], size: tuple[int, int]
) -> None:
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    import transformers

    try:
        ours = from_processor_config({"image_processor_type": name} | values)
    except ModelFileError:
        return
    assert_equal(ours, getattr(transformers, name)(**values), Image.fromarray(scene(*size, seed=3)))


@pytest.mark.export
@pytest.mark.parametrize("size", [224, 225, 640])
def test_equals_the_transforms_of_ultralytics(size: int) -> None:
    from detectors.backends.torch import import_yolo
    from detectors.export.yolo import _processor_config

    import_yolo()
    from ultralytics.data.augment import classify_transforms

    transforms = classify_transforms(size)
    ours = from_processor_config(_processor_config(transforms.transforms))
    for picture in pictures():
        np.testing.assert_allclose(ours(picture), transforms(picture).numpy()[np.newaxis], atol=1e-6)


@pytest.mark.parametrize("name", ["ViTImageProcessor", "CLIPImageProcessor", "ConvNextImageProcessor"])
def test_a_fast_processor_has_the_same_steps_by_another_library(name: str) -> None:
    slow = from_processor_config({"image_processor_type": name})
    fast = from_processor_config({"image_processor_type": f"{name}Fast"})
    assert (slow.resizer, fast.resizer) == ("pillow", "torchvision")
    assert slow.shape == fast.shape
    assert (slow.scale, slow.shift) == (fast.scale, fast.shift)


def test_a_pil_processor_of_transformers_5_is_a_slow_one() -> None:
    assert from_processor_config({"image_processor_type": "ViTImageProcessorPil"}) == from_processor_config(
        {"image_processor_type": "ViTImageProcessor"}
    )
    beit = from_processor_config({"image_processor_type": "BeitImageProcessorPil"})
    assert (beit.size, beit.crop) == ((224, 224), None)  # 5's own default; 4's slow one makes 256 and crops


def test_an_older_file_names_a_feature_extractor() -> None:
    assert from_processor_config({"feature_extractor_type": "DeiTFeatureExtractor"}) == from_processor_config(
        {"image_processor_type": "DeiTImageProcessor"}
    )


@pytest.mark.parametrize(
    "name", ["SamImageProcessor", "UltralyticsClassifyFast", "ViTImageProcessorPilFast", "ViTImageprocessor", ""]
)
def test_an_unknown_processor_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelError, match=f"unknown image processor '{name}'; known: ViTImageProcessor"):
        from_processor_config({"image_processor_type": name})


OPEN = [
    ("CLIPImageProcessor", "size", {"do_center_crop": False}),
    ("CLIPImageProcessor", "do_resize", {"do_resize": False, "do_center_crop": False}),
    ("ViTImageProcessor", "do_resize", {"do_resize": False}),
    ("ViTImageProcessor", "size", {"size": {"shortest_edge": 224}}),
    ("ViTImageProcessorFast", "size", {"size": {"shortest_edge": 224}}),
    ("SiglipImageProcessor", "size", {"size": 224}),
    ("ConvNextImageProcessor", "do_resize", {"do_resize": False}),
    ("ConvNextImageProcessor", "size", {"size": {"height": 224, "width": 224}}),
    ("TextNetImageProcessor", "size", {}),
    ("PoolFormerImageProcessor", "size", {"size": [224, 224], "do_center_crop": False}),
    ("PerceiverImageProcessor", "do_resize", {"do_resize": False}),
    ("PerceiverImageProcessorFast", "size", {"size": {"shortest_edge": 224}}),
]


@pytest.mark.parametrize(("name", "key", "values"), OPEN)
def test_a_size_left_open_is_refused_with_its_key(name: str, key: str, values: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match=rf"preprocessor_config.json: {key}="):
        from_processor_config({"image_processor_type": name} | values)


def test_a_picture_that_becomes_a_giant_on_the_way_is_refused() -> None:
    fast = from_processor_config({"image_processor_type": "ViTImageProcessorFast"})
    with pytest.raises(ImageError, match="too long"):
        fast(Image.new("RGB", (2, 200_000)))


@pytest.mark.parametrize("name", ["ViTImageProcessor", "CLIPImageProcessorFast", "ConvNextImageProcessor"])
def test_a_letterbox_takes_the_place_of_resize_and_crop(name: str) -> None:
    plain = from_processor_config({"image_processor_type": name, "size": 320})
    boxed = from_processor_config({"image_processor_type": name, "size": 320, "letterbox": True})
    assert (boxed.resize, boxed.crop) == ("letterbox", None)
    assert boxed.shape == plain.shape
