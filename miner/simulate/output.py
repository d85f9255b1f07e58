"""The report as a table for people."""

from rich.table import Table

from miner.formats import NONE, duration, share
from miner.simulate.replay import Comparison
from miner.simulate.report import Report

WORDS = {
    "answered": "in time, a number from 0 to 1",
    "late": "no answer within the validators' patience",
    "refused": "503, at once: no answer in time was possible",
    "unreachable": "no connection",
    "failed": "another status, or no number",
}


def report_table(report: Report) -> Table:
    """Return the whole report; what did not happen is left out."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_row("requests", f"{report.requests}", f"{report.organic} of them organic; {pace(report)}")
    for outcome, count in report.outcomes.items():
        if count or outcome == "answered":
            table.add_row(outcome, f"{share(count / max(1, report.requests))}", f"{count}, {WORDS[outcome]}")
    for message, count in report.messages.items():
        table.add_row("", f"{count} ×", message[:100])
    times = f"p95 {duration(report.p95)}, p99 {duration(report.p99)}, longest {duration(report.longest)}"
    table.add_row("time", duration(report.p50), f"the median; {times}")
    quality = report.quality
    if quality.interval is not None:
        low, high = quality.interval
        sure = f"{share(low)} to {share(high)} (95 % interval), {quality.count} answers to {quality.photos} photos"
        table.add_row("accuracy", share(quality.accuracy), sure)
        table.add_row("MCC", _reward(quality.mcc), _sides(report))
    table.add_row("score", _reward(report.score), "smoothed, the validators' mean; it begins at 0")
    table.add_row("reward", _reward(report.reward), "mean of the rounds played, with histories that fill up meanwhile")
    if report.expected is not None:
        words = "[bold]expected in the long run[/], by what was right and what was lost"
        table.add_row("", f"[bold]{_reward(report.expected)}[/]", words)
        words = f"what the {share(report.lost)} without an answer in time cost of it"
        if report.lost:
            table.add_row("lost", f"−{_reward(loss(report))}", words)
    if report.shift is not None:
        gain = report.shift.gain
        words = f"({gain.low:+.3f} to {gain.high:+.3f}) with {report.shift.threshold:.2f} as the line instead of 0.5"
        table.add_row("threshold", f"{gain.value:+.3f}", words + (", may be chance" if gain.is_noise else ""))
    return table


def comparison_table(found: Comparison, without: int) -> Table:
    """Return what a replay brought, beside what was recorded."""
    table = Table("", "recorded", "now", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    gone = f", {found.gone} whose photo the recorder has removed meanwhile" if found.gone else ""
    table.add_row("requests", f"{found.requests + found.gone + without}", f"{found.requests} with a photo{gone}")
    table.add_row("answered", f"{found.answered_then}", f"{found.answered}")
    table.add_row("median", duration(found.p50_then), duration(found.p50))
    table.add_row("p95", duration(found.p95_then), duration(found.p95))
    if found.compared:
        same = share(found.same_side / found.compared)
        table.add_row("same side of 0.5", "", f"{same} of {found.compared}, at most {found.largest:.4f} apart")
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
    return f"roadwork found {share(quality.sensitivity)}, others spared {share(quality.specificity)}"


def _reward(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
