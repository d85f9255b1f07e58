"""`config.json` as a typed model: as transformers reads it, or one line for what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from detectors.builders.architecture import find_architecture
from detectors.builders.vit import PlainViT, ViTConfig
from detectors.errors import DetectorConfigError, ModelError, ModelFileError
from detectors.models.hf_config import ModelConfig

TWO = {"0": "None", "1": "Roadwork"}


def config(folder: Path, text: str | bytes | dict[str, Any]) -> ModelConfig:
    data = json.dumps(text) if isinstance(text, dict) else text
    (folder / "config.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    return ModelConfig.read(folder)


@pytest.mark.parametrize(
    ("id2label", "labels"),
    [
        (TWO, ["None", "Roadwork"]),
        ({"1": "Roadwork", "0": "None"}, ["None", "Roadwork"]),
        ({"0": 0, "1": 1}, ["0", "1"]),
        ({"0": False, "1": True}, ["False", "True"]),
        ({"0": 0.5, "1": "1"}, ["0.5", "1"]),
        ({str(number): f"class {number}" for number in range(12)}, [f"class {number}" for number in range(12)]),
        (None, ["LABEL_0", "LABEL_1"]),
    ],
)
def test_labels_stand_in_the_order_of_the_outputs(tmp_path: Path, id2label: Any, labels: list[str]) -> None:
    read = config(tmp_path, {"id2label": id2label})
    assert list(read.labels.values()) == labels
    assert list(read.labels) == list(range(len(labels)))


def test_a_number_of_classes_without_names(tmp_path: Path) -> None:
    assert config(tmp_path, {"num_labels": 3}).labels == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


@pytest.mark.export
@pytest.mark.parametrize(
    "values", [{"id2label": TWO}, {}, {"num_labels": 1}, {"num_labels": 3}, {"id2label": {"0": 0, "1": True}}]
)
def test_labels_are_those_of_transformers(tmp_path: Path, values: dict[str, Any]) -> None:
    from transformers import AutoConfig

    read = config(tmp_path, values | {"model_type": "vit"})
    original = AutoConfig.from_pretrained(tmp_path).id2label
    assert read.labels == {number: str(label) for number, label in original.items()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id2label", ["None", "Roadwork"]),
        ("id2label", {"None": 0, "Roadwork": 1}),
        ("id2label", {"1": "None", "2": "Roadwork"}),
        ("id2label", {"0": "None", "2": "Roadwork"}),
        ("id2label", {"-1": "None", "0": "Roadwork"}),
        ("id2label", {"0": "None", "00": "Roadwork"}),
        ("id2label", {"0": "None", "1": None}),
        ("id2label", {"0": "None", "1": ["Roadwork"]}),
        ("id2label", {}),
        ("id2label", "Roadwork"),
        ("label2id", ["None", "Roadwork"]),
        ("num_labels", 0),
        ("num_labels", "2"),
        ("num_labels", True),
        ("problem_type", "multilabel"),
        ("architectures", "ViTForImageClassification"),
        ("architectures", [1]),
        ("model_type", 4),
        ("hidden_act", ["gelu"]),
    ],
)
def test_a_wrong_value_is_named_on_one_line(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ModelFileError) as caught:
        config(tmp_path, {key: value})
    message = str(caught.value)
    assert str(tmp_path / "config.json") in message
    assert f"{key}" in message
    assert len(message.splitlines()) == 1
    message.encode()  # can be printed


def test_the_direction_of_swapped_labels_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="this is a label2id"):
        config(tmp_path, {"id2label": {"None": 0, "Roadwork": 1}})


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"label2id\.None=1"):
        config(tmp_path, {"id2label": TWO, "label2id": {"None": 1, "Roadwork": 0}})
    with pytest.raises(ModelFileError, match="num_labels=3"):
        config(tmp_path, {"id2label": TWO, "num_labels": 3})


@pytest.mark.parametrize("label2id", [None, {"None": 0, "Roadwork": 1}, {"None": "0"}, {"LABEL_0": 0, "LABEL_1": 1}])
def test_labels_that_agree_are_read(tmp_path: Path, label2id: Any) -> None:
    assert config(tmp_path, {"id2label": TWO, "label2id": label2id}).labels == {0: "None", 1: "Roadwork"}


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", '["a"]', "3", '"text"', "{", "{'id2label': 1}", "version https://git-lfs.github.com/spec/v1",
        '{"layer_norm_eps": NaN}', '{"layer_norm_eps": Infinity}', '{"layer_norm_eps": -1e999}',
        '{"model_type": "vit", "model_type": "beit"}', '{"id2label": {"0": "a", "0": "b"}}', "[" * 100_000,
        '{"a":' * 100_000, "9" * 5000, b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\x80",
        '{"id2label": {"0": "None", "1": "\\ud800"}}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_object_of_finite_numbers_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ModelFileError) as caught:
        config(tmp_path, text)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_wrong_file_is_both_a_configuration_to_mend_and_a_model_that_can_not_be_loaded(tmp_path: Path) -> None:
    assert issubclass(ModelFileError, DetectorConfigError)
    assert issubclass(ModelFileError, ModelError)
    with pytest.raises(ModelError) as caught:
        ModelConfig.read(tmp_path)
    assert not isinstance(caught.value, DetectorConfigError)


@pytest.mark.parametrize(
    ("values", "plain"),
    [
        ({"architectures": ["ViTForImageClassification"]}, True),
        ({"architectures": ["ViTForImageClassification"], "hidden_act": "gelu"}, True),
        ({"architectures": ["ViTForImageClassification"], "hidden_act": "relu"}, False),
        ({"architectures": ["SwinForImageClassification"]}, False),
        ({"architectures": None}, False),
        ({}, False),
    ],
)
def test_which_network_needs_no_torch(tmp_path: Path, values: dict[str, Any], plain: bool) -> None:
    assert (find_architecture(config(tmp_path, values)) is PlainViT) is plain


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch_size", 0), ("patch_size", [16, 16]), ("patch_size", "16"), ("patch_size", 16.0), ("num_channels", 1),
        ("num_attention_heads", 0), ("num_attention_heads", 5), ("num_hidden_layers", -1), ("hidden_size", None),
        ("layer_norm_eps", 0), ("layer_norm_eps", "1e-6"), ("layer_norm_eps", 10**400),
    ],
)  # fmt: skip
def test_a_wrong_shape_of_a_plain_vit_is_named(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    with pytest.raises(ModelFileError, match=f"{key}="):
        ViTConfig.read(tmp_path)
    assert ModelConfig.read(tmp_path)  # another network may have it so
