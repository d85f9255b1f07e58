"""Train the starter detector: a small residual network, from scratch, on a few hundred photos with and without cones.

    python -m detectors.training.starter --data DIR --out DIR     # train on all photos and write a Hugging Face folder
    python -m detectors.training.starter --data DIR --folds 5     # measure by cross-validation instead

DIR holds one folder a class, `roadwork` and `no_roadwork`. Needs the extra `export` for torch and transformers.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from detectors.training.starter_data import BILINEAR, Photo, groups, load
from detectors.training.starter_views import recompressed, squared, training_view

SIZE = 192  # pixels a side
WIDTHS, DEPTHS = [16, 32, 64, 128], [2, 2, 2, 2]  # dense: depthwise convolutions train several times slower on a CPU
BATCH = 32
EPOCHS = 90  # the views never repeat, so that more epochs do not overfit
RATE, DECAY = 3e-3, 0.05  # high, for a network without pretrained weights
WARM_UP = 0.05  # of all steps
SMOOTHING = 0.05  # the colour rule that moves cones is not always right, nor is every label
AVERAGE = 0.98  # weights averaged over the last 50 steps or so are calmer than the last ones
THREADS = 2
MEAN, STD = 0.5, 0.5
VIEWS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "native": lambda picture: picture,
    "letterboxed 224 JPEG": lambda picture: recompressed(squared(picture, 224, letterbox=True), 75),
    "1920 wide": lambda picture: picture.resize((1920, round(1920 * picture.height / picture.width)), BILINEAR),
}


class Views:
    """Every augmented view of a training, numbered; each depends on nothing but the seed and its number."""

    def __init__(self, photos: Sequence[Photo], epochs: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._photos, self._seed = photos, seed
        self._order = np.concatenate([rng.permutation(len(photos)) for _ in range(epochs)])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng((self._seed, number))
        picture, label = training_view(self._photos, int(self._order[number]), SIZE, rng)
        return tensor(picture), label


def tensor(picture: Image.Image) -> torch.Tensor:
    """Preprocess as the published processor does: shape (3, SIZE, SIZE), values from -1 to 1."""
    pixels = np.asarray(picture.resize((SIZE, SIZE), BILINEAR), dtype=np.float32)
    return torch.from_numpy((pixels / 255 - MEAN) / STD).permute(2, 0, 1)


def network() -> torch.nn.Module:
    """Make the untrained network."""
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
    model = network().to(memory_format=torch.channels_last)  # a quarter faster
    averaging = get_ema_multi_avg_fn(AVERAGE)
    average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
    batches = DataLoader(Views(photos, epochs, seed), BATCH, num_workers=THREADS, drop_last=True)
    kernels = {"params": [value for value in model.parameters() if value.ndim > 1], "weight_decay": DECAY}
    others = {"params": [value for value in model.parameters() if value.ndim <= 1], "weight_decay": 0.0}  # norms
    optimiser = torch.optim.AdamW([kernels, others], RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=len(batches), pct_start=WARM_UP)
    task = progress.add_task(f"training on {len(photos)} photos", total=len(batches))
    model.train()
    for pixels, labels in batches:
        pixels = pixels.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the CPU knows it
            logits = model(pixels).logits
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)
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


def folds(photos: Sequence[Photo], count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the photos held out in each fold; near-identical ones stay together, and the classes stay balanced."""
    group, labels = np.array(groups(photos)), np.array([photo.label for photo in photos])
    rng, fold = np.random.default_rng(seed), np.full(len(photos), -1)
    for number in rng.permutation(np.unique(group)):
        members = group == number
        label = labels[members][0]
        sizes = [int(((fold == candidate) & (labels == label)).sum()) for candidate in range(count)]
        fold[members] = int(np.argmin(sizes))
    for number in range(count):
        yield np.flatnonzero(fold == number)


def cross_validate(photos: Sequence[Photo], epochs: int, seed: int, count: int, progress: Progress) -> None:
    """Print the accuracy on photos that the network has not seen, as they are and as validators may send them."""
    labels = np.array([photo.label for photo in photos])
    scores = {name: np.zeros(len(photos)) for name in VIEWS}
    erased = np.full(len(photos), np.nan)
    for number, held in enumerate(folds(photos, count, seed)):
        rest = [photo for index, photo in enumerate(photos) if index not in held]
        model = train(rest, epochs, seed + number, progress)
        for name, view in VIEWS.items():
            scores[name][held] = probabilities(model, [view(photos[index].picture) for index in held])
            right = (scores[name][held] > 0.5) == labels[held]
            progress.console.print(f"fold {number + 1}: {name}: {right.mean():.2%} of {len(held)}")
        for index in held:
            without = photos[index].erased
            if without is not None:
                erased[index] = probabilities(model, [without])[0]
    for name, score in scores.items():
        right = (score > 0.5) == labels
        low, high = wilson(int(right.sum()), len(right))
        sure = np.clip(score, 1e-6, 1 - 1e-6)
        loss = -np.mean(np.log(np.where(labels == 1, sure, 1 - sure)))
        progress.console.print(
            f"{name}: accuracy {right.mean():.2%} (95 % interval {low:.1%} to {high:.1%}), roadwork found "
            f"{right[labels == 1].mean():.2%}, others spared {right[labels == 0].mean():.2%}, log loss {loss:.3f}"
        )
    gone = erased[np.isfinite(erased)]
    progress.console.print(f"cones erased: {np.mean(gone > 0.5):.1%} of {len(gone)} still roadwork")
    native = zip(photos, scores["native"], strict=True)
    wrong = [f"{photo.name} {score:.2f}" for photo, score in native if (score > 0.5) != photo.label]
    progress.console.print("wrong: " + ", ".join(wrong))


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share."""
    share, z = right / total, 1.96
    middle, half = share + z**2 / (2 * total), z * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z**2 / total
    return float((middle - half) / scale), float((middle + half) / scale)


def save(model: torch.nn.Module, out: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json."""
    model.save_pretrained(out)
    size = {"height": SIZE, "width": SIZE}
    ViTImageProcessor(size=size, resample=BILINEAR, image_mean=[MEAN] * 3, image_std=[STD] * 3).save_pretrained(out)


def main() -> None:
    """Read the command line and train, or measure."""
    parser = argparse.ArgumentParser(prog="python -m detectors.training.starter", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds one folder a class: roadwork, no_roadwork")
    parser.add_argument("--out", type=Path, help="where the Hugging Face folder goes")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=0, help="cross-validate in so many folds, and write nothing")
    options = parser.parse_args()
    if not options.folds and options.out is None:
        parser.error("--out is needed, or --folds")
    torch.set_num_threads(THREADS)
    photos = load(options.data)
    with Progress() as progress:
        if options.folds:
            cross_validate(photos, options.epochs, options.seed, options.folds, progress)
        else:
            save(train(photos, options.epochs, options.seed, progress), options.out)


if __name__ == "__main__":
    main()
