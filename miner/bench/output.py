"""The figures as tables for people."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from miner.bench.daemon import DaemonFigures
from miner.bench.operators import Operator
from miner.bench.report import Figures, Verdict


def alone_table(all_figures: Sequence[Figures]) -> Table:
    """One picture at a time: median and share of the first one's, memory, start, and how far the answers differ."""
    base = all_figures[0]
    table = Table(title="one at a time", title_justify="left")
    table.add_column("")
    for kind in base.alone:
        table.add_column(f"{kind}, ms", justify="right")
        table.add_column("of the first", justify="right")
    for heading in ("of the CPU's pace", "load, s", "first answer, s", "RSS, MB", "peak, MB", "differs by"):
        table.add_column(heading, justify="right")
    for figures in all_figures:
        cells = []
        for alone in figures.alone.values():
            cells += [milliseconds(alone.p50), f"{alone.ratio:.2f}"]
        loaded = figures.loaded
        table.add_row(
            figures.name, *cells, "–" if figures.of_peak is None else f"{figures.of_peak:.0%}",
            f"{loaded.load_seconds:.2f}", f"{loaded.first_seconds:.2f}",
            megabytes(loaded.warm_bytes), megabytes(figures.peak_bytes),
            "–" if figures is base else f"{figures.difference:.0e}",
        )  # fmt: skip
    return table


def least_words(all_figures: Sequence[Figures], least: Mapping[str, float]) -> str:
    """Say what a picture takes at the CPU's own pace of products, and what share of the first one's time that is."""
    base = all_figures[0]
    first = min(alone.p50 for alone in base.alone.values())
    each = ", ".join(
        f"{precision} {milliseconds(seconds)} ms ({seconds / first:.2f})" for precision, seconds in least.items()
    )
    return f"at this CPU's own pace of matrix products a picture takes at least (share of {base.name}): {each}"


def burst_table(all_figures: Sequence[Figures], verdict: Verdict) -> Table:
    """Several pictures at once: percentiles, pictures a second, and how many validators that is enough for."""
    table = Table(title="p50 / p95 / p99 in ms", title_justify="left")
    table.add_column("")
    for level in all_figures[0].levels:
        table.add_column(f"{level.at_once} at once", justify="right")
    table.add_column("images/s", justify="right")
    table.add_column(f"in {verdict.deadline:g} s", justify="right")
    for figures in all_figures:
        levels = [" / ".join(map(milliseconds, (level.p50, level.p95, level.p99))) for level in figures.levels]
        rate = figures.levels[-1].images_per_second
        name = f"[bold]{figures.name}[/]" if figures.name == verdict.name else figures.name
        table.add_row(name, *levels, f"{rate:.1f}" if rate < 100 else f"{rate:.0f}", str(figures.serves))
    return table


def operator_table(name: str, operators: Sequence[Operator]) -> Table:
    """Where a picture's time goes in one graph."""
    table = Table(title=f"{name}: a picture by operator", title_justify="left")
    for heading in ("", "ms", "share", "calls"):
        table.add_column(heading, justify="right" if heading else "left")
    for one in operators:
        table.add_row(one.name, milliseconds(one.seconds), f"{one.share:.1%}", str(one.calls))
    return table


def daemon_table(all_figures: Sequence[DaemonFigures]) -> Table:
    """Whole daemons: start, memory, overhead, growth, and p99 through the wire."""
    table = Table(title="the whole daemon, 20 kB JPEG", title_justify="left")
    table.add_column("")
    for heading in (
        "first answer, s", "RSS first, MB", "requests", "RSS after, MB", "growth, MB", "peak, MB", "alone, ms",
        "overhead, ms", f"p99, {all_figures[0].at_once} at once, ms", "unanswered",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for one in all_figures:
        table.add_row(
            one.name, f"{one.first_answer:.2f}", megabytes(one.resident_first), f"{one.requests:,}",
            megabytes(one.resident), f"{one.growth / 1e6:+.1f}", megabytes(one.peak), milliseconds(one.latency),
            milliseconds(one.overhead), milliseconds(one.p99), str(one.unanswered),
        )  # fmt: skip
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
