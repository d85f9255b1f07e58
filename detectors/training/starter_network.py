"""The network of the starter detector: made, trained, asked and saved."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from detectors.exporters.torchvision_cpu import ensure_torchvision
from detectors.training.starter_data import BILINEAR, Photo
from detectors.training.starter_views import training_view

SIZE = 160  # pixels a side
WIDTHS, DEPTHS = [16, 32, 64, 128], [2, 2, 2, 2]  # dense: depthwise convolutions train several times slower on a CPU
BATCH = 32
RATE, DECAY = 3e-3, 0.05  # high, for a network without pretrained weights
WARM_UP = 0.05  # of all steps
BALANCE = [1.25, 0.75]  # of the classes in the loss: roads vary more than these photos do, so a cone must be clear
SMOOTHING = 0.05  # not every label is right
AVERAGE = 0.98  # weights averaged over the last 50 steps or so are calmer than the last ones
MEAN, STD = 0.5, 0.5


class Views:
    """Every augmented view of a training, numbered; each depends on nothing but the seed and its number."""

    def __init__(self, photos: Sequence[Photo], epochs: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._photos, self._seed = photos, seed
        self._order = np.concatenate([rng.permutation(len(photos)) for _ in range(epochs)])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        photo = self._photos[int(self._order[number])]
        return tensor(training_view(photo, SIZE, np.random.default_rng((self._seed, number)))), photo.label


def tensor(picture: Image.Image) -> torch.Tensor:
    """Preprocess as the published processor does: shape (3, SIZE, SIZE), values from -1 to 1."""
    pixels = np.asarray(picture.resize((SIZE, SIZE), BILINEAR), dtype=np.float32)
    return torch.from_numpy((pixels / 255 - MEAN) / STD).permute(2, 0, 1)


def network() -> torch.nn.Module:
    """Make the untrained network."""
    ensure_torchvision()
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=WIDTHS[0],
        hidden_sizes=WIDTHS,
        depths=DEPTHS,
        layer_type="basic",
        id2label={0: "None", 1: "Roadwork"},
        label2id={"None": 0, "Roadwork": 1},
        problem_type="single_label_classification",
    )
    model: torch.nn.Module = ResNetForImageClassification(config)
    return model


def train(photos: Sequence[Photo], epochs: int, seed: int, progress: Progress) -> torch.nn.Module:
    """Fit a network to the photos and return it with averaged weights."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # on a busy machine two are slower than one
    model = network().to(memory_format=torch.channels_last)  # a quarter faster
    averaging = get_ema_multi_avg_fn(AVERAGE)
    average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
    batches = DataLoader(Views(photos, epochs, seed), BATCH, num_workers=1, drop_last=True)
    kernels = {"params": [value for value in model.parameters() if value.ndim > 1], "weight_decay": DECAY}
    others = {"params": [value for value in model.parameters() if value.ndim <= 1], "weight_decay": 0.0}  # norms
    optimiser = torch.optim.AdamW([kernels, others], RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=len(batches), pct_start=WARM_UP)
    task = progress.add_task(f"training on {len(photos)} photos", total=len(batches))
    balance = torch.tensor(BALANCE)
    model.train()
    for pixels, labels in batches:
        pixels = pixels.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the CPU knows it
            logits = model(pixels).logits
        loss = functional.cross_entropy(logits.float(), labels, balance, label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        progress.update(task, advance=1, description=f"training on {len(photos)} photos, loss {loss.item():.3f}")
    progress.remove_task(task)
    trained: torch.nn.Module = average.module
    return trained.eval()


def probabilities(model: torch.nn.Module, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Return the probability of roadwork for each picture."""
    with torch.inference_mode():
        values = [model(tensor(picture)[None]).logits.softmax(1)[0, 1].item() for picture in pictures]
    return np.array(values)


def save(model: torch.nn.Module, out: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json."""
    from transformers import ViTImageProcessor

    model.save_pretrained(out)
    size = {"height": SIZE, "width": SIZE}
    ViTImageProcessor(size=size, resample=BILINEAR, image_mean=[MEAN] * 3, image_std=[STD] * 3).save_pretrained(out)
