"""Models and pictures made for tests, and the full-size ViT-base of `make vit-base`."""

import io
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detectors.photos.synthetic import scene

LABELS = {0: "None", 1: "Roadwork"}
ORIENTATION = 0x0112  # the EXIF tag


def photo(
    width: int, height: int, *, mode: str = "RGB", orientation: int = 1, kind: str = "JPEG", seed: int = 3
) -> bytes:
    """Return an encoded street-like picture."""
    picture = Image.fromarray(scene(width, height, seed)).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=92, exif=exif)
    return buffer.getvalue()


def make_vit(folder: Path, *, full_size: bool = False, labels: dict[int, str] = LABELS, **values: Any) -> Path:
    """Write a ViT with random weights and a head that tells pictures apart; `values` are of transformers' ViTConfig."""
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = ViTConfig(
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        **(({} if full_size else small) | values),
    )
    model = ViTForImageClassification(config).eval()
    _spread(model.classifier, lambda: model(_scenes() * 2 - 1))
    model.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return folder


def make_resnet(folder: Path) -> Path:
    """Write a tiny ResNet, whose batch norms keep running statistics, with random weights."""
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    labels = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**labels, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def make_pair(repository: Path, *, full_size: bool = False) -> Path:
    """Write a ConvNeXtV2 and a DINOv2 with registers, the published pair's architectures, as two subfolders."""
    from detectors.backends.torch import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import (
        BitImageProcessor,
        ConvNextImageProcessor,
        ConvNextV2Config,
        ConvNextV2ForImageClassification,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersForImageClassification,
    )

    torch.manual_seed(0)
    labels = {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}}
    sizes = {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]}
    small = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}
    first = ConvNextV2ForImageClassification(ConvNextV2Config(**labels, **(sizes if full_size else small))).eval()
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    size = {"image_size": 518, "patch_size": 14}  # as published: positions are stretched to 224
    config = Dinov2WithRegistersConfig(**labels, **size, **({} if full_size else small))
    second = Dinov2WithRegistersForImageClassification(config).eval()
    processors = ConvNextImageProcessor(size={"shortest_edge": 224}), BitImageProcessor(size={"shortest_edge": 256})
    for name, model, processor in zip(("convnextv2", "dinov2"), (first, second), processors, strict=True):
        _spread(model.classifier, lambda model=model: model(_scenes() * 2 - 1))
        model.save_pretrained(repository / name)
        processor.save_pretrained(repository / name)
    return repository


NAMES = {0: "no_roadwork", 1: "roadwork"}


def make_yolo(path: Path, *, classes: int = 2, names: dict[int, str] | None = None) -> Path:
    """Write a `yolo11n-cls` built from its YAML, with random weights and a head that tells pictures apart.

    Its class 1 stands for what differs between pictures, whatever the names say.
    """
    names = names or NAMES | {index: f"class {index}" for index in range(2, classes)}
    yolo = _yolo(len(names))
    yolo.model.names = names
    yolo.save(path)
    return path


@cache
def _yolo(classes: int) -> Any:
    """Return the network of `make_yolo`; once, since making it takes seconds."""
    from detectors.backends.torch import import_yolo

    yolo = import_yolo()("yolo11n-cls.yaml", verbose=False)
    import torch
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    model = yolo.model = ClassificationModel("yolo11n-cls.yaml", nc=classes, verbose=False)
    model.task = "classify"
    yolo.ckpt = {"train_args": {"imgsz": 224, "task": "classify"}}  # what `yolo classify train` writes
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = None  # the plain mean of what was seen, which one batch is enough for
    model.train()
    with torch.no_grad():
        model(_scenes())  # the batch's statistics, without which every picture looks alike
    model.eval()
    for norm in norms:
        norm.momentum = momentum
    _spread(model.model[-1].linear, lambda: model(_scenes()))
    return yolo


def _scenes() -> Any:
    """Return pictures as a tensor of shape (8, 3, 224, 224), in [0, 1]."""
    import torch

    pictures = [scene(224, 224, seed).transpose(2, 0, 1) for seed in range(8)]
    return torch.from_numpy(np.stack(pictures).astype(np.float32) / 255)


def _spread(head: Any, run: Callable[[], object], logit: float = 3.0) -> None:
    """Point a linear head along what differs most between pictures, or a wrong preprocessing would go unnoticed."""
    import torch

    seen: list[Any] = []
    hook = head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    with torch.no_grad():
        run()
        hook.remove()
        features = seen[0]
        middle = features.mean(0)
        direction = torch.linalg.svd(features - middle, full_matrices=False).Vh[0]
        direction *= logit / ((features - middle) @ direction).std()
        row = min(1, len(head.weight) - 1)
        head.weight.zero_()
        head.weight[row] = direction
        head.bias.zero_()
        head.bias[row] = -(middle @ direction)


if __name__ == "__main__":
    print(f"{make_vit(Path(sys.argv[2]), full_size=True)}: put this path into a YAML file as hf_repo")
