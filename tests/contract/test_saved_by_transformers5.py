"""A model that transformers 5 has saved answers as it does there, though our environment has 4.57.

The tests write what transformers 5.24 writes; the answers that are stored here are those of its own pipeline, with its
processor on Pillow, of the same weights.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from detectors.backends.torch import ensure_torchvision, load_model
from detectors.builders.architecture import find_architecture
from detectors.errors import ModelError, ModelFileError
from detectors.export.export import prepare
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig
from detectors.models.hf_config import ModelConfig, ProcessorConfig
from detectors.models.manifest import Manifest
from detectors.network import ViT
from detectors.photos.image import decode
from detectors.photos.synthetic import parity_pictures
from detectors.training.hf_model import load

ensure_torchvision()

import transformers  # noqa: E402

pytestmark = pytest.mark.export

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
SIDE = 64
PLAIN = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": SIDE,
    "patch_size": 16,
}  # fmt: skip
SQUARE = {"do_resize": True, "size": {"height": SIDE, "width": SIDE}}
EDGE = {
    "do_resize": True, "size": {"shortest_edge": 72}, "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
}  # fmt: skip
HALF = {
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3
}  # fmt: skip
# Of each type: the class, its configuration, and the processor's file as transformers 5 writes it.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("ViT", PLAIN, SQUARE | HALF | {"image_processor_type": "ViTImageProcessor", "resample": 2}),
    # Its older self, by the same name, neither takes a shortest edge nor crops.
    "vit_msn": ("ViTMSN", PLAIN, EDGE | HALF | {"image_processor_type": "ViTImageProcessor", "resample": 2}),
    "swin": (
        "Swin",
        {"image_size": SIDE, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4},
        SQUARE | HALF | {"image_processor_type": "ViTImageProcessor", "resample": 3},
    ),
    "siglip": (
        "Siglip",
        {"vision_config": PLAIN},
        SQUARE | HALF | {"image_processor_type": "SiglipImageProcessor", "resample": 3, "do_convert_rgb": True},
    ),
    "dinov2": (
        "Dinov2",
        PLAIN,
        EDGE | HALF | {"image_processor_type": "BitImageProcessor", "resample": 3, "do_convert_rgb": True},
    ),
}
LABELS = {0: "None", 1: "Roadwork"}
# Probabilities of roadwork for `parity_pictures()`, by transformers 5.24.0 and torch 2.13.
ANSWERS: dict[str, tuple[float, ...]] = {
    "vit": (0.6720351, 0.6896554, 0.6955569, 0.6841316, 0.6816192, 0.6877254, 0.6893747, 0.6858949),
    "vit_msn": (0.6718532, 0.6696721, 0.641133, 0.6780274, 0.681325, 0.6835728, 0.6862898, 0.687342),
    "swin": (0.5964122, 0.5958099, 0.5967554, 0.5959284, 0.5981261, 0.5995157, 0.5998735, 0.6009709),
    "siglip": (0.7083657, 0.7082541, 0.7061626, 0.7074484, 0.712272, 0.7104894, 0.7150582, 0.7082064),
    "dinov2": (0.8611509, 0.8626648, 0.8565809, 0.8599337, 0.8587145, 0.8662541, 0.8637022, 0.8598203),
}


def make(kind: str, folder: Path) -> Path:
    """Write what transformers 4.57 writes, the same weights each time."""
    name, values, _ = MODELS[kind]
    config = transformers.CONFIG_MAPPING[kind](**values, id2label=LABELS, label2id={"None": 0, "Roadwork": 1})
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(value.shape)
            if value.ndim > 1:
                numbers /= value[0].numel() ** 0.5
            elif name.endswith("weight"):
                numbers = 1 + numbers / 10
            value.copy_(torch.from_numpy(numbers))
    model.save_pretrained(folder)
    return folder


def renew(kind: str, folder: Path) -> Path:
    """Make of that what transformers 5 writes."""
    weights = load_file(folder / WEIGHTS)
    if kind == "swin":  # it leaves out what follows from the configuration
        weights = {name: value for name, value in weights.items() if not name.endswith("relative_position_index")}
    if kind == "vit_msn":  # and this one's first names
        weights = {name.replace("vit.encoder.", "encoder."): value for name, value in weights.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    change(folder / CONFIG, transformers_version="5.24.0")
    processor = MODELS[kind][2]
    if kind == "siglip":  # a processor of several parts
        write(folder / "processor_config.json", {"image_processor": processor, "processor_class": "SiglipProcessor"})
    else:
        write(folder / PROCESSOR, processor)
    return folder


def write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values))


def change(path: Path, **values: Any) -> None:
    write(path, json.loads(path.read_text()) | values)


def served(folder: Path) -> list[float]:
    """Return the probabilities of a prepared folder's graph and preprocessing."""
    preprocess, run = ViT.read_preprocessing(folder), onnxruntime.InferenceSession(folder / MODEL_FILE).run
    logits = [run(None, {"pixel_values": preprocess(decode(data))})[0][0] for data in parity_pictures()]
    return [float(1 / (1 + np.exp(float(no) - float(yes)))) for no, yes in logits]


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_transformers_5_has_saved_answers_as_it_does_there(kind: str, tmp_path: Path) -> None:
    source = renew(kind, make(kind, tmp_path / kind))
    folder = prepare("ViT", DetectorConfig(hf_repo=str(source), path=source / "x.yaml"), tmp_path / "models")
    assert Manifest.read(folder).parity.max_difference < 1e-5
    assert np.abs(np.subtract(served(folder), ANSWERS[kind])).max() < 1e-5
    assert np.ptp(ANSWERS[kind]) > 1e-3  # or nothing of the picture came through


# By transformers 5's own names, which it writes if it is asked to (`save_original_format=False`): one of each part.
OWN_NAMES = {
    "vit": [
        (".encoder.layer.", ".layers."), ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"), ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
    ],
    "dinov2": [
        ("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"), ("attention.output.dense", "attention.o_proj"),
    ],
    "swin": [
        ("attention.self.query", "attention.q_proj"), ("attention.self.key", "attention.k_proj"),
        ("attention.self.value", "attention.v_proj"), ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
        ("attention.self.relative", "attention.relative_position_bias.relative"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", OWN_NAMES)
def test_its_own_names_of_weights_are_known(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path)
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = load_model(folder)(pixel_values=pixels).logits.numpy()
    renew(kind, folder)
    weights = load_file(folder / WEIGHTS)
    for older, newer in OWN_NAMES[kind]:
        weights = {name.replace(older, newer): value for name, value in weights.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with torch.no_grad():
        assert np.array_equal(load_model(folder)(pixel_values=pixels).logits.numpy(), expected)
    if architecture := find_architecture(ModelConfig.read(folder)):
        assert np.abs(architecture(folder).forward(pixels[0].numpy()) - expected).max() < 1e-5


def test_a_training_starts_from_a_swin_that_it_has_saved(tmp_path: Path) -> None:
    older, newer = make("swin", tmp_path / "older"), renew("swin", make("swin", tmp_path / "newer"))
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        first, second = (load(folder, 0).eval()(pixel_values=pixels).logits for folder in (older, newer))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("version", "name", "variant"),
    [
        ("4.57.6", "ViTImageProcessor", "slow"),
        (None, "ViTImageProcessor", "slow"),
        ("5.0.0.dev0", "ViTImageProcessor", "pil"),
        ("5.24.0", "SiglipImageProcessor", "pil"),
        ("5.24.0", "ViTImageProcessorFast", "fast"),
        ("5.24.0", "EfficientFormerImageProcessor", "slow"),  # which it no longer has
    ],
)
def test_a_bare_name_means_the_processor_of_whichever_version_has_saved_it(
    version: str | None, name: str, variant: str, tmp_path: Path
) -> None:
    write(tmp_path / CONFIG, {"model_type": "vit", "transformers_version": version})
    write(tmp_path / PROCESSOR, {"image_processor_type": name})
    read = ProcessorConfig.read(tmp_path)
    assert read.kind[1] == variant
    read.write(tmp_path)
    assert ProcessorConfig.read(tmp_path).kind == read.kind


def test_null_means_the_default_to_it(tmp_path: Path) -> None:
    write(tmp_path / CONFIG, {"model_type": "poolformer", "transformers_version": "5.24.0"})
    write(
        tmp_path / PROCESSOR, {"image_processor_type": "PoolFormerImageProcessor", "crop_pct": None, "resample": None}
    )
    values = ProcessorConfig.read(tmp_path).values()
    assert (values["crop_pct"], values["resample"]) == (0.9, 3)


def test_what_it_saves_and_nobody_could_answer_is_refused_by_name(tmp_path: Path) -> None:
    """A PVT's number of labels is 1000 whatever their names are, and so is its head's; PP-LCNet is unknown to 4.57."""
    write(tmp_path / CONFIG, {"model_type": "pvt", "id2label": LABELS, "num_labels": 1000})
    with pytest.raises(ModelFileError, match="num_labels=1000: id2label has 2 labels"):
        ModelConfig.read(tmp_path)
    write(tmp_path / CONFIG, {"model_type": "pp_lcnet", "transformers_version": "5.24.0"})
    write(tmp_path / PROCESSOR, {"image_processor_type": "PPLCNetImageProcessor"})
    with pytest.raises(ModelFileError, match="PPLCNetImageProcessor"):
        _ = ProcessorConfig.read(tmp_path).kind


def test_weights_whose_names_are_not_known_are_refused(tmp_path: Path) -> None:
    folder = make("vit", tmp_path)
    weights = {name.replace("vit.", "vit.tower."): value for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"vit\.embeddings"):
        load_model(folder)
