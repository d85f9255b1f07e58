"""A tiny DINOv2 with registers made without torch, and what transformers' pipeline says with it."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SIZE, LAYERS, REGISTERS, PATCH, TRAINED, SIDE = 32, 2, 3, 14, 126, 224
# Probabilities of roadwork for `detectors.photos.synthetic.parity_pictures()`, by transformers and torch.
ANSWERS = (0.105075, 0.887749, 0.574279, 0.309594, 0.746322, 0.460416, 0.886689, 0.496815)


def write_stored_dinov2(folder: Path) -> Path:
    """Write a `Dinov2WithRegistersForImageClassification` folder, the same weights each time.

    Its positions are for smaller pictures than its preprocessing gives.
    """
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0).standard_normal
    model, inner = "dinov2_with_registers.", 4 * SIZE
    weights = {
        "embeddings.cls_token": draw((1, 1, SIZE)),
        "embeddings.mask_token": draw((1, SIZE)),
        "embeddings.register_tokens": draw((1, REGISTERS, SIZE)),
        "embeddings.position_embeddings": draw((1, (TRAINED // PATCH) ** 2 + 1, SIZE)),
        "embeddings.patch_embeddings.projection.weight": draw((SIZE, 3, PATCH, PATCH)) * 0.05,
        "embeddings.patch_embeddings.projection.bias": draw(SIZE) * 0.1,
        "layernorm.weight": 1 + draw(SIZE) * 0.1,
        "layernorm.bias": draw(SIZE) * 0.1,
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        shapes = {f"attention.attention.{part}": (SIZE, SIZE) for part in ("query", "key", "value")} | {
            "attention.output.dense": (SIZE, SIZE), "mlp.fc1": (inner, SIZE), "mlp.fc2": (SIZE, inner),
        }  # fmt: skip
        for name, shape in shapes.items():
            weights[f"{layer}{name}.weight"] = draw(shape) * 0.3
            weights[f"{layer}{name}.bias"] = draw(shape[0]) * 0.1
        for name in ("norm1", "norm2"):
            weights[f"{layer}{name}.weight"] = 1 + draw(SIZE) * 0.1
            weights[f"{layer}{name}.bias"] = draw(SIZE) * 0.1
        for name in ("layer_scale1", "layer_scale2"):
            weights[f"{layer}{name}.lambda1"] = draw(SIZE)
    named = {model + name: value for name, value in weights.items()} | {
        "classifier.weight": draw((2, 2 * SIZE)),
        "classifier.bias": draw(2) * 0.1 + (-2.7, 2.7),  # so that the answers lie around a half
    }
    save_file({name: value.astype(np.float32) for name, value in named.items()}, folder / "model.safetensors")
    config = {
        "architectures": ["Dinov2WithRegistersForImageClassification"], "model_type": "dinov2_with_registers",
        "hidden_act": "gelu", "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "mlp_ratio": 4, "image_size": TRAINED, "patch_size": PATCH, "num_register_tokens": REGISTERS,
        "id2label": {"0": "None", "1": "Roadwork"}, "label2id": {"None": 0, "Roadwork": 1},
    }  # fmt: skip
    processor = {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
