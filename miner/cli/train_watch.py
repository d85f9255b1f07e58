"""`roadwork-miner train --watch`: a run as its folder shows it, with curves, in another terminal."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import typer
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from detectors.errors import DetectorError
from detectors.training.progress import ResourceRow, RunView, read_run
from miner.cli.common import is_interactive
from miner.errors import ConfigurationError, CouldNotStart
from miner.formats import age, clock, spark
from miner.status.terminal import CARD_COLUMNS, Frame

INTERVAL = 1.0  # seconds between two looks
CHART_COLUMNS, CHART_LINES = CARD_COLUMNS - 4, 8  # of a chart, its scale included
SCALE_COLUMNS = 6
SPARK_COLUMNS = 38
GRID = 0.1  # what the lowest accuracy is rounded down to
TRAINING, VALIDATION = "blue", "yellow"
COLOURS = {"running": "green", "finished": "green", "stopped": "yellow", "failed": "red", "killed": "red"}
# Bits of a Braille character's dots, by row and column.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BRAILLE = 0x2800
Points = Sequence[tuple[float, float]]


def watch(run: Path, *, as_json: bool) -> None:
    """Follow a run until `q`; where there is no terminal, print how it stands and end.

    Raises:
        ConfigurationError: it is no run's folder.
    """
    try:
        first = read_run(run)
    except DetectorError as error:
        raise ConfigurationError(str(error)) from error
    if as_json:
        print(json.dumps(first.plain()))
    elif is_interactive():
        _follow(run, first)
    else:
        frame = frame_of(first)
        Console().print(Group(frame.head, frame.content))


def _follow(run: Path, first: RunView) -> None:
    from miner.status.top import Top

    async def again() -> Frame:
        try:
            return frame_of(await asyncio.to_thread(read_run, run))
        except (DetectorError, OSError) as error:
            raise CouldNotStart(str(error)) from error

    app = Top(frame_of(first), again, INTERVAL)
    app.run()
    if app.return_code:  # Textual has printed why
        raise typer.Exit(app.return_code)


def frame_of(view: RunView, now: Callable[[], float] = time.time) -> Frame:
    """Return what the terminal shows of a run."""
    return Frame(_head(view, now()), _content(view), view.at)


def _head(view: RunView, now: float) -> RenderableType:
    first = Text.assemble((f"● {view.state.capitalize()}", f"bold {COLOURS[view.state]}"), f"   {view.run.name}   ")
    first.append(view.model)
    lines: list[RenderableType] = [first]
    if view.words:
        lines.append(Text(view.words, COLOURS[view.state]))
    if view.bar is not None:
        lines.append(Text(str(view.bar)))
        if view.bar.total:
            lines.append(ProgressBar(total=view.bar.total, completed=view.bar.done))
    elif view.state == "running":
        lines.append(Text(view.lines[-1] if view.lines else "starting"))
    since = "" if view.started is None else f"   started {age((now if view.bar else view.at) - view.started)} before"
    lines.append(Text(f"seen at {clock(view.at)} UTC{since}", "bright_black"))
    return Padding(Group(*lines), (0, 1))


def _content(view: RunView) -> RenderableType:
    loss, val_loss = view.points("loss"), view.points("eval_loss")
    accuracy = view.points("eval_accuracy")
    least = min((value for _, value in accuracy), default=0.5)
    low = min(0.9, int(least / GRID) * GRID)
    most = max((value for _, value in [*loss, *val_loss]), default=1.0)
    end = max((epoch for epoch, _ in [*loss, *val_loss, *accuracy]), default=0.0)
    charts = Columns(
        [
            _panel("Loss", {TRAINING: loss, VALIDATION: val_loss}, (0.0, most), end, ("training", "validation")),
            _panel("Validation accuracy", {VALIDATION: accuracy}, (low, 1.0), end, (_best(accuracy),)),
        ],
        width=CARD_COLUMNS, padding=(0, 0),
    )  # fmt: skip
    said = Panel(
        Text("\n".join(view.lines), overflow="fold"), title="Said", title_align="left", border_style="bright_black"
    )
    return Group(charts, _resources(view.resources), *([said] if view.lines else []))


def _best(accuracy: Points) -> str:
    if not accuracy:
        return "none yet"
    epoch, best = max(accuracy, key=lambda point: point[1])
    return f"last {accuracy[-1][1]:.1%}, best {best:.1%} at {epoch:.0f}"


def _panel(
    title: str, series: dict[str, Points], scale: tuple[float, float], end: float, names: Sequence[str]
) -> RenderableType:  # fmt: skip
    legend = Text("  ").join(Text.assemble(("━ ", colour), name) for name, colour in zip(names, series, strict=True))
    drawn = chart(series, scale, end, CHART_COLUMNS, CHART_LINES)
    return Panel(Group(legend, drawn), title=title, title_align="left", border_style="bright_black")


def chart(series: dict[str, Points], scale: tuple[float, float], end: float, columns: int, lines: int) -> Text:
    """Draw curves over the epochs in Braille characters, with both ends of the scale beside them.

    Args:
        series: points of each colour; where two share a character, the later has it.
        scale: the values at the lower and the upper end.
        end: the last epoch.
        columns: of the whole.
        lines: of the whole, that below with the epochs included.
    """
    low, high = scale
    wide, tall = (columns - SCALE_COLUMNS) * 2, (lines - 1) * 4
    cells: dict[tuple[int, int], tuple[int, str]] = {}
    for colour, points in series.items():
        places = [
            (
                round(epoch / (end or 1) * (wide - 1)),
                round((high - min(value, high)) / ((high - low) or 1) * (tall - 1)),
            )
            for epoch, value in points
        ]
        for x, y in _dots(places) | _cross(places, wide, tall):
            line, column = y // 4, x // 2
            bits, _ = cells.get((line, column), (0, colour))
            cells[line, column] = bits | DOTS[y % 4][x % 2], colour
    text = Text(no_wrap=True)
    for line in range(lines - 1):
        value = {0: high, lines - 2: low}.get(line)
        text.append(" " * SCALE_COLUMNS if value is None else f"{value:.2f} ".rjust(SCALE_COLUMNS), "bright_black")
        for column in range(wide // 2):
            bits, colour = cells.get((line, column), (0, ""))
            text.append(chr(BRAILLE + bits) if bits else " ", colour)
        text.append("\n")
    ends = ("epoch 0", f"{end:g}")
    return text.append(" " * SCALE_COLUMNS + ends[0] + ends[1].rjust(wide // 2 - len(ends[0])), "bright_black")


def _cross(places: Sequence[tuple[int, int]], wide: int, tall: int) -> set[tuple[int, int]]:
    """Return the dots around a single place, which would hardly be seen."""
    around = {(x + right, y + down) for x, y in places for right in (-1, 0, 1) for down in (-1, 0, 1)}
    return {(x, y) for x, y in around if 0 <= x < wide and 0 <= y < tall} if len(places) == 1 else set()


def _dots(places: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the dots of lines from place to place."""
    dots = set(places)
    for (left, above), (right, below) in pairwise(places):
        steps = max(abs(right - left), abs(below - above))
        dots |= {
            (round(left + (right - left) * step / steps), round(above + (below - above) * step / steps))
            for step in range(steps)
        }
    return dots


def _resources(rows: Sequence[ResourceRow]) -> RenderableType:
    if not rows:
        return Panel("nothing measured yet", title="Machine", title_align="left", border_style="bright_black")
    last = rows[-1]
    whole = max(row.resident + row.available for row in rows)
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    cores = [row.cores for row in rows]
    table.add_row("CPU", f"{last.cores:.1f} cores", Text(spark(means(cores), max(1.0, *cores)), "green"))
    memory = f"{last.resident / 1e9:.1f} of {whole / 1e9:.0f} GB"
    table.add_row("memory", memory, Text(spark(means([row.resident for row in rows]), whole), "blue"))
    waiting = [row.waiting for row in rows]
    table.add_row("waiting for photos", f"{last.waiting:.0%}", Text(spark(means(waiting), 1.0), "yellow"))
    return Panel(table, title="Machine", title_align="left", border_style="bright_black")


def means(values: Sequence[float], count: int = SPARK_COLUMNS) -> list[float]:
    """Return at most so many values: means of neighbours, as evenly as can be."""
    count = max(1, min(count, len(values)))
    edges = [len(values) * number // count for number in range(count + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in pairwise(edges) if end > start]
