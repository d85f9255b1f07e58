"""Plots of trainings and evaluations, and what all plots share: colours, legends, scales, files.

Each takes values and a path, so that none of them calculates what it shows, and returns the figure. Legends stand below
the axes, where they cover nothing, and shares and probabilities have axes from 0 to 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill, wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

CLASS_NAMES = ("no roadwork", "roadwork")
BINS = 10
DPI = 150
PADDING = 0.08  # inches
TITLE_WIDTH = 9  # characters of a title in an inch
NAME_WIDTH, VALUE_WIDTH = 44, 34  # characters, above an axes and beside its name
LEAST_LINES = 10
LEGEND_INCHES = 0.55  # below the axes, for ticks and the label of x
# Okabe and Ito's (2008), which colour-blind people tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#6B7280"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#E69F00", "#000000", "#F0E442")

Floats = NDArray[np.float64]


def class_balance(counts: Mapping[str, Mapping[str, int]], path: Path, model: str = "") -> Figure:
    """Draw how many photos of each class each part has."""
    figure = new_figure(5, 4, model)
    draw_class_balance(figure.subplots(), counts)
    return write(figure, path)


def training_curves(history: Sequence[Mapping[str, float]], path: Path, model: str = "") -> Figure:
    """Draw the losses and, below, accuracy and expected reward over the epochs, from a log of Trainer's kind."""
    figure = new_figure(6, 7, model)
    above, below = figure.subplots(2, 1)
    draw_losses(above, history)
    draw_scores(below, history)
    return write(figure, path)


def confusion_matrix(
    labels: NDArray[np.int64], probabilities: Floats, path: Path, model: str = "", threshold: float = 0.5
) -> Figure:
    """Draw actual against predicted classes; exactly the threshold counts as no roadwork, as with the validators."""
    figure = new_figure(5, 4.4, model)
    draw_confusion(figure.subplots(), labels, probabilities, threshold)
    return write(figure, path)


def reliability_diagram(labels: NDArray[np.int64], probabilities: Floats, path: Path, model: str = "") -> Figure:
    """Draw the actual share of roadwork over the predicted probability."""
    figure = new_figure(5, 4.8, model)
    draw_reliability(figure.subplots(), labels, probabilities)
    return write(figure, path)


def summary_card(
    model: str,
    rows: Sequence[tuple[str, str]],
    counts: Mapping[str, Mapping[str, int]],
    history: Sequence[Mapping[str, float]],
    labels: NDArray[np.int64],
    probabilities: Floats,
    path: Path,
) -> Figure:
    """Draw all of it on one page, with figures beside it."""
    figure = new_figure(13, 8, model)
    grid = figure.subplots(2, 3)
    draw_class_balance(grid[0, 0], counts)
    draw_losses(grid[0, 1], history)
    draw_scores(grid[0, 2], history)
    draw_confusion(grid[1, 0], labels, probabilities, 0.5)
    draw_reliability(grid[1, 1], labels, probabilities)
    axes = grid[1, 2]
    axes.axis("off")
    written = [(name, wrap(value, VALUE_WIDTH) or [""]) for name, value in rows]
    most = max(LEAST_LINES, sum(len(lines) for _, lines in written))
    number = 0
    for name, lines in written:
        axes.text(0.0, 1 - number / most, name, va="top", color=GREY, fontsize=9, transform=axes.transAxes)
        for line in lines:
            axes.text(0.4, 1 - number / most, line, va="top", fontsize=9, transform=axes.transAxes)
            number += 1
    return write(figure, path)


def draw(labels: NDArray[np.int64], answers: Mapping[str, NDArray[np.float64]], path: Path) -> Figure:
    """Draw a confusion matrix and a reliability diagram for each model."""
    figure = new_figure(4.6 * len(answers), 8.6)
    grid = figure.subplots(2, len(answers), squeeze=False)
    for column, (name, probabilities) in enumerate(answers.items()):
        draw_confusion(grid[0, column], labels, probabilities, 0.5)
        draw_reliability(grid[1, column], labels, probabilities)
        for row in (0, 1):
            title = f"{fill(name, NAME_WIDTH)}\n{grid[row, column].get_title(loc='left')}"
            grid[row, column].set_title(title, loc="left", fontsize=10)
    return write(figure, path)


def draw_class_balance(axes: Axes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Draw bars for each part."""
    kinds = list(dict.fromkeys(kind for part in counts.values() for kind in part))
    places = np.arange(len(counts))
    for number, (kind, colour) in enumerate(zip(kinds, (BLUE, ORANGE), strict=False)):
        heights = [part.get(kind, 0) for part in counts.values()]
        bars = axes.bar(places + 0.4 * number, heights, 0.38, label=kind.replace("_", " "), color=colour)
        axes.bar_label(bars, fmt=lambda count: f"{count:,.0f}", fontsize=8)
    axes.margins(y=0.1)
    axes.set_xticks(places + 0.2, list(counts))
    axes.set_ylabel("photos")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    titled(axes, "Photos of each class")
    legend_below(axes)


def draw_losses(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    """Draw what a training makes small."""
    _draw_curves(axes, history, {"loss": "training", "eval_loss": "validation"})
    axes.set_ylabel("loss")
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    titled(axes, "Loss")


def draw_scores(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    """Draw what a training is for."""
    _draw_curves(axes, history, {"eval_accuracy": "accuracy", "eval_reward": "expected reward"})
    axes.set_ylabel("from 0 to 1")
    axes.set_ylim(0, 1)
    titled(axes, "On photos kept for validation")


def _draw_curves(axes: Axes, history: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> None:
    """Draw lines over the epochs for the keys that the log has."""
    for (key, label), colour, style in zip(names.items(), (BLUE, ORANGE), ("-", "--"), strict=False):
        points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        if points:
            marker = "." if len(points) < 30 else None
            # A dot at 1 is whole, though half of it is beyond the axes.
            axes.plot(*zip(*points, strict=True), style, label=label, color=colour, marker=marker, clip_on=False)
    axes.set_xlabel("epoch")
    axes.set_xlim(0, max([entry["epoch"] for entry in history if "epoch" in entry], default=1.0))
    whole_numbers(axes)
    axes.grid(alpha=0.3)
    legend_below(axes)


def draw_confusion(axes: Axes, labels: NDArray[np.int64], probabilities: Floats, threshold: float) -> None:
    """Draw the four counts, with precision and recall; the colour is the share of the actual class."""
    predicted = (probabilities > threshold).astype(int)
    matrix = np.zeros((2, 2), dtype=int)
    np.add.at(matrix, (labels, predicted), 1)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    # Square cells would leave the layout's own boxes, and the label of y the figure.
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for half in (axes.axhline, axes.axvline):
        half(0.5, color="w", linewidth=2)  # cells of one colour are two all the same
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        axes.text(column, row, f"{count}\n{share:.1%}", ha="center", va="center", color="w" if share > 0.5 else "k")
    axes.set_xticks((0, 1), CLASS_NAMES)
    axes.set_yticks((0, 1), CLASS_NAMES, rotation=90, va="center")
    hits = matrix[1, 1]
    precision, recall = (hits / max(1, count) for count in (matrix[:, 1].sum(), matrix[1].sum()))
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    titled(axes, f"Precision {precision:.1%}, recall {recall:.1%}")


def draw_reliability(axes: Axes, labels: NDArray[np.int64], probabilities: Floats) -> None:
    """Draw the actual share of roadwork in each tenth of the probabilities, larger the more photos it stands for."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    axes.plot((0, 1), (0, 1), color=GREY, linestyle=":", label="ideal")
    tenths = [bins == number for number in np.unique(bins)]
    axes.scatter(
        [probabilities[inside].mean() for inside in tenths],
        [labels[inside].mean() for inside in tenths],
        s=[20 + 180 * inside.mean() for inside in tenths],
        color=BLUE, alpha=0.85, label="a tenth; larger: more photos", clip_on=False, zorder=3,
    )  # fmt: skip
    axes.set_xlabel("predicted probability of roadwork")
    axes.set_ylabel("actual share of roadwork")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    titled(axes, "Reliability")
    legend_below(axes)


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Return a figure of so many inches that is drawn without a screen, with what it is of above it."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=PADDING, h_pad=PADDING), dpi=DPI)
    FigureCanvasAgg(figure)
    if title:
        lines = fill(title, round(TITLE_WIDTH * width), break_on_hyphens=False)
        figure.suptitle(lines, x=PADDING / width, ha="left", fontsize=11, fontweight="bold")
    return figure


def legend_below(axes: Axes, columns: int = 2) -> None:
    """Name what is drawn, below the label of x; nothing where nothing is named."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        # So many inches, however high the axes are: a share of these would come to lie on the label.
        inches = axes.figure.dpi_scale_trans
        axes.legend(
            handles, names, loc="upper left", bbox_to_anchor=(0, 0), ncols=columns, fontsize=8, frameon=False,
            bbox_transform=axes.transAxes + ScaledTranslation(0, -LEGEND_INCHES, inches),
            borderaxespad=0, handlelength=2.4,
        )  # fmt: skip


def framed(*every: Axes) -> None:
    """Put a grid behind what is drawn, and its names below."""
    for axes in every:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        legend_below(axes)


def whole_numbers(axes: Axes) -> None:
    """Put ticks of x on whole numbers alone."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_seconds(axes: Axes) -> None:
    """Give y a logarithmic scale of seconds, with numbers as people write them."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def write(figure: Figure, path: Path) -> Figure:
    """Write a figure in the format that the name ends in, and return it; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return figure


def titled(axes: Axes, title: str) -> None:
    """Say above the axes what they show."""
    axes.set_title(title, loc="left", fontsize=10)
