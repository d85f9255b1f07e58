"""A tiny ViT made without torch, and what transformers' pipeline says with it: the reference where torch is missing."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SIZE, LAYERS, INNER, PATCH, SIDE = 32, 2, 64, 16, 224
# Probabilities of roadwork for `detectors.photos.synthetic.parity_pictures()`, by transformers and torch.
ANSWERS = (0.796752, 0.842328, 0.620254, 0.670722, 0.483497, 0.641262, 0.144694, 0.492651)


def write_stored_vit(folder: Path) -> Path:
    """Write a `ViTForImageClassification` folder, the same weights each time."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0).standard_normal
    weights = {
        "vit.embeddings.cls_token": draw((1, 1, SIZE)),
        "vit.embeddings.position_embeddings": draw((1, (SIDE // PATCH) ** 2 + 1, SIZE)) * 0.1,
        "vit.embeddings.patch_embeddings.projection.weight": draw((SIZE, 3, PATCH, PATCH)) * 0.05,
        "vit.embeddings.patch_embeddings.projection.bias": draw(SIZE) * 0.1,
        "vit.layernorm.weight": 1 + draw(SIZE) * 0.1,
        "vit.layernorm.bias": draw(SIZE) * 0.1,
        "classifier.weight": draw((2, SIZE)),
        "classifier.bias": draw(2) * 0.1 + (3.2, -3.2),  # so that the answers lie apart
    }
    for number in range(LAYERS):
        layer = f"vit.encoder.layer.{number}."
        shapes = {f"attention.attention.{part}": (SIZE, SIZE) for part in ("query", "key", "value")} | {
            "attention.output.dense": (SIZE, SIZE), "intermediate.dense": (INNER, SIZE), "output.dense": (SIZE, INNER),
        }  # fmt: skip
        for name, shape in shapes.items():
            weights[f"{layer}{name}.weight"] = draw(shape) * 0.3
            weights[f"{layer}{name}.bias"] = draw(shape[0]) * 0.1
        for name in ("layernorm_before", "layernorm_after"):
            weights[f"{layer}{name}.weight"] = 1 + draw(SIZE) * 0.1
            weights[f"{layer}{name}.bias"] = draw(SIZE) * 0.1
    save_file({name: value.astype(np.float32) for name, value in weights.items()}, folder / "model.safetensors")
    config = {
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_act": "gelu",
        "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": INNER,
        "image_size": SIDE, "patch_size": PATCH, "num_channels": 3, "qkv_bias": True, "layer_norm_eps": 1e-6,
        "id2label": {"0": "None", "1": "Roadwork"}, "label2id": {"None": 0, "Roadwork": 1},
    }  # fmt: skip
    processor = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": SIDE, "width": SIDE},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
