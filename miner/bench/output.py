"""The output of a bench: progress, tables, a plot."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from detectors.registry import how_to_install
from miner.bench.daemon import DaemonFigures
from miner.bench.operators import Operator
from miner.bench.run import BenchFigures, BurstVerdict
from miner.errors import ConfigurationError, CouldNotStart

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from miner.bench.client import Progress
    from miner.bench.subject import Subject

NAME_WIDTH = 16  # characters of a line beside a bar
WIDTH = 200  # of a table that goes into a file


def alone_table(all_figures: Sequence[BenchFigures]) -> Table:
    """One image at a time: p50 and share of the first one's, and how far the answers differ."""
    base = all_figures[0]
    headings = [heading for kind in base.alone for heading in (kind, "share")]
    table = _table("p50 latency in ms, one image at a time, and share of the first", *headings, "of pace", "max diff")
    for figures in all_figures:
        cells = []
        for alone in figures.alone.values():
            cells += [milliseconds(alone.p50), f"{alone.ratio:.2f}"]
        pace = "–" if figures.of_peak is None else f"{figures.of_peak:.0%}"
        table.add_row(figures.name, *cells, pace, "–" if figures is base else f"{figures.difference:.0e}")
    return table


def loaded_table(all_figures: Sequence[BenchFigures]) -> Table:
    """What it takes until an image is answered: time and memory."""
    table = _table("start and memory", "load, s", "first answer, s", "RSS, MB", "peak, MB")
    for figures in all_figures:
        loaded = figures.loaded
        table.add_row(
            figures.name, f"{loaded.load_seconds:.2f}", f"{loaded.first_seconds:.2f}",
            megabytes(loaded.warm_bytes), megabytes(figures.peak_bytes),
        )  # fmt: skip
    return table


def least_words(all_figures: Sequence[BenchFigures], least: Mapping[str, float]) -> str:
    """Say what a picture takes at the CPU's own pace of products, and what share of the first one's time that is."""
    base = all_figures[0]
    first = min(alone.p50 for alone in base.alone.values())
    each = ", ".join(
        f"{precision} {milliseconds(seconds)} ms ({seconds / first:.2f})" for precision, seconds in least.items()
    )
    return f"at this CPU's own pace of matrix products a picture takes at least (share of {base.name}): {each}"


def slow_words(slow: Mapping[int, float], rounds: int) -> str:
    """Say in which rounds the CPU itself was slow; nothing where it never was."""
    if not slow:
        return ""
    numbers, worst = ", ".join(map(str, slow)), max(slow.values())
    return (
        f"slow phase: in {len(slow)} of {rounds} rounds ({numbers}) a picture took up to {worst:.2f} times the CPU "
        "time, and no other program had the core: the host ran it slower. Ratios hold, milliseconds do not"
    )


def burst_table(all_figures: Sequence[BenchFigures], verdict: BurstVerdict) -> Table:
    """Several pictures at once: percentiles, images a second, and how many validators that is enough for."""
    levels = [str(level.at_once) for level in all_figures[0].levels]
    table = _table("p50, p95 and p99 in ms, by images at once", *levels, "images/s", f"in {verdict.deadline:g} s")
    for figures in all_figures:
        cells = ["\n".join(map(milliseconds, (level.p50, level.p95, level.p99))) for level in figures.levels]
        rate = figures.levels[-1].images_per_second
        name = f"[bold]{figures.name}[/]" if figures.name == verdict.name else figures.name
        table.add_row(name, *cells, f"{rate:.1f}" if rate < 100 else f"{rate:.0f}", str(figures.serves))
    return table


def operator_table(name: str, operators: Sequence[Operator]) -> Table:
    """Where a picture's time goes in one graph."""
    table = _table(f"{name}: time per image by operator", "ms", "share", "calls")
    for one in operators:
        table.add_row(one.name, milliseconds(one.seconds), f"{one.share:.1%}", str(one.calls))
    return table


def daemon_table(all_figures: Sequence[DaemonFigures]) -> Table:
    """Whole daemons, a column each: start, memory, overhead, growth, and p99 through the wire."""
    table = _table("the whole daemon, 20 kB JPEG", *(one.name for one in all_figures))
    figures: dict[str, Callable[[DaemonFigures], str]] = {
        "first answer, s": lambda one: f"{one.first_answer:.2f}",
        "RSS first, MB": lambda one: megabytes(one.resident_first),
        "requests": lambda one: f"{one.requests:,}",
        "RSS after, MB": lambda one: megabytes(one.resident),
        "growth, MB": lambda one: f"{one.growth / 1e6:+.1f}",
        "peak, MB": lambda one: megabytes(one.peak),
        "alone, ms": lambda one: milliseconds(one.latency),
        "overhead, ms": lambda one: milliseconds(one.overhead),
        f"p99, {all_figures[0].at_once} at once, ms": lambda one: milliseconds(one.p99),
        "unanswered": lambda one: str(one.unanswered),
    }
    for heading, figure in figures.items():
        table.add_row(heading, *map(figure, all_figures))
    return table


def _table(title: str, *headings: str) -> Table:
    """Return a table of figures, light enough for 80 columns."""
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    return table


def daemon_line(one: DaemonFigures) -> str:
    """Say what is worth knowing of one daemon before the others are measured."""
    return (
        f"{one.name}: first answer after {one.first_answer:.2f} s, alone {milliseconds(one.latency)} ms, "
        f"overhead {milliseconds(one.overhead)} ms, p99 {milliseconds(one.p99)} ms with {one.at_once} at once, "
        f"{one.unanswered} of {one.requests:,} unanswered, growth {one.growth / 1e6:+.1f} MB"
    )


def milliseconds(seconds: float) -> str:
    """Return three digits or so."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(count: float) -> str:
    """Return whole megabytes."""
    return f"{count / 1e6:.0f}"


def check_plot(path: Path, suffixes: Sequence[str] = (".png",)) -> None:
    """Say before anything is measured that nothing could be drawn.

    Raises:
        ConfigurationError: matplotlib is not installed, the folder is not there, or the name ends otherwise.
    """
    if find_spec("matplotlib") is None:
        raise ConfigurationError(
            f"--plot={path}: needs the package 'matplotlib' (extra `eval`; {how_to_install('eval')} installs it)"
        )
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot={path}: there is no such folder")
    if path.suffix.lower() not in suffixes:
        raise ConfigurationError(f"--plot={path}: a file name that ends in {' or '.join(suffixes)} is allowed")


def draw(all_figures: Sequence[BenchFigures], deadline: float, title: str, path: Path) -> None:
    """Draw latencies over the number at once, with the deadline, and the memory.

    Raises:
        CouldNotStart: the file can't be written.
    """
    write_plot(plot_of(all_figures, deadline, title), path)


def plot_of(all_figures: Sequence[BenchFigures], deadline: float, title: str) -> "Figure":
    """Return the figure."""
    from detectors.evaluation.plots import PALETTE, legend_below, new_figure, plain_seconds, titled

    figure = new_figure(12, 5.6)
    figure.suptitle(title, fontweight="bold")
    times, memory = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(all_figures))]
    for figures, colour in zip(all_figures, colours, strict=True):
        at_once = [level.at_once for level in figures.levels]
        times.plot(at_once, [level.p50 for level in figures.levels], "o-", color=colour, label=f"{figures.name}, p50")
        times.plot(at_once, [level.p99 for level in figures.levels], ":", color=colour, label=f"{figures.name}, p99")
    times.axhline(deadline, color="black", linewidth=1, label=f"the deadline, {deadline:g} s")
    times.set(xscale="log", xlabel="concurrent requests", ylabel="latency, seconds")
    plain_seconds(times)
    times.set_xticks(at_once, [str(number) for number in at_once])
    times.minorticks_off()
    times.grid(alpha=0.3)
    legend_below(times)
    names = [fill(figures.name, NAME_WIDTH) for figures in all_figures]
    memory.barh(names, [figures.peak_bytes / 1e6 for figures in all_figures], color=colours, alpha=0.3)
    memory.barh(names, [figures.loaded.warm_bytes / 1e6 for figures in all_figures], color=colours)
    memory.invert_yaxis()
    memory.set(xlabel="RSS, MB")
    titled(times, "Latency under load")
    titled(memory, "Memory once loaded; pale: its peak")
    return figure


def write_plot(figure: "Figure", path: Path) -> None:
    """Write the file of `--plot`.

    Raises:
        CouldNotStart: it can't be written.
    """
    from detectors.evaluation.plots import write

    try:
        write(figure, path)
    except OSError as error:
        raise CouldNotStart(f"--plot={path}: can't be written: {error.strerror or error}") from error


def print_all(subject: "Subject", *parts: object) -> None:
    """Print what a bench is of, and then its tables and words."""
    from rich.console import Console

    facts = subject.facts()
    out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    out.print(f"{facts['model']}: {subject.split} on {facts['cpu']}; {', '.join(facts['libraries'])}")
    out.print("; ".join(filter(None, (f"roadwork = {facts['roadwork']}", facts["views"]))), markup=False)
    for part in parts:
        out.print(part)


def line_printer(*, to_stderr: bool) -> "Callable[[Console, str], None]":
    """Return what prints a line while the bar moves: above it, or into the file or pipe that stdout is, at once.

    Called before there is a bar, which takes what is written to stdout for its own console.
    """
    out = sys.stdout

    def say(console: "Console", line: str) -> None:
        if to_stderr or out.isatty():
            console.print(line, highlight=False, markup=False)
        else:
            print(line, file=out, flush=True)

    return say


@contextmanager
def progress_bar() -> "Iterator[tuple[Console, Progress]]":
    """Give a console on stderr, and a function that is told each step and the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr, soft_wrap=True)
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("…", total=1.0)
        yield console, lambda text, share: bar.update(task, description=text, completed=share)
