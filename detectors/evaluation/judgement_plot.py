"""What models got right and how sure they were, side by side in one picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from detectors.evaluation.plots import draw_confusion, draw_reliability


def draw(labels: NDArray[np.int64], answers: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Draw a confusion matrix and a reliability diagram for each model."""
    figure = Figure(figsize=(4.5 * len(answers), 8), layout="constrained")
    grid = figure.subplots(2, len(answers), squeeze=False)
    for column, (name, probabilities) in enumerate(answers.items()):
        grid[0, column].set_title(name)
        draw_confusion(grid[0, column], labels, probabilities, 0.5)
        draw_reliability(grid[1, column], labels, probabilities)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
