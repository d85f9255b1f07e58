"""Measure the starter detector by cross-validation, on the photos as they are and as validators may send them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.progress import Progress

from detectors.estimates import share_estimate
from detectors.sending.changes import VIEWS as SENT
from detectors.sending.changes import sent
from detectors.sending.distortions import encoded
from detectors.sending.eras import opened
from detectors.training.starter_data import BILINEAR, Photo, folds
from detectors.training.starter_network import probabilities, train
from detectors.training.starter_views import recompressed, squared

Judged = tuple[NDArray[np.float64], NDArray[np.bool_]]  # probabilities of roadwork, labels


def _worn(picture: Image.Image) -> Image.Image:
    """Blur, add noise, and recompress."""
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64)
    noise = np.random.default_rng(0).normal(0, 10, pixels.shape)
    return recompressed(Image.fromarray(np.uint8((pixels + noise).clip(0, 255))), 50)


VIEWS: list[tuple[str, Callable[[Image.Image], Image.Image]]] = [
    ("as they are", lambda picture: picture),
    ("letterboxed 224 JPEG", lambda picture: recompressed(squared(picture, 224, letterbox=True), 75)),
    ("1920 wide", lambda picture: picture.resize((1920, round(1920 * picture.height / picture.width)), BILINEAR)),
    ("blurred, noisy, JPEG 50", _worn),
]
PARTS = "enlarged parts without cones"


def _parts(picture: Image.Image) -> list[Image.Image]:
    """Cut five parts out: the corners and the middle, 60 % of each side."""
    width, height = int(picture.width * 0.6), int(picture.height * 0.6)
    right, low = picture.width - width, picture.height - height
    corners = [(0, 0), (right, 0), (0, low), (right, low), (right // 2, low // 2)]
    return [picture.crop((left, top, left + width, top + height)) for left, top in corners]


def judge(photos: Sequence[Photo], held: NDArray[np.int64], epochs: int, seed: int) -> tuple[dict[str, Judged], str]:
    """Train without the held-out photos and judge those; return the judgements and the mistakes."""
    seen = [photo for index, photo in enumerate(photos) if index not in held]
    unseen = [photos[index] for index in held]
    with Progress(disable=True) as silent:  # the folds train side by side
        model = train(seen, epochs, seed, silent)
    return _judged(model, unseen, held)


def _judged(model: torch.nn.Module, unseen: Sequence[Photo], held: NDArray[np.int64]) -> tuple[dict[str, Judged], str]:
    """Judge photos that a network has not seen, as they are and changed; `held`: their numbers, which seed changes."""
    labels = np.array([photo.label == 1 for photo in unseen])
    judged = {name: (probabilities(model, [view(photo.picture) for photo in unseen]), labels) for name, view in VIEWS}
    for name in SENT:
        pictures = [
            opened(sent(encoded(photo.picture, 95), name, np.random.default_rng((0, int(number)))))
            for photo, number in zip(unseen, held, strict=True)
        ]
        judged[name] = probabilities(model, pictures), labels
    parts = [part for photo in unseen if not photo.label for part in _parts(photo.picture)]
    scores = judged[VIEWS[0][0]][0]
    wrong = [f"{p.name} {score:.2f}" for p, score in zip(unseen, scores, strict=True) if (score > 0.5) != p.label]
    return judged | {PARTS: (probabilities(model, parts), np.zeros(len(parts), dtype=bool))}, ", ".join(wrong)


def cross_validate(photos: Sequence[Photo], epochs: int, seed: int, count: int) -> None:
    """Print how well networks judge photos that they have not seen."""
    scores: dict[str, list[Judged]] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        held = list(folds(photos, count, seed))
        seeds = range(seed, seed + count)
        for number, (judged, wrong) in enumerate(pool.map(judge, repeat(photos), held, repeat(epochs), seeds), 1):
            print(f"fold {number}: wrong: {wrong}")
            for name, judgement in judged.items():
                print(f"fold {number}: {name}: {summary(*judgement)}", flush=True)
                scores.setdefault(name, []).append(judgement)
    for name, judgements in scores.items():
        every = np.concatenate([score for score, _ in judgements]), np.concatenate([label for _, label in judgements])
        print(f"{name}: {summary(*every)}")


def summary(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> str:
    """Sum judgements up in words."""
    right = (scores > 0.5) == labels
    share = share_estimate(right)
    sure = np.clip(np.where(labels, scores, 1 - scores), 1e-6, 1)
    found = f"roadwork found {right[labels].mean():.1%}, " if labels.any() else ""
    return (
        f"{right.mean():.1%} of {len(right)} right (95 % interval {share.low:.1%} to {share.high:.1%}), {found}"
        f"others spared {right[~labels].mean():.1%}, log loss {-np.log(sure).mean():.3f}"
    )
