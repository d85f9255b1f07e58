"""Plots show all they have, even where a run holds little: nothing is cut or covered, and shares end at 1."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from detectors.evaluation import plots
from tests.plots import look_through

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS = {"train": {"no_roadwork": 6, "roadwork": 3}, "val": {"no_roadwork": 2, "roadwork": 1}}
LARGE = {"train": {"no_roadwork": 118_000, "roadwork": 61_200}, "test": {"no_roadwork": 250, "roadwork": 140}}
HISTORY = [
    {"epoch": 0.5, "loss": 0.7}, {"epoch": 1.0, "loss": 0.6},
    {"epoch": 1.0, "eval_loss": 0.65, "eval_accuracy": 0.8, "eval_reward": 0.4},
    {"epoch": 2.0, "eval_loss": 0.6, "eval_accuracy": 1.0, "eval_reward": 1.0},
]  # fmt: skip
LABELS, PROBABILITIES = np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 1.0, 0.3])
ROWS = [
    ("accuracy", "86.5% (82.9% to 89.7%)"),
    ("expected reward", "0.612 (0.521 to 0.698)"),
    ("method", "lora"),
    ("epochs", "13 of at most 300; no better validation in 8 epochs, and the time is over"),
]
ANSWERS = {"starter": PROBABILITIES, "someone--roadwork-vit-base-patch16": PROBABILITIES, "yolo11n": 1 - PROBABILITIES}
MODEL = "run-of-november-with-a-long-name: ViT someone/roadwork-vit-base-patch16-224-in21k-finetuned, lora"
FIGURES: dict[str, "Callable[[Path], Figure]"] = {
    "classes": lambda path: plots.class_balance(LARGE, path, MODEL),
    "few photos": lambda path: plots.class_balance(COUNTS, path),
    "curves": lambda path: plots.training_curves(HISTORY, path, MODEL),
    "no curves": lambda path: plots.training_curves([], path),
    "confusion": lambda path: plots.confusion_matrix(LABELS, PROBABILITIES, path, MODEL),
    "reliability": lambda path: plots.reliability_diagram(LABELS, PROBABILITIES, path, "run1: ViT lite2, head"),
    "card": lambda path: plots.summary_card(MODEL, ROWS, LARGE, HISTORY, LABELS, PROBABILITIES, path),
    "one model": lambda path: plots.draw(LABELS, {"starter": PROBABILITIES}, path),
    "three models": lambda path: plots.draw(LABELS, ANSWERS, path),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_plot_is_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plots" / "x.png"
    look_through(FIGURES[name](path))
    with Image.open(path) as picture:
        picture.load()
        assert picture.width > 300


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curves", "no curves", "reliability", "card", "three models"])
def test_axes_of_shares_end_at_0_and_1(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name](tmp_path / "x.png")
    shares = [axes for axes in figure.axes if "share" in axes.get_ylabel() or "0 to 1" in axes.get_ylabel()]
    assert shares
    assert {axes.get_ylim() for axes in shares} == {(0, 1)}
    assert {axes.get_xlim() for axes in shares if "probability" in axes.get_xlabel()} <= {(0, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "curves", "confusion", "reliability", "card", "three models"])
def test_titles_name_the_model(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name](tmp_path / "x.png")
    titles = [figure.get_suptitle(), *(axes.get_title(loc="left") for axes in figure.axes)]
    every = " ".join(titles).replace("\n", "").replace(" ", "")
    for model in ANSWERS if name == "three models" else ["lite2" if name == "reliability" else MODEL]:
        assert model.replace(" ", "") in every


@pytest.mark.slow
def test_a_dot_at_the_edge_is_drawn_whole(tmp_path: Path) -> None:
    (axes,) = FIGURES["reliability"](tmp_path / "x.png").axes
    (dots,) = axes.collections
    assert not dots.get_clip_on()
    assert max(dots.get_offsets()[:, 0]) == 1


@pytest.mark.slow
def test_files_are_what_their_names_say(tmp_path: Path) -> None:
    for suffix, begins in ((".svg", b"<?xml"), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
        path = tmp_path / f"x{suffix}"
        FIGURES["one model"](path)
        assert path.read_bytes().startswith(begins)


def test_exactly_one_half_is_drawn_as_no_roadwork() -> None:
    axes: Axes = plots.new_figure(4, 4).subplots()
    plots.draw_confusion(axes, LABELS, PROBABILITIES, 0.5)
    assert [text.get_text() for text in axes.texts] == ["2\n100.0%", "0\n0.0%", "1\n50.0%", "1\n50.0%"]
