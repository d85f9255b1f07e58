"""What `train --watch` shows of a run, on 80 columns."""

from pathlib import Path

import pytest
from rich.console import Console, Group

from detectors.console import BarState
from detectors.training.progress import ResourceRow, RunView
from miner.cli.train_watch import chart, frame_of, means

HISTORY = [
    {"epoch": 0.5, "loss": 0.7}, {"epoch": 1.0, "loss": 0.4},
    {"epoch": 1.0, "eval_loss": 0.6, "eval_accuracy": 0.83, "eval_reward": 0.4},
    {"epoch": 12.0, "eval_loss": 0.5, "eval_accuracy": 1.0, "eval_reward": 0.7},
    {"epoch": 13.0, "eval_loss": 0.5, "eval_accuracy": 0.92, "eval_reward": 0.7},
]  # fmt: skip
BAR = BarState("training", 1234, 45_678, "loss 0.412, accuracy 91%", 7 * 3600.0)
RUNNING = RunView(
    Path("runs/one"), "running", "", "ViT lite2, head", 40, 1000.0, 4600.0, BAR, ["2 threads [x]"], HISTORY,
    [ResourceRow(1.5, 2e9, 8e9, 0.25)] * 100,
)  # fmt: skip
BEGUN = RunView(Path("runs/one"), "running", "", "YOLOClassifier small, full", 40, 1000.0, 1001.0, None)
KILLED = RunView(Path("one"), "killed", "--resume goes on", "ViT lite2, head", 40, None, 4600.0, None, (), HISTORY)


def shown(view: RunView, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False)
    frame = frame_of(view, lambda: 4700.0)
    with console.capture() as capture:
        console.print(Group(frame.head, frame.content))
    return capture.get()


@pytest.mark.parametrize("width", [80, 76])
def test_all_of_a_run_fits_80_columns(width: int) -> None:
    text = shown(RUNNING, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for part in (
        "Running", "one", "ViT lite2, head", "training: 1234 of 45678, loss 0.412, accuracy 91%, 7.0 h left",
        "last 92.0%, best 100.0% at 12", "1.5 cores", "2.0 of 10 GB", "25%", "2 threads [x]",
        "started 62 min before",
    ):  # fmt: skip
        assert part in text


def test_the_curves_stand_in_the_first_screen() -> None:
    lines = shown(RUNNING).splitlines()
    accuracy = next(number for number, line in enumerate(lines) if "Validation accuracy" in line)
    assert accuracy < 6
    assert " 1.00" in lines[accuracy + 2]
    assert " 0.80" in lines[accuracy + 8]


def test_a_run_that_has_just_begun_or_was_killed_is_shown_as_far_as_it_got() -> None:
    begun = shown(BEGUN)
    for part in ("Running", "starting", "none yet", "nothing measured yet"):
        assert part in begun
    killed = shown(KILLED)
    for part in ("Killed", "--resume goes on", "92.0%"):
        assert part in killed


def test_a_chart_goes_from_corner_to_corner() -> None:
    lines = chart({"red": [(0.0, 0.0), (4.0, 1.0)]}, (0.0, 1.0), 4.0, 26, 6).plain.splitlines()
    assert [line[:6] for line in lines] == [" 1.00 ", "      ", "      ", "      ", " 0.00 ", "      "]
    curve = [line[6:] for line in lines[:5]]
    assert curve[0].rstrip()[-1] != " "
    assert len(curve[0].rstrip()) == 20
    assert curve[-1][0] != " "
    assert [len(line) - len(line.lstrip()) for line in curve] == sorted(
        (len(line) - len(line.lstrip()) for line in curve), reverse=True
    )
    assert lines[-1].endswith("4")


def test_charts_of_a_run_have_the_same_epochs_and_a_single_point_is_seen() -> None:
    half = chart({"red": [(0.0, 0.0), (2.0, 1.0)]}, (0.0, 1.0), 4.0, 26, 6).plain.splitlines()
    assert max(len(line.rstrip()) for line in half[:5]) == pytest.approx(6 + 10, abs=1)
    one = chart({"red": [(2.0, 0.5)]}, (0.0, 1.0), 4.0, 26, 6).plain
    dots = sum((ord(character) - 0x2800).bit_count() for character in one if ord(character) >= 0x2800)
    assert dots == 9


def test_a_chart_of_one_value_or_none_is_one() -> None:
    for points in ([], [(0.0, 0.5)]):
        assert len(chart({"red": points}, (0.5, 0.5), 1.0, 26, 6).plain.splitlines()) == 6


def test_neighbours_become_their_mean() -> None:
    assert means([1, 3, 5, 7], 2) == [2, 6]
    assert means([1, 2], 38) == [1, 2]
    assert means([]) == []
