"""The figures as a picture; matplotlib is optional."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from miner.bench.report import Figures
from miner.errors import ConfigurationError, CouldNotStart


def check_plot(path: Path) -> None:
    """Say before anything is measured that nothing could be drawn.

    Raises:
        ConfigurationError: matplotlib is not installed, or the folder is not there.
    """
    if find_spec("matplotlib") is None:
        raise ConfigurationError(
            f"--plot={path}: needs the package 'matplotlib' (extra `plot`; `make setup-all` installs it)"
        )
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot={path}: there is no such folder")
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"--plot={path}: a file name that ends in .png is allowed")


def draw(all_figures: Sequence[Figures], deadline: float, title: str, path: Path) -> None:
    """Draw latencies over the number at once, with the deadline, and the memory.

    Raises:
        CouldNotStart: the file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    times, memory = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = [f"C{number}" for number in range(len(all_figures))]
    for figures, colour in zip(all_figures, colours, strict=True):
        at_once = [level.at_once for level in figures.levels]
        times.plot(at_once, [level.p50 for level in figures.levels], "o-", color=colour, label=figures.name)
        times.plot(at_once, [level.p99 for level in figures.levels], ":", color=colour)
    times.axhline(deadline, color="black", linewidth=1)
    times.annotate(f"deadline, {deadline:g} s", (at_once[0], deadline), va="bottom")
    times.set(xscale="log", yscale="log", xlabel="requests at once", ylabel="seconds (— p50, ··· p99)", title=title)
    times.set_xticks(at_once, [str(number) for number in at_once])
    times.minorticks_off()
    times.legend()
    names = [figures.name for figures in all_figures]
    memory.barh(names, [figures.peak_bytes / 1e6 for figures in all_figures], color=colours, alpha=0.3)
    memory.barh(names, [figures.loaded.warm_bytes / 1e6 for figures in all_figures], color=colours)
    memory.invert_yaxis()
    memory.set(xlabel="resident, MB (pale: peak)")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CouldNotStart(f"--plot={path}: can't be written: {error.strerror or error}") from error
