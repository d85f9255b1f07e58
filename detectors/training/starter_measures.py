"""Measure the starter detector by cross-validation, on the photos as they are and as validators may send them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.progress import Progress

from detectors.training.starter_data import BILINEAR, Photo, folds
from detectors.training.starter_network import probabilities, train
from detectors.training.starter_views import recompressed, squared

Judged = tuple[NDArray[np.float64], NDArray[np.bool_]]  # probabilities of roadwork, labels


def _worn(picture: Image.Image) -> Image.Image:
    """Blur, add noise, and recompress."""
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64)
    noise = np.random.default_rng(0).normal(0, 10, pixels.shape)
    return recompressed(Image.fromarray(np.uint8((pixels + noise).clip(0, 255))), 50)


VIEWS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda picture: picture,
    "letterboxed 224 JPEG": lambda picture: recompressed(squared(picture, 224, letterbox=True), 75),
    "1920 wide": lambda picture: picture.resize((1920, round(1920 * picture.height / picture.width)), BILINEAR),
    "blurred, noisy, JPEG 50": _worn,
}
PARTS = "enlarged parts without cones"


def _parts(picture: Image.Image) -> list[Image.Image]:
    """Cut five parts out: the corners and the middle, 60 % of each side."""
    width, height = int(picture.width * 0.6), int(picture.height * 0.6)
    right, low = picture.width - width, picture.height - height
    corners = [(0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)]
    return [picture.crop((left, top, left + width, top + height)) for left, top in corners]


def cross_validate(photos: Sequence[Photo], epochs: int, seed: int, count: int, progress: Progress) -> None:
    """Print how well networks judge photos that they have not seen."""
    scores: dict[str, list[Judged]] = {name: [] for name in [*VIEWS, PARTS]}
    for number, held in enumerate(folds(photos, count, seed)):
        seen, unseen = [photos[index] for index in range(len(photos)) if index not in held], [photos[i] for i in held]
        model = train(seen, epochs, seed + number, progress)
        labels = np.array([photo.label == 1 for photo in unseen])
        for name, view in VIEWS.items():
            scores[name].append((probabilities(model, [view(photo.picture) for photo in unseen]), labels))
        parts = [part for photo in unseen if not photo.label for part in _parts(photo.picture)]
        scores[PARTS].append((probabilities(model, parts), np.zeros(len(parts), dtype=bool)))
        for photo, score in zip(unseen, scores["as they are"][-1][0], strict=True):
            if (score > 0.5) != photo.label:
                progress.console.print(f"fold {number + 1}: wrong: {photo.name} {score:.2f}")
        for name, judged in scores.items():
            progress.console.print(f"fold {number + 1}: {name}: {summary(*judged[-1])}")
    for name, judged in scores.items():
        every = np.concatenate([score for score, _ in judged]), np.concatenate([labels for _, labels in judged])
        progress.console.print(f"{name}: {summary(*every)}")


def summary(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> str:
    """Sum judgements up in words."""
    right = (scores > 0.5) == labels
    low, high = wilson(int(right.sum()), len(right))
    sure = np.clip(np.where(labels, scores, 1 - scores), 1e-6, 1)
    found = f"roadwork found {right[labels].mean():.1%}, " if labels.any() else ""
    return (
        f"{right.mean():.1%} of {len(right)} right (95 % interval {low:.1%} to {high:.1%}), {found}"
        f"others spared {right[~labels].mean():.1%}, log loss {-np.log(sure).mean():.3f}"
    )


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share."""
    share, z = right / total, 1.96
    middle, half = share + z**2 / (2 * total), z * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z**2 / total
    return float((middle - half) / scale), float((middle + half) / scale)
