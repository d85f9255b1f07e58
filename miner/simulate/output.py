"""The output of a simulation: progress, tables, a plot, JSON."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from miner.axon.client import Client
from miner.bench.output import write_plot
from miner.formats import NO_VALUE, duration, share
from miner.simulate import replay
from miner.simulate.miners import SimulatedMiner
from miner.simulate.replay import ReplayComparison
from miner.simulate.report import OUTCOMES, Report
from miner.simulate.run import PlayResult, SimulationPlan, play
from miner.simulate.schedule import Request
from miner.simulate.sender import SentAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTCOME_WORDS = {
    "answered": "in time, a number from 0 to 1",
    "late": "no answer within the validators' patience",
    "refused": "503, at once: no answer in time was possible",
    "unreachable": "no connection",
    "failed": "another status, or no number",
}

COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#000000", "#CC79A7")  # of each outcome in a plot, told apart by all
MARKS = (".", "x", "v", "s", "D")
WIDTH = 160  # of a table that goes into a file


def report_table(report: Report) -> Table:
    """Return the whole report; what did not happen is left out."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_row("requests", f"{report.requests}", f"{report.organic} of them organic; {pace(report)}")
    for outcome, count in report.outcomes.items():
        if count or outcome == "answered":
            table.add_row(outcome, f"{share(count / max(1, report.requests))}", f"{count}, {OUTCOME_WORDS[outcome]}")
    for message, count in report.messages.items():
        table.add_row("", f"{count} ×", message[:100])
    times = f"p95 {duration(report.p95)}, p99 {duration(report.p99)}, max {duration(report.longest)}"
    table.add_row("latency", duration(report.p50), f"p50; {times}")
    quality = report.quality
    if quality.interval is not None:
        low, high = quality.interval
        sure = f"{share(low)} to {share(high)} (95 % interval), {quality.count} answers to {quality.photos} photos"
        table.add_row("accuracy", share(quality.accuracy), sure)
        table.add_row("MCC", _reward(quality.mcc), _sides(report))
    table.add_row("score", _reward(report.score), "smoothed, the validators' mean; it begins at 0")
    table.add_row("reward", _reward(report.reward), "mean of the rounds played, with histories that fill up meanwhile")
    if report.expected is not None:
        words = "[bold]expected in the long run[/], by accuracy and lost requests"
        table.add_row("", f"[bold]{_reward(report.expected)}[/]", words)
        words = f"what the {share(report.lost)} without an answer in time cost of it"
        if report.lost:
            table.add_row("lost", f"−{_reward(loss(report))}", words)
    if report.shift is not None:
        gain = report.shift.gain
        words = (
            f"({gain.low:+.3f} to {gain.high:+.3f}) with {report.shift.threshold:.2f} as the threshold instead of 0.5"
        )
        table.add_row("threshold", f"{gain.value:+.3f}", words + (", may be chance" if gain.is_noise else ""))
    return table


def comparison_table(found: ReplayComparison, without: int) -> Table:
    """Return what a replay brought, beside what was recorded."""
    table = Table("", "recorded", "now", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    gone = f", {found.gone} whose photo the recorder has removed meanwhile" if found.gone else ""
    table.add_row("requests", f"{found.requests + found.gone + without}", f"{found.requests} with a photo{gone}")
    table.add_row("answered", f"{found.answered_then}", f"{found.answered}")
    table.add_row("p50", duration(found.p50_then), duration(found.p50))
    table.add_row("p95", duration(found.p95_then), duration(found.p95))
    if found.compared:
        same = share(found.same_side / found.compared)
        table.add_row("agreement", "", f"{same} of {found.compared}, at most {found.largest:.4f} apart")
    return table


def loss(report: Report) -> float:
    """Return the reward that missing answers cost in the long run."""
    return (report.expected_unlost or 0.0) - (report.expected or 0.0)


def pace(report: Report) -> str:
    """Return how long it took, and how much faster than on a subnet."""
    words = f"{report.seconds:.0f} s, {report.speed:g} times a subnet's pace"
    return words + (f"; sent up to {duration(report.behind)} late" if report.behind > 0.1 else "")


def _sides(report: Report) -> str:
    quality = report.quality
    return f"recall {share(quality.sensitivity)}, specificity {share(quality.specificity)}"


def _reward(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.3f}"


def draw(
    report: Report, requests: Sequence[Request], answers: Sequence[SentAnswer], patience: float, path: Path
) -> None:
    """Draw the latency of each answer, the validators' scores, and the predictions by label.

    Raises:
        CouldNotStart: the file can't be written.
    """
    write_plot(plot_of(report, requests, answers, patience), path)


def plot_of(report: Report, requests: Sequence[Request], answers: Sequence[SentAnswer], patience: float) -> "Figure":
    """Return the figure."""
    from detectors.evaluation import plots

    figure = plots.new_figure(14, 5.2)
    times, scores, sides = figure.subplots(1, 3)
    for outcome, colour, mark in zip(OUTCOMES, COLOURS, MARKS, strict=True):
        some = [answer for answer in answers if answer.outcome == outcome]
        if some:
            at = [requests[answer.number].at / report.speed + requests[answer.number].delay for answer in some]
            seconds = [answer.seconds for answer in some]
            times.plot(
                at, seconds, mark, color=colour, markersize=4, label=f"{outcome} ({len(some)})", clip_on=False, zorder=3
            )
    times.axhline(patience, color="black", linewidth=1, label=f"validators wait {patience:g} s")
    plots.plain_seconds(times)
    plots.titled(times, "Latency of each request")
    times.set(xlabel="seconds of the run", ylabel="latency, seconds")

    for number, tally in enumerate(report.tallies):
        scores.plot(tally.scores, color=plots.GREY, alpha=0.5, linewidth=1, label=None if number else "each validator")
    played = min((len(tally.scores) for tally in report.tallies), default=0)  # by all: a mean of fewer would jump
    mean = np.mean([tally.scores[:played] for tally in report.tallies], axis=0) if played else []
    scores.plot(mean, color=plots.BLUE, linewidth=2, label="their mean")
    plots.titled(scores, "Score at each validator")
    scores.set(xlabel="round", ylabel="smoothed score, from 0 to 1", ylim=(0, 1))
    plots.whole_numbers(scores)

    own = [(requests[answer.number], answer.prediction) for answer in answers if answer.prediction is not None]
    shown = [
        [prediction for request, prediction in own if request.is_roadwork is is_roadwork]
        for is_roadwork in (False, True)
    ]
    names = [f"{name} ({len(some)})" for name, some in zip(("no roadwork", "roadwork"), shown, strict=True)]
    sides.hist(
        shown, bins=20, range=(0, 1), color=(plots.BLUE, plots.ORANGE), label=names
    )  # side by side: none hides the other
    sides.axvline(0.5, color="black", linewidth=1, label="validators decide at 0.5")
    if report.shift is not None:
        best = report.shift.threshold
        sides.axvline(best, color="black", linewidth=1, linestyle=":", label=f"best threshold, {best:.2f}")
    plots.titled(sides, "Predictions, by what the photo shows")
    sides.set(xlabel="prediction", ylabel="answers", xlim=(0, 1))
    plots.framed(times, scores, sides)
    return figure


def play_through(what: SimulationPlan, target: SimulatedMiner, clients: Sequence[Client], *, told: bool) -> PlayResult:
    """Play with a bar that shows how it goes."""
    with progress_bar() as bar:
        task = bar.add_task(f"requests to {target.address}", total=None)
        right = answered = lost = 0

        def progress(requests: list[Request], answer: SentAnswer) -> None:
            nonlocal right, answered, lost
            if answer.prediction is None:
                lost += 1
            else:
                answered += 1
                right += (answer.prediction > 0.5) == requests[answer.number].is_roadwork
            words = f"accuracy {right / max(1, answered):.1%}, {lost} lost, last latency {answer.seconds * 1e3:.0f} ms"
            bar.update(task, advance=1, total=len(requests), description=words)

        return asyncio.run(play(what, clients, told, progress))


def send_again(
    recorded: Sequence[replay.RecordedRequest], without: int, clients: Sequence[Client], speed: float, *, told: bool,
    as_json: bool,
) -> bool:  # fmt: skip
    """Send a recording again, print how the answers compare, and return whether there were any."""
    with progress_bar() as bar:
        task = bar.add_task(f"{len(recorded)} recorded requests", total=len(recorded))
        answers, gone = asyncio.run(replay.replay(recorded, clients, told, speed, lambda _: bar.advance(task)))
    found = replay.compared(recorded, answers, gone)
    if as_json:
        rows = [asdict(answer) for answer in answers]
        out().print_json(data={"comparison": asdict(found), "without_photo": without, "requests": rows}, indent=None)
    else:
        out().print(comparison_table(found, without))
    return found.answered > 0


def show(played: PlayResult, target: SimulatedMiner) -> None:
    """Print the report; who is not let in is named."""
    out().print(report_table(played.report))
    if any(answer.status == 403 for answer in played.answers):
        keys = ",".join(sorted({wallet.hotkey.ss58_address for wallet in target.wallets}))
        out().print(f"403: let these validators in on the miner's side: BLACKLIST_ALLOW_HOTKEYS={keys}")


def in_json(what: SimulationPlan, played: PlayResult, target: SimulatedMiner) -> dict[str, Any]:
    """Return the report and every request, for scripts."""
    rows = [request_in_json(what, played.requests[answer.number]) | asdict(answer) for answer in played.answers]
    report = report_in_json(played.report)
    return {"miner": target.hotkey, "era": what.era, "seed": what.seed, "report": report, "requests": rows}


def report_in_json(report: Report) -> dict[str, Any]:
    """Return a report; of each validator's history the score it ended with."""
    values = asdict(replace(report, tallies=[])) | {"scores": [tally.score for tally in report.tallies]}
    del values["tallies"]
    return values


def request_in_json(what: SimulationPlan, request: Request) -> dict[str, Any]:
    """Return who asks what, and when."""
    return {
        "at": request.at,
        "delay": request.delay,
        "validator": request.validator,
        "picture": what.photos[request.picture].name,
        "roadwork": request.is_roadwork,
        "organic": request.is_organic,
    }


def out() -> Console:
    """Return where tables go."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)


def progress_bar() -> Progress:
    """Return a bar on stderr; nothing is seen of it where that is no terminal."""
    words = TextColumn("{task.description}")
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), words)
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
