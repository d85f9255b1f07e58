"""LoRA adapters of real peft: merged as peft merges them, served with the labels of their training, or refused."""

import builtins
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from detectors.backends.torch import ensure_torchvision
from detectors.base import RunOptions
from detectors.errors import DetectorConfigError, ModelError
from detectors.export import hf
from detectors.export.export import prepare
from detectors.load import is_prepared, load_detector
from detectors.models.adapter import merge
from detectors.models.checkpoint import ADAPTER_CONFIG, ADAPTER_FILE, WEIGHTS_FILE
from detectors.models.config import DetectorConfig
from detectors.models.hf_config import ProcessorConfig
from detectors.models.manifest import Manifest
from detectors.models.sources import find_original, model_folder
from detectors.registry import exporter_class
from tests.contract.test_timm import change, make_timm
from tests.models import make_pair, make_resnet, make_vit, photo

pytestmark = pytest.mark.export
HEAD = ["classifier"]
ATTENTION = {"target_modules": ["query", "value"], "modules_to_save": HEAD}


@dataclass(frozen=True)
class Kind:
    """A base model, and the keys of peft's LoraConfig."""

    make: Callable[[Path], Path]
    keys: dict[str, Any]


def make_convnext(folder: Path) -> Path:
    return make_pair(folder.parent / "pair") / "convnextv2"


KINDS = {
    "vit": Kind(make_vit, ATTENTION | {"r": 4, "lora_alpha": 12}),
    "vit, with biases": Kind(make_vit, ATTENTION | {"bias": "all"}),
    "vit, patterns": Kind(
        make_vit,
        {
            "target_modules": ["query", "dense", "projection", "classifier"],
            "rank_pattern": {"layer.1.attention.attention.query": 2, "attention.output.dense": 3},
            "alpha_pattern": {r"layer\.\d\.output\.dense": 30},
        },
    ),
    "vit, rank-stabilised": Kind(make_vit, ATTENTION | {"use_rslora": True, "r": 9}),
    "resnet, kernels of 7, 3 and 1": Kind(
        make_resnet, {"target_modules": ["convolution"], "modules_to_save": HEAD, "r": 3}
    ),
    "convnextv2": Kind(make_convnext, {"target_modules": ["pwconv1", "pwconv2", "downsampling_layer.1"]}),
}


def adapt(base: Path, adapter: Path, **keys: Any) -> Any:
    """Write an adapter whose weights are all drawn at random, and return peft's own network with it."""
    ensure_torchvision()
    import peft
    from transformers import AutoModelForImageClassification

    torch.manual_seed(1)
    model = AutoModelForImageClassification.from_pretrained(base)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**keys)).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * (0.3 if "lora_" in name else 0.05))
    wrapped.save_pretrained(adapter)
    return wrapped


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, where the merged weights stay; of each test its own."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made")
    adapt(make_vit(home / "base"), home / "adapter", **ATTENTION)
    settle(home / "adapter", base_model_name_or_path="../base")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A base and an adapter of each test's own."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def config_of(home: Path, **keys: Any) -> DetectorConfig:
    return DetectorConfig(hf_repo=str(home / "adapter"), path=home / "x.yaml", **keys)


def settle(folder: Path, name: str = ADAPTER_CONFIG, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], name: str = ADAPTER_FILE) -> None:
    save_file(change(load_file(folder / name)), folder / name, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # of peft
def test_the_merged_weights_are_those_of_peft(tmp_path: Path, kind: str) -> None:
    base = KINDS[kind].make(tmp_path / "base")
    original = load_file(base / WEIGHTS_FILE)
    wrapped = adapt(base, tmp_path / "adapter", **KINDS[kind].keys)
    merge(tmp_path / "adapter", base, tmp_path / "merged")
    merged, expected = load_file(tmp_path / "merged" / WEIGHTS_FILE), wrapped.merge_and_unload().state_dict()
    assert merged.keys() == original.keys()
    for name, value in merged.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, rtol=1e-5, err_msg=name)
    assert len({path.stat().st_mode for path in (tmp_path / "merged").iterdir()}) == 1
    changed = [name for name, value in merged.items() if not torch.equal(value, original[name])]
    assert len(changed) >= 4
    prepared = prepare(
        "ViT", DetectorConfig(hf_repo=str(tmp_path / "adapter"), path=tmp_path / "x.yaml"), tmp_path / "models"
    )
    assert Manifest.read(prepared).parity.max_difference < 1e-4


def probability_of(classify: Any, picture: bytes) -> float:
    return next(row["score"] for row in classify(Image.open(BytesIO(picture))) if row["label"] == "Roadwork")


def test_it_answers_as_peft_does_and_every_reference_finds_the_same_weights(home: Path) -> None:
    import peft
    from transformers import AutoModelForImageClassification, pipeline

    models = home / "models"
    manifest = Manifest.read(prepare("ViT", config_of(home), models))
    served, reference = (
        load_detector("ViT", config_of(home), models, backend, RunOptions()) for backend in ("onnx", "torch")
    )
    original = find_original(config_of(home), manifest.revision)
    bench = exporter_class("ViT")(original.path, config_of(home)).reference()
    model = AutoModelForImageClassification.from_pretrained(home / "base")
    merged = peft.PeftModel.from_pretrained(model, home / "adapter").merge_and_unload().eval()
    classify = pipeline("image-classification", model=merged, image_processor=str(home / "base"), device="cpu")
    for seed in range(3):
        picture = photo(640, 360, seed=seed)
        expected = probability_of(classify, picture)
        for answer in (served.predict(picture).probability, reference.predict(picture).probability, bench(picture)):
            assert answer == pytest.approx(expected, abs=1e-4)
    assert manifest.output.labels == ["None", "Roadwork"]
    assert manifest.source.origin.count("@local-") == 2


def test_merged_weights_that_are_gone_are_merged_again(home: Path, cache: Path) -> None:
    revision = Manifest.read(prepare("ViT", config_of(home), home / "models")).revision
    shutil.rmtree(cache)
    assert find_original(config_of(home), revision).path.is_dir()
    shutil.rmtree(cache)
    rewrite(home / "adapter", lambda tensors: {name: 2 * value for name, value in tensors.items()})
    with pytest.raises(ModelError, match=revision):
        find_original(config_of(home), revision)


def test_a_box_without_torch_merges_exports_and_compares_with_numpy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_torch(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in {"torch", "transformers", "peft"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    with_torch = Manifest.read(prepare("ViT", config_of(home), home / "models"))
    monkeypatch.setattr(hf, "find_spec", lambda name: None)
    monkeypatch.setattr(builtins, "__import__", without_torch)
    manifest = Manifest.read(prepare("ViT", config_of(home), home / "others"))
    assert manifest.parity.reference == "numpy"
    assert manifest.known_answer == with_torch.known_answer


@pytest.mark.parametrize("changed", ["adapter", "base"])
def test_another_adapter_or_another_base_is_another_model(home: Path, changed: str) -> None:
    models = home / "models"
    first = prepare("ViT", config_of(home), models)
    assert first.name.startswith("lora-")
    assert is_prepared(config_of(home), models)
    assert model_folder(config_of(home), models) == first
    rewrite(home / changed, lambda tensors: {name: 1.5 * value for name, value in tensors.items()},
            ADAPTER_FILE if changed == "adapter" else WEIGHTS_FILE)  # fmt: skip
    assert not is_prepared(config_of(home), models)
    second = prepare("ViT", config_of(home), models)
    assert second != first
    assert Manifest.read(second).known_answer != Manifest.read(first).known_answer


def test_names_and_numbers_of_other_versions_of_peft_are_the_same_model(home: Path) -> None:
    """Older ones have `modules_to_save` in the names of the file, as newer ones have in the network."""
    before = Manifest.read(prepare("ViT", config_of(home), home / "models"))
    rewrite(home / "adapter", lambda tensors: {
        name.replace("classifier.", "classifier.modules_to_save."): value for name, value in tensors.items()
    } | {"base_model.model.classifier.original_module.weight": torch.zeros(2, 64)})  # fmt: skip
    after = Manifest.read(prepare("ViT", config_of(home), home / "models"))
    assert after.revision != before.revision
    assert after.known_answer == before.known_answer
    rewrite(home / "adapter", lambda tensors: {name: value.bfloat16() for name, value in tensors.items()})
    assert Manifest.read(prepare("ViT", config_of(home), home / "models")).known_answer == pytest.approx(
        before.known_answer, abs=0.01
    )


def test_a_base_without_a_head_gets_that_of_the_adapter(tmp_path: Path) -> None:
    """As in peft's own guide: a ViT that was published as features, without `vit.` before its names."""
    from transformers import AutoModel

    whole = make_vit(tmp_path / "whole")
    wrapped = adapt(whole, tmp_path / "adapter", **ATTENTION)
    AutoModel.from_pretrained(whole).save_pretrained(tmp_path / "base")
    shutil.copy(whole / "preprocessor_config.json", tmp_path / "base")
    assert "embeddings.cls_token" in load_file(tmp_path / "base" / WEIGHTS_FILE)
    settle(tmp_path / "base", "config.json", id2label=None, label2id=None)
    settle(tmp_path / "adapter", base_model_name_or_path="../base")
    with pytest.raises(DetectorConfigError, match="LABEL_0"):
        prepare("ViT", config_of(tmp_path), tmp_path / "models")
    config = config_of(tmp_path, roadwork_class_index=1)
    folder = prepare("ViT", config, tmp_path / "models")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["ViTForImageClassification"]
    merged = load_file(find_original(config).path / WEIGHTS_FILE)
    expected = wrapped.merge_and_unload().state_dict()
    assert merged.keys() >= expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(merged[name], value, atol=1e-5, rtol=1e-5, err_msg=name)


def test_a_network_of_timm_has_its_own_names(tmp_path: Path) -> None:
    base = make_timm(tmp_path / "base", "vit_tiny_patch16_224")
    change(base, model_args={"depth": 2})  # timm 1.0.31 says num_classes there again, which transformers chokes on
    wrapped = adapt(base, tmp_path / "adapter", target_modules=["qkv", "proj"], modules_to_save=["head"])
    settle(tmp_path / "adapter", base_model_name_or_path="../base")
    manifest = Manifest.read(prepare("ViT", config_of(tmp_path), tmp_path / "models"))
    assert manifest.parity.max_difference < 1e-4
    merged, expected = load_file(find_original(config_of(tmp_path)).path / WEIGHTS_FILE), wrapped.merge_and_unload()
    assert merged.keys() == load_file(base / WEIGHTS_FILE).keys()
    for name, value in expected.state_dict().items():
        np.testing.assert_allclose(merged[name.removeprefix("timm_model.")], value, atol=1e-5, rtol=1e-5, err_msg=name)


def with_head(home: Path, size: int) -> None:
    rewrite(home / "adapter", lambda tensors: tensors | {
        "base_model.model.classifier.weight": torch.randn(size, 64),
        "base_model.model.classifier.bias": torch.randn(size),
    })  # fmt: skip


def test_a_head_of_another_size_has_the_labels_beside_it_or_numbers(home: Path) -> None:
    with_head(home, 3)
    output = Manifest.read(prepare("ViT", config_of(home, roadwork_class_index=2), home / "models")).output
    assert (output.labels, output.index) == (["LABEL_0", "LABEL_1", "LABEL_2"], 2)
    labels = {"0": "car", "1": "roadwork", "2": "street"}
    settle(home / "adapter", "config.json", id2label=labels, hidden_size=1)  # the network's shape is the base's
    output = Manifest.read(prepare("ViT", config_of(home), home / "models")).output
    assert (output.labels, output.index) == (list(labels.values()), 1)
    with_head(home, 4)
    with pytest.raises(ModelError, match="id2label"):
        prepare("ViT", config_of(home), home / "models")


def test_pictures_are_prepared_as_the_adapter_says_or_else_as_its_base(home: Path) -> None:
    def mean() -> Any:
        folder = prepare("ViT", config_of(home), home / "models")
        return json.loads((folder / "preprocessor_config.json").read_text())["image_mean"]

    assert mean() == [0.5, 0.5, 0.5]
    shutil.copy(home / "base" / "preprocessor_config.json", home / "adapter")
    settle(home / "adapter", "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    assert mean() == [0.4, 0.4, 0.4]


def test_a_base_with_a_processor_of_several_parts_says_how_its_pictures_are_prepared(home: Path) -> None:
    processor = json.loads((home / "base" / "preprocessor_config.json").read_text())
    (home / "base" / "preprocessor_config.json").unlink()
    whole = {"image_processor": processor, "processor_class": "SomeProcessor"}  # as transformers 5 saves it
    (home / "base" / "processor_config.json").write_text(json.dumps(whole))
    merged = find_original(config_of(home)).path
    assert ProcessorConfig.read(merged).image_mean == processor["image_mean"]


def test_weights_of_a_model_beside_an_adapter_are_served_as_they_are(home: Path) -> None:
    shutil.copytree(home / "base", home / "adapter", dirs_exist_ok=True)
    one, other = (
        Manifest.read(prepare("ViT", DetectorConfig(hf_repo=str(home / name), path=home / "x.yaml"), home / "models"))
        for name in ("adapter", "base")
    )
    assert one.known_answer == other.known_answer
    assert one.revision.startswith("local-")


KEYS: list[tuple[str, Any]] = [
    ("peft_type", "LOHA"),
    ("use_dora", True),
    ("lora_bias", True),
    ("target_parameters", ["classifier.weight"]),
    ("layer_replication", [[0, 1]]),
    ("init_lora_weights", "pissa_niter_4"),
    ("a_key_of_tomorrow", True),
    ("r", 0),
    ("rank_pattern", {"(": 3}),
    ("alpha_pattern", {"query": "many"}),
    ("base_model_name_or_path", None),
    ("base_model_name_or_path", "./nowhere"),
]


@pytest.mark.parametrize(("key", "value"), KEYS)
def test_an_adapter_that_is_not_merged_is_refused_by_key_and_value(home: Path, key: str, value: Any) -> None:
    settle(home / "adapter", **{key: value})
    with pytest.raises((ModelError, DetectorConfigError)) as caught:
        prepare("ViT", config_of(home), home / "models")
    assert ADAPTER_CONFIG in str(caught.value) or key == "base_model_name_or_path"
    assert str(value if isinstance(value, str) else key) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (home / "models").exists() or not list((home / "models").rglob("manifest.json"))


PREFIX = "base_model.model."
QUERY = f"{PREFIX}vit.encoder.layer.0.attention.attention.query.lora_"
# What is put in place of the adapter's weights of these names (None: taken away), and what the refusal names.
WEIGHTS: dict[str, tuple[dict[str, tuple[int, ...] | None], str]] = {
    "of another network": (
        {f"{PREFIX}coder.0.lora_A.weight": (8, 64), f"{PREFIX}coder.0.lora_B.weight": (64, 8)},
        "coder",
    ),
    "a whole weight of another network": ({f"{PREFIX}x.bias": (2,)}, "x.bias"),
    "an embedding's": ({f"{QUERY}embedding_A": (8, 2)}, "lora_embedding_A"),
    "half a pair": ({f"{QUERY}A.weight": None}, "lora_B"),
    "another width": ({f"{QUERY}A.weight": (8, 32)}, r"\(8, 32\)"),
    "another rank": ({f"{QUERY}B.weight": (64, 4)}, r"\(64, 4\)"),
    "another head": ({f"{PREFIX}classifier.weight": (2, 5)}, r"\(2, 5\)"),
    "a bias of another size": ({f"{PREFIX}vit.layernorm.bias": (65,)}, r"\(65,\)"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_fit_no_base_are_refused_by_name(home: Path, case: str) -> None:
    changes, named = WEIGHTS[case]
    new = {name: torch.zeros(*shape) for name, shape in changes.items() if shape is not None}
    rewrite(home / "adapter", lambda all_: {name: value for name, value in all_.items() if name not in changes} | new)
    with pytest.raises(ModelError, match=named):
        prepare("ViT", config_of(home), home / "models")


def test_weights_without_a_number_and_an_adapter_without_weights_are_refused(home: Path) -> None:
    rewrite(home / "adapter", lambda all_: {name: value * torch.nan for name, value in all_.items()})
    with pytest.raises(ModelError, match="NaN"):
        prepare("ViT", config_of(home), home / "models")
    rewrite(home / "adapter", lambda _: {f"{PREFIX}classifier.original_module.bias": torch.zeros(2)})
    with pytest.raises(ModelError, match=ADAPTER_FILE):
        prepare("ViT", config_of(home), home / "models")


def test_a_base_that_is_none_is_refused(home: Path) -> None:
    (home / "adapter" / ADAPTER_FILE).rename(home / "adapter" / "adapter_model.bin")
    with pytest.raises(ModelError, match=ADAPTER_FILE):
        prepare("ViT", config_of(home), home / "models")
    (home / "adapter" / "adapter_model.bin").rename(home / "adapter" / ADAPTER_FILE)
    shutil.copytree(home / "adapter", home / "second")
    settle(home / "adapter", base_model_name_or_path="../second")
    with pytest.raises(ModelError, match="second"):
        prepare("ViT", config_of(home), home / "models")
    settle(home / "adapter", base_model_name_or_path="../base")
    (home / "base" / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelError, match=WEIGHTS_FILE):
        prepare("ViT", config_of(home), home / "models")
