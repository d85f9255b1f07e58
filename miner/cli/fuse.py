"""`roadwork-miner fuse`: the best combination of several models, from their probabilities alone."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detectors.evaluation.branch_file import BranchFile, write_ensemble
from detectors.evaluation.cascade import WHOLE, Cascade, CascadeStage, fit_cascade, order_of
from detectors.evaluation.combine import Figured, JudgedCombination, Trial, judge_ways
from detectors.evaluation.fitters import fit
from detectors.models.calibration import Stage
from miner.cli.common import EnvFile, Json, Set, load_settings
from miner.cli.training import EraOption, in_era, need_packages, training_errors
from miner.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.evaluation.estimates import Estimate
    from detectors.models.calibration import Fusion

Row = tuple[JudgedCombination, Figured]
LEAST_FOLDS = 3  # of a cascade: two of them are left to widen bands by, beside the one that is judged


def fuse(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="As `precompute branches` writes it.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="The ensemble's file: made, or its fusion put in place of the old one."),
    ] = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Also fit a cascade: cheap branches answer where they are sure.")
    ] = False,
    order: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Branches from cheap to dear; default: by their seconds.")
    ] = None,
    era: EraOption = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and resamples.")] = 0,
    env_file: EnvFile = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Judge every combination of the branches by cross-validation, and write the best down.

    What is fitted is shrunk towards the plain mean of all branches; the better of two such combinations is chosen, or
    another that surely earns more. Accuracy and MCC weigh both classes alike, as validators draw them. Combinations of
    some of the branches become fallbacks where they beat no answer.
    """
    if order is not None and not stages:
        raise ConfigurationError(f"--order={order}: only --stages has an order")
    if stages and folds < LEAST_FOLDS:
        raise ConfigurationError(f"--folds={folds}: --stages needs {LEAST_FOLDS} or more: its bands have folds within")
    need_packages("fuse")
    settings = load_settings(env_file, set_)
    with training_errors():
        found = in_era(settings, file, BranchFile.read(file), era, seed)
        named = [name.strip() for name in order.split(",")] if order is not None else None
        sequence = order_of(list(found.branches), found.seconds, named) if stages else []
        trial = judge_ways(
            found.labels, found.branches, folds, seed, lambda words: print(f"· {words}", file=sys.stderr), found.groups
        )
        rows = [(row, trial.figures(row.said, seed)) for row in trial.rows]
        choice = trial.choose()
        figures = trial.figures(choice.said, seed)
        fusion = _fitted(found, choice, figures, seed)
        fallbacks = _fallbacks(found, trial, choice, seed)
        cascade = fit_cascade(trial, choice, sequence, found.seconds, seed) if stages else None
        cheaper = [_stage(found, stage, seed) for stage in cascade.stages[:-1]] if cascade is not None else []
    if as_json:
        print(json.dumps({
            "photos": len(found.labels), "rows": [_facts(row) for row in rows], "chosen": fusion.model_dump(),
            "gain": asdict(figures.gain), "fallbacks": [fallback.model_dump() for fallback in fallbacks],
            "stages": [stage.model_dump() for stage in cheaper], "cascade": _cascade_facts(cascade),
            "file": str(out) if out else None,
        }))  # fmt: skip
    else:
        _show(rows, choice, figures, len(found.labels))
        if cascade is not None:
            _show_cascade(cascade, found)
    if out is not None:
        with training_errors():
            write_ensemble(out, fusion, fallbacks, found.sources, cheaper)
        words = f"{out}: {fusion.words}; fallbacks: {', '.join(one.words for one in fallbacks) or 'none'}"
        print(words, file=sys.stderr if as_json else sys.stdout)
    elif len(fusion.branches) == 1 and not as_json:
        print(f"one model alone is better: `roadwork-miner calibrate {file} --branch {fusion.branches[0]}`")


def _fitted(found: BranchFile, row: JudgedCombination, figures: Figured, seed: int) -> "Fusion":
    fusion = fit(row.way, found.labels, found.branches, seed)
    return fusion.model_copy(update={"measured": figures.measured(len(found.labels))})


def _fallbacks(found: BranchFile, trial: Trial, choice: JudgedCombination, seed: int) -> "list[Fusion]":
    """Return the best of each proper part of the chosen branches that beats no answer, the larger parts first."""
    parts = dict.fromkeys(row.way.branches for row in trial.rows if set(row.way.branches) < set(choice.way.branches))
    each = [(best := trial.part(part).choose(), trial.figures(best.said, seed)) for part in parts]
    each.sort(key=lambda pair: (-len(pair[0].way.branches), -pair[1].reward.value))
    fitted = [_fitted(found, row, figures, seed) for row, figures in each]
    return [fusion for fusion in fitted if fusion.is_worth_answering]


def _stage(found: BranchFile, stage: CascadeStage, seed: int) -> Stage:
    return Stage.model_validate(_fitted(found, stage.choice, stage.figures, seed).model_dump() | {"band": stage.band})


def _facts(row: Row) -> dict[str, object]:
    judged, figures = row
    return {"way": judged.way.words, **asdict(figures)}


def _cascade_facts(cascade: Cascade | None) -> dict[str, object] | None:
    if cascade is None:
        return None
    return {
        "stages": [
            {
                "way": stage.choice.way.words, "seconds": stage.seconds, "band": stage.band, "goes_on": stage.goes_on,
                **asdict(stage.figures),
            }
            for stage in cascade.stages
        ],
        "seconds": cascade.seconds, "over_last": asdict(cascade.over_last), "faults": cascade.faults,
        **asdict(cascade.figures),
    }  # fmt: skip


def _signed(gain: "Estimate") -> str:
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def _show(rows: list[Row], choice: JudgedCombination, figures: Figured, photos: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("combination", "accuracy", "MCC", "expected reward (95 %)", "gain over the plain mean")
    for row, one in rows:
        style = "bold green" if row.way == choice.way else ""
        cells = (f"{one.accuracy:.3f}", f"{one.mcc:.3f}", str(one.reward), _signed(one.gain))
        table.add_row(row.way.words, *cells, style=style)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    print(
        f"chosen on {photos} photos: {choice.way.words}. The choice itself, cross-validated: expected reward "
        f"{figures.reward}, {_signed(figures.gain)} over the plain mean of all"
    )


def _show_cascade(cascade: Cascade, found: BranchFile) -> None:
    from rich.console import Console
    from rich.table import Table

    is_timed = all(name in found.seconds for name in found.branches)
    unit = "seconds" if is_timed else "branches"

    def cells(figures: Figured, seconds: float) -> tuple[str, str, str]:
        return f"{figures.accuracy:.3f}", str(figures.reward), f"{seconds:.4f}" if is_timed else f"{seconds:.2f}"

    table = Table("stage", "accuracy", "expected reward (95 %)", unit, "goes on", "between")
    for stage in cascade.stages:
        more = ("", "") if stage.band is None else (f"{stage.goes_on:.0%}", "{:.3f} and {:.3f}".format(*stage.band))
        table.add_row(stage.choice.way.words, *cells(stage.figures, stage.seconds), *more)
    if len(cascade.stages) > 1:
        table.add_row("the cascade", *cells(cascade.figures, cascade.seconds), "", "", style="bold green")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for fault in cascade.faults:
        print(fault)
    if len(cascade.stages) == 1:
        print("no cascade: no cheaper stage is worth one")
        return
    if all(stage.band in (None, WHOLE) for stage in cascade.stages):
        return  # nothing is saved while there is time, whatever the bands of the folds would save
    saved = max(0.0, 1 - cascade.seconds / cascade.stages[-1].seconds)
    print(
        f"the cascade with time enough, its bands fitted anew in each fold: {saved:.0%} of the {unit} saved, "
        f"{_signed(cascade.over_last)} of reward over all branches for every picture"
    )
