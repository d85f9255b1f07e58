"""`roadwork-miner fuse`: the best combination of several models, from their probabilities alone."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detectors.evaluation.branch_file import BranchFile, write_ensemble
from detectors.evaluation.combine import MeasuredCombination, choose, fit, measure, measured
from miner.cli.common import Json
from miner.cli.training import need_scikit_learn, training_errors

if TYPE_CHECKING:
    from detectors.models.calibration import Fusion


def fuse(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="As `precompute branches` writes it.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="The ensemble's file: made, or its fusion put in place of the old one."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and resamples.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge every combination of the branches by cross-validation, and write the best down.

    The simplest within one standard error of the best is chosen. Accuracy and MCC weigh both classes alike, as
    validators draw them. Combinations of some of the branches become fallbacks where they beat no answer.
    """
    need_scikit_learn("fuse")
    with training_errors():
        found = BranchFile.read(file)
        rows = measure(
            found.labels, found.branches, folds, seed, lambda words: print(f"· {words}", file=sys.stderr), found.groups
        )
        chosen = choose(rows, found.labels)

        def fitted(row: MeasuredCombination) -> "Fusion":
            fusion = fit(row.way, found.labels, found.branches, seed)
            return fusion.model_copy(update={"measured": measured(row, len(found.labels))})

        fusion = fitted(chosen)
        parts = [fitted(row) for row in _fallbacks(rows, chosen, found)]
        fallbacks = [part for part in parts if part.is_worth_answering]
        if out is not None:
            write_ensemble(out, fusion, fallbacks, found.sources)
    if as_json:
        print(json.dumps({
            "photos": len(found.labels), "rows": [_facts(row) for row in rows], "chosen": fusion.model_dump(),
            "fallbacks": [fallback.model_dump() for fallback in fallbacks], "file": str(out) if out else None,
        }))  # fmt: skip
        return
    _show(rows, chosen, len(found.labels))
    if out is not None:
        print(f"{out}: {fusion.words}; fallbacks: {', '.join(one.words for one in fallbacks) or 'none'}")
    elif len(fusion.branches) == 1:
        print(f"one model alone is as good: `roadwork-miner calibrate {file} --branch {fusion.branches[0]}`")


def _fallbacks(
    rows: "list[MeasuredCombination]", chosen: MeasuredCombination, found: BranchFile
) -> "list[MeasuredCombination]":
    """Return the best of each proper part of the chosen branches, the larger parts first."""

    parts = {row.way.branches for row in rows if set(row.way.branches) < set(chosen.way.branches)}
    each = [choose([row for row in rows if row.way.branches == part], found.labels) for part in parts]
    return sorted(each, key=lambda row: (-len(row.way.branches), -row.reward.value))


def _facts(row: MeasuredCombination) -> dict[str, object]:
    return {
        "way": row.way.words, "accuracy": row.accuracy, "mcc": row.mcc, "reward": asdict(row.reward),
        "gain": asdict(row.gain),
    }  # fmt: skip


def _show(rows: "list[MeasuredCombination]", chosen: MeasuredCombination, photos: int) -> None:
    from rich.console import Console
    from rich.table import Table

    first = rows[0].way.words
    table = Table("combination", "accuracy", "MCC", "expected reward (95 %)", f"gain over {first}")
    for row in rows:
        style = "bold green" if row is chosen else ""
        gain = f"{row.gain.value:+.3f} ({row.gain.low:+.3f} to {row.gain.high:+.3f})"
        table.add_row(row.way.words, f"{row.accuracy:.3f}", f"{row.mcc:.3f}", str(row.reward), gain, style=style)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    print(f"chosen on {photos} photos by cross-validation: {chosen.way.words}")
