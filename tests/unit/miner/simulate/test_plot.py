"""The plot of a simulation: every line has its name, and the legend covers no bar."""

import random
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from miner.errors import CouldNotStart
from miner.simulate.output import draw, plot_of
from miner.simulate.report import OUTCOMES, summed_up
from miner.simulate.schedule import Request
from miner.simulate.sender import SentAnswer
from tests.plots import look_through

pytestmark = pytest.mark.slow
PATIENCE = 9.0


def played(count: int) -> tuple[list[Request], list[SentAnswer]]:
    """Return requests, and answers of which most are sure and right, and some are lost in every way."""
    chance = random.Random(1)
    requests = [Request(number, number * 7.5, 0.0, number % 8, 0, chance.random() < 0.5) for number in range(count)]
    answers = []
    for request in requests:
        outcome = OUTCOMES[request.number % 50] if request.number % 50 < len(OUTCOMES) else "answered"
        said = chance.betavariate(9, 0.4) if request.is_roadwork else chance.betavariate(0.4, 9)
        seconds = {"answered": chance.uniform(0.01, 0.2), "late": PATIENCE}.get(outcome, 0.004)
        answers.append(
            SentAnswer(request.number, outcome, said if outcome == "answered" else None, seconds, 200, "")
        )  # fmt: skip
    return requests, answers


@pytest.mark.parametrize("count", [1, 30, 800])
def test_nothing_is_cut_or_covered(count: int) -> None:
    requests, answers = played(count)
    figure = plot_of(summed_up(requests, answers, 8, 300.0, 20.0), requests, answers, PATIENCE)
    look_through(figure)
    times, scores, sides = figure.axes
    assert (scores.get_ylim(), sides.get_xlim()) == ((0, 1), (0, 1))
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in (times, scores, sides)]
    assert any(f"{PATIENCE:g} s" in name for name in named[0])
    assert any("0.5" in name for name in named[2])
    assert [axes.get_title(loc="left") for axes in figure.axes].count("") == 0


def test_without_any_answer_it_is_drawn_all_the_same(tmp_path: Path) -> None:
    requests, _ = played(3)
    lost = [SentAnswer(request.number, "unreachable", None, 0.001, 0, "refused") for request in requests]
    report = summed_up(requests, lost, 8, 1.0, 1.0)
    draw(report, requests, lost, PATIENCE, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(CouldNotStart, match=r"--plot="):
        draw(report, requests, lost, PATIENCE, tmp_path / "file" / "x.png")
