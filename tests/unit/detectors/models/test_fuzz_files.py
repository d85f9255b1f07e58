"""Whatever a model's files hold: a typed model, or one line that is ours, and never a traceback."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from detectors.builders.vit import ViTConfig
from detectors.errors import DetectorError
from detectors.models.config import read_config
from detectors.models.hf_config import ModelConfig, ProcessorConfig
from detectors.models.manifest import Manifest
from detectors.models.processors import MODEL_TYPES, PROCESSORS
from detectors.photos import MAX_PIXELS
from detectors.preprocess import from_processor_config
from tests.mutations import Damage, damaged, damages

pytestmark = pytest.mark.fuzz

CONFIG = {
    "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_act": "gelu", "hidden_size": 192,
    "num_hidden_layers": 12, "num_attention_heads": 3, "image_size": 224, "patch_size": 16, "num_channels": 3,
    "layer_norm_eps": 1e-12, "id2label": {"0": "None", "1": "Roadwork"}, "label2id": {"None": 0, "Roadwork": 1},
    "problem_type": "single_label_classification", "torch_dtype": "float32",
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 224, "width": 224},
    "resample": 2, "do_rescale": True, "rescale_factor": 0.00392156862745098, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_center_crop": False, "crop_size": 224,
    "crop_pct": 0.875, "do_pad": False, "pad_size": None, "include_top": True, "rescale_offset": False,
    "default_to_square": True, "letterbox": False, "do_flip_channel_order": True, "size_divisor": 32,
    "crop_mode": "center",
}  # fmt: skip
PROCESSOR_NAMES = [*PROCESSORS, *(f"{name}Fast" for name in PROCESSORS), *(f"{name}Pil" for name in PROCESSORS), None]
MEASURED = {"photos": 9, "accuracy": 0.9, "mcc": 0.5, "reward": 0.4, "reward_low": 0.3, "reward_high": 0.5}
DETECTORS: list[dict[str, Any]] = [
    {"hf_repo": "a/b", "revision": "main", "subfolder": "one", "roadwork_label": "Roadwork", "letterbox": True},
    {"weights_path": "best.pt", "roadwork_class_index": 1, "roadwork_label": 1},
    {
        "branches": {
            "one": {"hf_repo": "a/b", "subfolder": "one"},
            "two": {"detector": "YOLOClassifier", "weights_path": "two.pt"},
            "three": {"config": "starter.yaml"},
        },
        "fusion": {"kind": "logistic", "branches": ["one", "two", "three"], "weights": [1, 2, 3], "bias": 0.5},
        "fallbacks": [{"branches": ["one"], "threshold": 0.4, "measured": MEASURED}],
    },
    {"vit_config": "vit.yaml", "yolo_weights_path": "best.pt", "googlenet_fusion_path": "/w/fusion", "use_keras": True},
]
MANIFEST = json.loads((Path(__file__).parents[4] / "detectors" / "starter" / "manifest.json").read_text())

plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([0, -1, 224, 10**30, 1e308, 1e-320, "224", "bicubic", "1/255", "\ud800", "\0", "~x", "../..", ""])
)  # fmt: skip
anything = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["0", "1", "00", "-1", "height", "width", "shortest_edge", "a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
# What YAML makes something of: tags, dates, references, numbers that are none.
YAML_VALUES = [
    ".nan", "-.inf", "1e999", "!!int x", "!!int ''", "!!float x", "!!timestamp x", "!!bool x", "!!binary x",
    "!!set {a}", "!!python/object:os.system x", "2024-13-45", "2024-01-01T99:99:99Z", "&a [*a]", "&a {x: *a}", "*a",
    "{", "[[", '"\\0"', '"\\uD800"', "? [1, 2]\n: 3", "~", "~nobody/x", "'" + "x" * 5000 + "'",
    "1" * 5000, "0x" + "f" * 5000, "0o9", "1:99:99", "<<: 3", "---", "[" * 2000,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def read(reader: Callable[[], object]) -> None:
    try:
        reader()
    except DetectorError as error:
        message = str(error)
        message.encode()
        assert len(message.splitlines()) == 1
        assert len(message) < 5000


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to each value within a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def changed(document: Any, place: int, value: Any) -> Any:
    """Return a document with another value at one of its places."""
    ways = places(document)
    way = ways[place % len(ways)]
    if not way:
        return value
    document = copy.deepcopy(document)
    part = document
    for key in way[:-1]:
        part = part[key]
    part[way[-1]] = value
    return document


def dumped(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def look_at_model(folder: Path, data: bytes) -> None:
    (folder / "config.json").write_bytes(data)

    def reader() -> None:
        labels = ModelConfig.read(folder).labels
        assert list(labels) == list(range(len(labels)))
        assert all(isinstance(label, str) for label in labels.values())
        shape = ViTConfig.read(folder)
        assert shape.hidden_size % shape.num_attention_heads == 0

    read(reader)


def look_at_processor(folder: Path, data: bytes) -> None:
    (folder / "preprocessor_config.json").write_bytes(data)

    def reader() -> None:
        preprocessing = from_processor_config(ProcessorConfig.read(folder))
        *_, height, width = preprocessing.shape
        assert 1 <= height * width <= MAX_PIXELS
        assert np.isfinite(np.float32([*preprocessing.scale, *preprocessing.shift])).all()
        assert all(preprocessing.scale)

    read(reader)


def look_at_detector(folder: Path, data: bytes) -> None:
    (folder / "mine.yaml").write_bytes(data)
    read(lambda: read_config(str(folder / "mine.yaml")).source)


def look_at_manifest(folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)
    read(lambda: Manifest.read(folder))


@given(st.integers(0, 99), anything, st.integers(0, 99), anything)
def test_a_config_json_with_other_values(folder: Path, one: int, value: Any, two: int, other: Any) -> None:
    look_at_model(folder, dumped(changed(changed(CONFIG, one, value), two, other)))


@given(damages)
def test_a_damaged_config_json(folder: Path, changes: list[Damage]) -> None:
    look_at_model(folder, damaged(dumped(CONFIG), changes))


@given(
    st.sampled_from(PROCESSOR_NAMES), st.sampled_from([*MODEL_TYPES, None]), st.integers(0, 99), anything,
    st.integers(0, 99), anything,
)  # fmt: skip
def test_a_preprocessor_config_json_with_other_values(
    folder: Path, name: str | None, model: str | None, one: int, value: Any, two: int, other: Any
) -> None:
    (folder / "config.json").write_bytes(dumped({"model_type": model}))
    document = changed(changed(PROCESSOR | {"image_processor_type": name}, one, value), two, other)
    look_at_processor(folder, dumped(document))


@given(st.sampled_from(PROCESSOR_NAMES), st.sets(st.sampled_from(list(PROCESSOR))), damages)
def test_a_damaged_preprocessor_config_json(
    folder: Path, name: str | None, lacking: set[str], changes: list[Damage]
) -> None:
    (folder / "config.json").write_bytes(dumped(CONFIG))
    values = {key: value for key, value in PROCESSOR.items() if key not in lacking}
    look_at_processor(folder, damaged(dumped(values | {"image_processor_type": name}), changes))


@given(st.sampled_from(DETECTORS), st.integers(0, 99), anything, st.integers(0, 99), anything)
def test_a_detector_yaml_with_other_values(
    folder: Path, seed: dict[str, Any], one: int, value: Any, two: int, other: Any
) -> None:
    document = changed(changed(seed, one, value), two, other)
    look_at_detector(folder, yaml.safe_dump(document, sort_keys=False, allow_unicode=False).encode())


@given(st.sampled_from(DETECTORS), st.integers(0, 99), st.sampled_from(YAML_VALUES), damages | st.just([]))
def test_a_damaged_detector_yaml(
    folder: Path, seed: dict[str, Any], place: int, text: str, changes: list[Damage]
) -> None:
    document = yaml.safe_dump(changed(seed, place, "HERE"), sort_keys=False)
    look_at_detector(folder, damaged(document.replace("HERE", text).encode(), changes))


@given(st.integers(0, 199), anything, st.integers(0, 199), anything)
def test_a_manifest_with_other_values(folder: Path, one: int, value: Any, two: int, other: Any) -> None:
    look_at_manifest(folder, dumped(changed(changed(MANIFEST, one, value), two, other)))


@given(damages)
def test_a_damaged_manifest(folder: Path, changes: list[Damage]) -> None:
    look_at_manifest(folder, damaged(dumped(MANIFEST), changes))
