"""The report as a picture."""

from collections.abc import Sequence
from pathlib import Path

from miner.errors import CouldNotStart
from miner.simulate.report import OUTCOMES, Report
from miner.simulate.schedule import Request
from miner.simulate.sender import Answer

COLOURS = dict(zip(OUTCOMES, ("C0", "C3", "C1", "C7", "C4"), strict=True))


def draw(report: Report, requests: Sequence[Request], answers: Sequence[Answer], patience: float, path: Path) -> None:
    """Draw the time of each answer, the validators' scores, and the predictions by label.

    Raises:
        CouldNotStart: the file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    times, scores, sides = figure.subplots(1, 3)
    for outcome in OUTCOMES:
        some = [answer for answer in answers if answer.outcome == outcome]
        if some:
            at = [requests[answer.number].at / report.speed + requests[answer.number].delay for answer in some]
            seconds = [answer.seconds for answer in some]
            times.plot(at, seconds, ".", color=COLOURS[outcome], label=f"{outcome} ({len(some)})")
    times.axhline(patience, color="black", linewidth=1)
    times.set(yscale="log", xlabel="seconds of the run", ylabel="seconds until the answer")
    times.legend()
    for tally in report.tallies:
        scores.plot(tally.scores, linewidth=1)
    scores.set(xlabel="rounds", ylabel="smoothed score of each validator", ylim=(0, 1))
    own = [(requests[answer.number], answer.prediction) for answer in answers if answer.prediction is not None]
    for is_roadwork, label in ((True, "roadwork"), (False, "no roadwork")):
        shown = [prediction for request, prediction in own if request.is_roadwork is is_roadwork]
        sides.hist(shown, bins=20, range=(0, 1), alpha=0.6, label=label)
    sides.axvline(0.5, color="black", linewidth=1)
    if report.shift is not None:
        sides.axvline(report.shift.threshold, color="black", linewidth=1, linestyle=":", label="best line")
    sides.set(xlabel="prediction", ylabel="answers")
    sides.legend()
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CouldNotStart(f"--plot={path}: can't be written: {error.strerror or error}") from error
