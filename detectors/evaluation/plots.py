"""Plots of trainings and evaluations, as PNG files.

Each takes values and a path, so that none of them calculates what it shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

CLASS_NAMES = ("no roadwork", "roadwork")
BINS = 10
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"

Floats = NDArray[np.float64]


def class_balance(counts: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """Draw how many photos of each class each part has."""
    figure, axes = _figure()
    draw_class_balance(axes, counts)
    _save(figure, path)


def training_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the losses and, below, accuracy and expected reward over the epochs, from a log of Trainer's kind."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    draw_curves(above, history, {"loss": "training loss", "eval_loss": "validation loss"})
    draw_curves(below, history, {"eval_accuracy": "validation accuracy", "eval_reward": "expected reward"})
    below.set_xlabel("epoch")
    below.set_ylim(0, 1.02)
    _save(figure, path)


def confusion_matrix(labels: NDArray[np.int64], probabilities: Floats, path: Path, threshold: float = 0.5) -> None:
    """Draw actual against predicted classes; exactly the threshold counts as no roadwork, as with the validators."""
    figure, axes = _figure(4.2)
    draw_confusion(axes, labels, probabilities, threshold)
    _save(figure, path)


def reliability_diagram(labels: NDArray[np.int64], probabilities: Floats, path: Path) -> None:
    """Draw the actual share of roadwork over the predicted probability."""
    figure, axes = _figure(4.2)
    draw_reliability(axes, labels, probabilities)
    _save(figure, path)


def summary_card(
    title: str,
    rows: Sequence[tuple[str, str]],
    counts: Mapping[str, Mapping[str, int]],
    history: Sequence[Mapping[str, float]],
    labels: NDArray[np.int64],
    probabilities: Floats,
    path: Path,
) -> None:
    """Draw all of it on one page, with figures beside it."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, 3)
    draw_class_balance(grid[0, 0], counts)
    draw_curves(grid[0, 1], history, {"loss": "training loss", "eval_loss": "validation loss"})
    grid[0, 1].set_xlabel("epoch")
    draw_curves(grid[0, 2], history, {"eval_accuracy": "validation accuracy", "eval_reward": "expected reward"})
    grid[0, 2].set_xlabel("epoch")
    draw_confusion(grid[1, 0], labels, probabilities, 0.5)
    draw_reliability(grid[1, 1], labels, probabilities)
    axes = grid[1, 2]
    axes.axis("off")
    for number, (name, value) in enumerate(rows):
        axes.text(0.0, 1 - number / max(10, len(rows)), name, va="top", color=GREY, fontsize=9)
        axes.text(0.45, 1 - number / max(10, len(rows)), value, va="top", fontsize=9)
    _save(figure, path)


def draw_class_balance(axes: Axes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Draw bars for each part."""
    kinds = list(dict.fromkeys(kind for part in counts.values() for kind in part))
    places = np.arange(len(counts))
    for number, (kind, colour) in enumerate(zip(kinds, (BLUE, ORANGE), strict=False)):
        heights = [part.get(kind, 0) for part in counts.values()]
        bars = axes.bar(places + 0.4 * number, heights, 0.38, label=kind, color=colour)
        axes.bar_label(bars, fontsize=8)
    axes.set_xticks(places + 0.2, list(counts))
    axes.set_ylabel("photos")
    axes.legend(fontsize=8)


def draw_curves(axes: Axes, history: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> None:
    """Draw lines over the epochs for the keys that the log has."""
    for (key, label), colour in zip(names.items(), (BLUE, ORANGE), strict=False):
        points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker="." if len(points) < 30 else None)
    if axes.lines:
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def draw_confusion(axes: Axes, labels: NDArray[np.int64], probabilities: Floats, threshold: float) -> None:
    """Draw the four counts, with precision and recall; the colour is the share of the actual class."""
    predicted = (probabilities > threshold).astype(int)
    matrix = np.zeros((2, 2), dtype=int)
    np.add.at(matrix, (labels, predicted), 1)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        axes.text(column, row, f"{count}\n{share:.1%}", ha="center", va="center", color="w" if share > 0.5 else "k")
    axes.set_xticks((0, 1), CLASS_NAMES)
    axes.set_yticks((0, 1), CLASS_NAMES)
    hits = matrix[1, 1]
    precision, recall = (hits / max(1, count) for count in (matrix[:, 1].sum(), matrix[1].sum()))
    axes.set_xlabel(f"predicted\nprecision {precision:.1%}, recall {recall:.1%}")
    axes.set_ylabel("actual")


def draw_reliability(axes: Axes, labels: NDArray[np.int64], probabilities: Floats) -> None:
    """Draw the actual share of roadwork in each tenth of the probabilities, larger the more photos it stands for."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    axes.plot((0, 1), (0, 1), color=GREY, linestyle=":")
    for number in np.unique(bins):
        inside = bins == number
        size = 20 + 180 * inside.mean()
        axes.scatter(probabilities[inside].mean(), labels[inside].mean(), s=size, color=BLUE)
    axes.set_xlabel("predicted probability of roadwork")
    axes.set_ylabel("actual share of roadwork")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)


def _figure(height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def draw(labels: NDArray[np.int64], answers: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Draw a confusion matrix and a reliability diagram for each model."""
    figure = Figure(figsize=(4.5 * len(answers), 8), layout="constrained")
    grid = figure.subplots(2, len(answers), squeeze=False)
    for column, (name, probabilities) in enumerate(answers.items()):
        grid[0, column].set_title(name)
        draw_confusion(grid[0, column], labels, probabilities, 0.5)
        draw_reliability(grid[1, column], labels, probabilities)
    _save(figure, path)
