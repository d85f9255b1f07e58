"""The report of `standing`: figures on real traffic come in; lines for a terminal of 80 columns, or JSON, go out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from detectors.evaluation.estimates import Estimate, Floats
from miner.feedback.answers import TrafficSample
from miner.feedback.figures import NarrowerInterval, ThresholdError, TrafficComparison, TrafficFigures
from miner.feedback.standing import ModelStanding, StandingView
from miner.formats import age, fraction, number, share

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MOST_COLUMNS = 100
CELLS = 24  # columns of a scale from 0 to 1
NONE_YET = "no photo of the random tenth is labelled yet"
INSTRUCTIVE = "chosen because they teach, or imported: no figure above rests on them"


@dataclass(frozen=True, slots=True)
class JudgedModel:
    """A model's answers to the random tenth, and what they are worth."""

    standing: ModelStanding
    figures: TrafficFigures
    said: Floats
    is_shadow: bool = False
    has_stages: bool = False

    @property
    def name(self) -> str:
        """By which it is called here."""
        return self.standing.name

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        known = self.standing
        return self.figures.plain() | {
            "fingerprint": known.fingerprint, "precision": known.precision, "promised": known.promised,
            "promised_photos": known.promised_photos, "below_promise": known.is_below_promise,
            "shadow": self.is_shadow,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class StandingReport:
    """All that `standing` says.

    Attributes:
        view: what the page shows.
        sample: the photos that the figures rest on.
        judged: the models, of which the first serves.
        narrower: how many more labels the next rounder interval takes.
        threshold: what another threshold would bring, or why that is not known.
        beside: each of the other models beside the first, by name.
    """

    view: StandingView
    sample: TrafficSample
    judged: Sequence[JudgedModel] = ()
    narrower: NarrowerInterval | None = None
    threshold: ThresholdError | str = NONE_YET
    beside: Mapping[str, TrafficComparison] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        photos, threshold = self.view.photos, self.threshold
        return {
            "at": self.view.at,
            "photos": photos.model_dump() | {"outside": photos.outside},
            "left_out": self.sample.left_out,
            "models": {one.name: one.plain() for one in self.judged},
            "narrower": asdict(self.narrower) if self.narrower is not None else None,
            "threshold": {"left_out": threshold} if isinstance(threshold, str)
            else asdict(threshold) | {"worth_it": threshold.is_worth_it},
            "beside": {name: asdict(one) | {"settled": one.is_settled} for name, one in self.beside.items()},
            "improvement": self.view.improvement.model_dump() if self.view.improvement is not None else None,
            "answers": [
                {"photo": photo.digest, "roadwork": photo.label == 1,
                 "said": {one.name: float(one.said[number]) for one in self.judged}}
                for number, photo in enumerate(self.sample.photos)
            ],
        }  # fmt: skip


def print_report(report: StandingReport) -> None:
    """Print it."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, MOST_COLUMNS)
    photos = report.view.photos
    _print_head(console, report)
    if report.judged:
        _print_live(console, report.judged[0])
        for other in report.judged[1:]:
            _print_other(console, other, report.judged[0], report.beside[other.name])
    _print_questions(console, report)
    if photos.outside:
        surprises = photos.surprises_outside
        words = f"{number(photos.outside)}, and the miner had said otherwise of {number(surprises)}"
        _print_rows(console, "Outside the random tenth: not representative", [("labels", words), ("", INSTRUCTIVE)])


def _print_head(console: "Console", report: StandingReport) -> None:
    """Say what all of it rests on, and what is to be done where that is nothing."""
    photos, judged = report.view.photos, report.judged
    if judged:
        one = judged[0].figures
        scenes = (
            f"; {number(one.scenes)} scenes, as near-identical photos count once" if one.scenes < one.photos else ""
        )
        console.print(f"[bold]Real traffic, by {number(one.photos)} label{_s(one.photos)} of the random tenth[/]")
        console.print(
            f"{number(one.positives)} with roadwork, {number(one.negatives)} without{scenes}", style="bright_black"
        )
        return
    console.print(f"[bold]Real traffic[/]: {NONE_YET}")
    if photos.waiting:
        tenth = f", {number(photos.waiting_sampled)} of the tenth" if photos.waiting_sampled else ""
        console.print(f"{number(photos.waiting)} recorded photos wait{tenth}: `roadwork-miner label` shows them")
    else:
        console.print("nothing is recorded: RECORDER=images keeps the photos that validators send")


def _print_live(console: "Console", live: JudgedModel) -> None:
    figures, known = live.figures, live.standing
    rows: list[tuple[str, str | Text]] = []
    if figures.accuracy is None:
        rows.append(("right", f"{figures.right} of {figures.photos}"))
    else:
        rows.append(("accuracy", _measured(figures.accuracy, share, known.promised)))
    if figures.reward is not None:
        rows.append(("expected reward", _measured(figures.reward, fraction)))
    if figures.accuracy is not None:
        shares = {"precision": figures.precision, "recall": figures.recall}
        shown = {"MCC": fraction(figures.mcc), "AUC": fraction(figures.auc)} if figures.mcc is not None else {}
        shown |= {name: share(value) for name, value in shares.items() if value is not None}
        if shown:
            rows.append(("", "   ".join(f"{name} {value}" for name, value in shown.items())))
        found = f"{figures.true_positives} of {figures.positives} with roadwork"
        found += f", spared {figures.true_negatives} of {figures.negatives} without"
        rows += [("found", found), ("promised", _promise(known))]
    if figures.lack:
        rows.append(("too few" if figures.accuracy is None else "left out", figures.lack))
    precision = f", {known.precision}" if known.precision != "fp32" else ""
    _print_rows(console, f"{live.name}, which serves{precision}", rows)


def _promise(known: ModelStanding) -> str:
    if known.promised is None:
        return "nothing was measured on photos kept back"
    said = f"{share(known.promised)} on {number(known.promised_photos)} photos kept back"
    if known.is_below_promise:
        return f"{said}: [bold red]real traffic is below it, beyond chance[/]"
    return f"{said}, which real traffic does not contradict"


def _print_other(console: "Console", other: JudgedModel, live: JudgedModel, found: TrafficComparison) -> None:
    figures = other.figures
    rows: list[tuple[str, str | Text]] = []
    if figures.accuracy is not None:
        rows.append(("accuracy", _measured(figures.accuracy, share, other.standing.promised)))
    if figures.reward is not None:
        rows.append(("expected reward", _measured(figures.reward, fraction)))
    rows.append(("disagrees", _disagreements(found, live.name)))
    rows.append(("verdict", _verdict(found, live.name)))
    _print_rows(console, f"{other.name}, {'the shadow' if other.is_shadow else 'beside it'}", rows)


def _disagreements(found: TrafficComparison, live: str) -> str:
    if not found.disagreements:
        return f"on none of {number(found.photos)} photos"
    return (
        f"on {number(found.disagreements)} of {number(found.photos)} photos: right on {number(found.better)} of them, "
        f"{live} on {number(found.worse)}"
    )


def _verdict(found: TrafficComparison, live: str) -> str:
    gain = found.gain
    earns = f"{_signed(gain.value)} reward ({_signed(gain.low)} to {_signed(gain.high)})" if gain is not None else ""
    if found.is_settled and gain is not None:
        return f"[bold {'green' if gain.value > 0 else 'red'}]{'better' if gain.value > 0 else 'worse'}[/]: {earns}"
    told = f"{earns}, which may be chance; " if earns else ""
    if found.more is None:
        return f"{told}{'no difference is seen' if found.disagreements else 'they say the same'}"
    return f"{told}{number(found.more)} more label{_s(found.more)} would tell, if it is as it looks"


def _print_questions(console: "Console", report: StandingReport) -> None:
    """Say what more labels, and another threshold, would bring."""
    rows: list[tuple[str, str | Text]] = []
    waiting = report.view.photos.waiting_sampled
    if report.narrower is not None:
        one = report.narrower
        there = f"; {number(waiting)} of the tenth wait" if waiting else ""
        rows.append(
            (f"±{one.half * 100:.0f} points", f"of accuracy: {number(one.more)} more label{_s(one.more)}{there}")
        )
    if report.judged and report.judged[0].figures.accuracy is not None:
        rows.append(("threshold", _threshold(report.threshold)))
    if (last := report.view.improvement) is not None:
        gain = f", {_signed(last.gain)} reward" if last.gain is not None else ""
        kept = {True: ", promoted", False: ", not promoted", None: ""}[last.promoted]
        rows.append(("improved", f"{age(report.view.at - last.at)} ago{gain}{kept}"))
    if rows:
        _print_rows(console, "What more would bring", rows)


def _threshold(found: ThresholdError | str) -> str:
    if isinstance(found, str):
        return f"left out: {found}"
    gain = found.gain
    told = f"{_signed(gain.value)} reward ({_signed(gain.low)} to {_signed(gain.high)})"
    if found.is_worth_it:
        return f"[bold]{told}[/] at {found.threshold:.2f}: `calibrate --recorded` writes it down"
    return f"{told} at {found.threshold:.2f}, which may be chance" if gain.value > 0 else "no other would earn more"


def _measured(found: Estimate, said: Any, promised: float | None = None) -> "Text":
    """Return a figure, its interval, and both on a scale from 0 to 1; a stroke marks what was promised."""
    from rich.text import Text

    def cell(value: float) -> int:
        return min(CELLS - 1, int(value * CELLS))

    low, value, high = cell(found.low), cell(found.value), cell(found.high)
    marks = ["━" if low <= at <= high else "·" for at in range(CELLS)]
    text = Text.assemble((f"{said(found.value):>7}", "bold"), f"  {said(found.low):>6} to {said(found.high):<7} ")
    for at, mark in enumerate(marks):
        if at == value:
            text.append("●", "bold cyan")
        elif promised is not None and at == cell(promised):
            text.append("│", "yellow")
        else:
            text.append(mark, "cyan" if low <= at <= high else "bright_black")
    return text


def _print_rows(console: "Console", title: str, rows: "Sequence[tuple[str, str | Text]]") -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bright_black", no_wrap=True, min_width=15)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print()
    console.print(title, style="bold")
    console.print(table)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("0.", ".", 1)


def _s(count: int) -> str:
    return "s" * (count != 1)
