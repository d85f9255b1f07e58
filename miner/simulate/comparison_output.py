"""The output of a comparison of three miners: progress, a table, sentences, a plot, JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from detectors.evaluation.estimates import Estimate
from miner.bench.output import write_plot
from miner.formats import NO_VALUE, duration
from miner.recorder.records import Wire
from miner.settings.settings import Settings
from miner.simulate.comparison import ModeComparison, compare
from miner.simulate.output import out, progress_bar, report_in_json, request_in_json
from miner.simulate.run import SimulationPlan
from miner.simulate.scenes import MODES, ModeResult, SceneResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASH = "\N{EN DASH}"
FEW_PHOTOS = 10  # of a class: where none of so few was missed, resamples leave no room for a mistake


def compare_through(what: SimulationPlan, settings: Settings, wires: Sequence[Wire], timeout: float) -> ModeComparison:
    """Compare with a bar that shows how it goes; raises as `compare`."""
    with progress_bar() as bar:
        task = bar.add_task("three miners in turn", total=None)
        return compare(
            what, settings, wires, timeout,
            lambda words, total: bar.update(task, advance=1, total=total, description=words),
        )  # fmt: skip


def modes_table(found: ModeComparison) -> Table:
    """Return a line for each miner in each scene; 80 columns wide at most."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("answered\n%", "late\n", "p95\n", "accuracy\n%", "reward\n", "by stage\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in found.scenes:
        table.add_row(f"[bold]{result.scene.name}[/]", f"of {len(next(iter(result.modes.values())).answers)}")
        for mode in MODES:
            table.add_row(f"  {mode}", *_cells(result.modes[mode]))
    return table


def _cells(one: ModeResult) -> list[str]:
    report = one.report
    answered, quality = report.outcomes["answered"], report.quality
    interval = quality.interval
    accuracy = (
        NO_VALUE
        if quality.accuracy is None or interval is None
        else f"{100 * quality.accuracy:.1f} ({100 * interval[0]:.0f}{DASH}{100 * interval[1]:.0f})"
    )
    stages = "/".join(f"{100 * count / max(1, sum(one.stages)):.0f}" for count in one.stages)
    return [
        f"{100 * answered / max(1, report.requests):.1f}", f"{report.outcomes['late']}", duration(report.p95), accuracy,
        f"{one.reward.value:.3f} ({one.reward.low:.2f}{DASH}{one.reward.high:.2f})", stages,
    ]  # fmt: skip


def sentences(found: ModeComparison) -> list[str]:
    """Return what the stages are, and who is the best in each scene."""
    stages = ", ".join(f"{number} is {words}" for number, words in enumerate(found.stages, 1))
    return [f"stages: {stages}", *(line for result in found.scenes for line in _verdict(result))]


def _verdict(result: SceneResult) -> list[str]:
    if not result.photos:
        return [f"{result.scene.name}: of one class no photo was asked of all three"]
    gains = [f"  {_gain(name, gain, result.photos)}" for name, gain in result.gains.items()]
    return [f"{result.scene.name}: {result.best} earns the most", *gains]


def _gain(name: str, gain: Estimate, photos: int) -> str:
    if gain.low == gain.high == 0:
        return f"as much as {name}"
    words = f"{gain.value:.3f} more than {name} ({gain.low:+.3f} to {gain.high:+.3f})"
    if photos < FEW_PHOTOS:
        return f"{words}; {photos} photo{'s' * (photos != 1)} of a class are too few to tell it from chance"
    return words + (", which may be chance" if gain.is_noise else "")


def show_comparison(found: ModeComparison) -> None:
    """Print the table and the sentences."""
    console = out()
    console.print(modes_table(found))
    for line in sentences(found):
        console.print(line)


def draw_comparison(found: ModeComparison, patience: float, path: Path) -> None:
    """Draw the rewards, the stages that answered, and how many were answered within which time.

    Raises:
        CouldNotStart: the file can't be written.
    """
    write_plot(comparison_plot(found, patience), path)


def comparison_plot(found: ModeComparison, patience: float) -> "Figure":
    """Return the figure."""
    from detectors.evaluation import plots

    figure = plots.new_figure(14, 5.2)
    rewards, stages, times = figure.subplots(1, 3)
    colours = dict(zip(MODES, (plots.BLUE, plots.ORANGE, plots.GREEN), strict=True))
    rows = [(result.scene.name, mode, result.modes[mode]) for result in found.scenes for mode in MODES]
    names = [f"{scene}\n{mode}" for scene, mode, _ in rows]
    for row, (_, mode, one) in enumerate(rows):
        reward = one.reward
        error = [[reward.value - reward.low], [reward.high - reward.value]]
        rewards.errorbar(
            row, reward.value, error, fmt="o", color=colours[mode], capsize=4, label=mode if row < len(MODES) else None
        )
    plots.titled(rewards, "Expected reward, with 95 % intervals")
    rewards.set(ylabel="reward, from 0 to 1", ylim=(0, 1))

    bottom = np.zeros(len(rows))
    for number, words in enumerate(found.stages):
        shares = np.array([one.stage_shares[number] for _, _, one in rows])
        colour = plots.PALETTE[(len(MODES) + number) % len(plots.PALETTE)]  # none of a miner's
        stages.bar(range(len(rows)), shares, bottom=bottom, color=colour, label=f"answered by {words}")
        bottom += shares
    stages.bar(range(len(rows)), 1 - bottom, bottom=bottom, color=plots.GREY, alpha=0.3, label="not answered")
    plots.titled(stages, "Requests by the stage that answered")
    stages.set(ylabel="share of the requests", ylim=(0, 1))
    for axes in (rewards, stages):
        axes.set_xticks(range(len(rows)), names, fontsize=7)

    for result, line in zip(found.scenes, ("-", "--"), strict=False):
        for mode in MODES:
            one = result.modes[mode]
            seconds = sorted(answer.seconds for answer in one.answers if answer.prediction is not None)
            share = np.arange(1, len(seconds) + 1) / max(1, len(one.answers))
            times.step(seconds, share, where="post", color=colours[mode], linestyle=line,
                       label=f"{result.scene.name}, {mode}")  # fmt: skip
    times.axvline(patience, color="black", linewidth=1, label=f"validators wait {patience:g} s")
    plots.titled(times, "Answered within so many seconds")
    times.set(xlabel="seconds", ylabel="share of the requests", ylim=(0, 1))
    plots.framed(rewards, stages, times)
    return figure


def comparison_in_json(what: SimulationPlan, found: ModeComparison) -> dict[str, Any]:
    """Return every figure, every request, and what each miner answered, for scripts."""
    scenes = []
    for result in found.scenes:
        asked = [{"number": one.number} | request_in_json(what, one) for one in result.scene.requests]
        modes = {
            mode: {
                "report": report_in_json(one.report),
                "reward": asdict(one.reward),
                "stages": list(one.stages),
                "answers": [asdict(answer) for answer in one.answers],
            }
            for mode, one in result.modes.items()
        }
        gains = {mode: asdict(gain) for mode, gain in result.gains.items()}
        head = {"scene": result.scene.name, "speed": result.scene.speed, "best": result.best, "gains": gains}
        scenes.append(head | {"requests": asked, "modes": modes})
    return {"era": what.era, "seed": what.seed, "stages": list(found.stages), "scenes": scenes}
