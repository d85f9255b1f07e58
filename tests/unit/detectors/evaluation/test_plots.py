"""Plots are drawn from what a run holds, even where it holds little."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from detectors.evaluation import plots

COUNTS = {"train": {"no_roadwork": 6, "roadwork": 3}, "val": {"no_roadwork": 2, "roadwork": 1}}
HISTORY = [
    {"epoch": 0.5, "loss": 0.7}, {"epoch": 1.0, "loss": 0.6},
    {"epoch": 1.0, "eval_loss": 0.65, "eval_accuracy": 0.8, "eval_reward": 0.4},
]  # fmt: skip
LABELS, PROBABILITIES = np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 1.0, 0.3])


@pytest.mark.slow
def test_every_plot_is_a_picture(tmp_path: Path) -> None:
    plots.class_balance(COUNTS, tmp_path / "plots" / "balance.png")
    plots.training_curves(HISTORY, tmp_path / "curves.png")
    plots.training_curves([], tmp_path / "no-curves.png")
    plots.confusion_matrix(LABELS, PROBABILITIES, tmp_path / "confusion.png")
    plots.reliability_diagram(LABELS, PROBABILITIES, tmp_path / "reliability.png")
    plots.summary_card("A run", [("accuracy", "75 %")], COUNTS, HISTORY, LABELS, PROBABILITIES, tmp_path / "card.png")
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert picture.width > 300
    assert len(list(tmp_path.rglob("*.png"))) == 6


def test_exactly_one_half_is_drawn_as_no_roadwork() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    plots.draw_confusion(axes, LABELS, PROBABILITIES, 0.5)
    assert [text.get_text() for text in axes.texts] == ["2\n100.0%", "0\n0.0%", "1\n50.0%", "1\n50.0%"]
