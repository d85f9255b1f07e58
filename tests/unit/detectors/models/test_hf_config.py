"""`preprocessor_config.json` as a typed model: named as transformers names it, or one line for what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from detectors.errors import ModelError, ModelFileError
from detectors.models.hf_config import ProcessorConfig
from detectors.models.processors import MODEL_TYPES
from detectors.network import ViT
from detectors.preprocess import from_processor_config

VIT = {"image_processor_type": "ViTImageProcessor"}


def folder_with(folder: Path, processor: str | dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    text = json.dumps(processor) if isinstance(processor, dict) else processor
    (folder / "preprocessor_config.json").write_text(text)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


WRONG: list[tuple[str, Any]] = [
    *(("size", value) for value in (
        {}, {"height": 224}, {"width": 224}, {"longest_edge": 224}, {"depth": 3}, "224", 224.0, True, 0, -1, 10**9, [],
        [224], [224, 224, 3], [224, "224"], [224.0, 224.0], {"height": "224", "width": 224}, {"height": 0, "width": 0},
        {"height": 10**30, "width": 10**30}, {"shortest_edge": None}, {"shortest_edge": 224, "height": 224},
    )),
    *(("image_mean", value) for value in ([0.5], [0.5] * 4, [], "0.5", [0.5, 0.5, "0.5"], True, 10**400, {"r": 0.5})),
    *(("image_std", value) for value in (0, [0, 0, 0], [0.5, 0.5, 0], -0.5, [0.5], [0.5] * 4, 1e-30)),
    *(("resample", value) for value in (9, -1, "bicubic", 3.0, True, [3])),
    *(("rescale_factor", value) for value in ("1/255", 0, -1, True, [1])),
    *(("do_resize", value) for value in ("false", 0, 1, [])),
    *((key, "true") for key in ("do_rescale", "do_normalize", "do_center_crop", "letterbox")),
    ("image_processor_type", 3),
    ("image_processor_type", ["ViTImageProcessor"]),
    ("feature_extractor_type", {}),
    ("auto_map", "code"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_named_on_one_line(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ModelFileError) as caught:
        ViT.read_preprocessing(folder_with(tmp_path, VIT | {key: value}))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'preprocessor_config.json'}: {key}")
    assert len(message.splitlines()) == 1
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("ConvNextImageProcessor", "crop_pct", 0),
        ("ConvNextImageProcessorFast", "do_center_crop", True),
        ("CLIPImageProcessor", "crop_size", {"shortest_edge": 224}),
        ("CLIPImageProcessor", "crop_size", {"height": 224}),
        ("CLIPImageProcessor", "use_square_size", True),
        ("ViTImageProcessor", "rescale_factor", None),
        ("ViTImageProcessor", "resample", None),
        ("ViTImageProcessorFast", "resample", 1),
        ("ViTImageProcessorFast", "image_mean", None),
        ("ViTImageProcessorFast", "size", None),
        ("CLIPImageProcessorFast", "size", {"shortest_edge": 224, "longest_edge": 300}),
    ],
)
def test_what_the_named_processor_can_not_do_is_refused_with_key_and_value(name: str, key: str, value: Any) -> None:
    with pytest.raises(ModelFileError, match=rf"preprocessor_config.json: {key}="):
        from_processor_config({"image_processor_type": name, key: value})


def test_a_crop_of_a_giant_is_refused() -> None:
    values = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.001}
    with pytest.raises(ModelFileError, match="crop_pct="):
        from_processor_config(values)


def test_bars_that_would_be_added_are_refused() -> None:
    values = {"image_processor_type": "ViTImageProcessorFast", "do_pad": True}
    assert from_processor_config(values | {"pad_size": {"height": 224, "width": 224}}) == from_processor_config(values)
    with pytest.raises(ModelFileError, match="pad_size="):
        from_processor_config(values | {"pad_size": {"height": 256, "width": 256}})


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", "[" * 100_000, '{"size": NaN}', '{"image_processor": 3}'])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelFileError, match=r"preprocessor_config\.json"):
        ProcessorConfig.read(folder_with(tmp_path, text))


def test_a_missing_file_is_no_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        ProcessorConfig.read(tmp_path)
    assert not isinstance(caught.value, ModelFileError)


@pytest.mark.parametrize("processor", [{}, {"processor_class": "ViTProcessor"}, {"image_processor_type": None}])
def test_a_file_without_a_name_means_the_processor_of_its_network(tmp_path: Path, processor: dict[str, Any]) -> None:
    config = ProcessorConfig.read(folder_with(tmp_path, processor, {"model_type": "beit"}))
    assert config.kind == ("BeitImageProcessor", "slow")


def test_a_config_json_may_name_the_processor(tmp_path: Path) -> None:
    model = {"model_type": "vit", "image_processor_type": "DeiTImageProcessorFast"}
    assert ProcessorConfig.read(folder_with(tmp_path, {}, model)).kind == ("DeiTImageProcessor", "fast")


def test_a_processor_within_a_larger_one_is_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"image_processor": VIT | {"size": 192}, "processor_class": "ViTProcessor"})
    assert ViT.read_preprocessing(folder).shape == (1, 3, 192, 192)


@pytest.mark.parametrize("model", [{}, {"model_type": "dinov2_with_registers"}, {"model_type": "hgnet_v2"}])
def test_a_network_whose_processor_is_not_known_is_refused(tmp_path: Path, model: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match="image_processor_type="):
        ProcessorConfig.read(folder_with(tmp_path, {}, model))


def test_a_processor_that_is_code_of_its_own_is_refused(tmp_path: Path) -> None:
    own = {"auto_map": {"AutoImageProcessor": "own.Processor"}}
    with pytest.raises(ModelFileError, match="auto_map="):
        ProcessorConfig.read(folder_with(tmp_path, own, {"model_type": "vit"}))
    with pytest.raises(ModelFileError, match="auto_map="):
        ProcessorConfig.read(folder_with(tmp_path, {}, own | {"model_type": "vit"}))
    assert ProcessorConfig.read(folder_with(tmp_path, own | VIT)).kind == ("ViTImageProcessor", "slow")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    published = VIT | {"size": [192, 160], "image_mean": 0.5, "of_its_own": {"a": [1]}}
    config = ProcessorConfig.read(folder_with(tmp_path, published)).with_letterbox()
    config.write(tmp_path)
    assert ProcessorConfig.read(tmp_path) == config
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == published | {
        "letterbox": True, "image_mean": [0.5, 0.5, 0.5]
    }  # fmt: skip


@pytest.mark.export
def test_the_processor_of_each_network_is_that_of_transformers() -> None:
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    known = {
        model: slow
        for model, (slow, _) in IMAGE_PROCESSOR_MAPPING_NAMES.items()
        if model in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES and model != "timm_wrapper"
    }
    assert known == MODEL_TYPES


@pytest.mark.export
@pytest.mark.parametrize(
    "processor", [{}, {"feature_extractor_type": "DeiTFeatureExtractor"}, {"processor_class": "x"}]
)
def test_the_processor_is_the_one_that_transformers_finds(tmp_path: Path, processor: dict[str, Any]) -> None:
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    from transformers import AutoImageProcessor

    folder = folder_with(tmp_path, processor, {"model_type": "swin"})
    original = type(AutoImageProcessor.from_pretrained(folder)).__name__
    assert ProcessorConfig.read(folder).kind == (original, "slow")
