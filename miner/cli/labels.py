"""`roadwork-miner labels`: what is wrong, double or hard among labelled photos, for somebody to look at."""

import json
from pathlib import Path
from typing import Annotated

import typer

from detectors.files import write_safely
from detectors.training.config import TrainConfig
from detectors.training.job import Job
from miner.cli.common import Json
from miner.cli.training import (
    CACHE_FOLDER,
    cache_folder,
    make_probe,
    make_screen,
    need_packages,
    parse,
    read_machine,
    training_errors,
)
from miner.errors import ConfigurationError, CouldNotStart

SETTINGS = ("labels", "revision", "seed", "threads", "workers", "batch_size", "micro_batch", "max_hours")


def labels(
    data: Annotated[str, typer.Argument(help="Folder of photos, or hf:DATASET, as for `train`.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE.html", help="The sheet; a table of the same name, .csv, lies beside it.")
    ] = Path("doubts.html"),
    model: Annotated[str | None, typer.Option(help="As for `train` (lite2).")] = None,
    cache: Annotated[
        Path | None, typer.Option(help=f"Features of frozen networks, which `train` uses too ({CACHE_FOLDER}).")
    ] = None,
    as_json: Json = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help=f"As for `train`: {', '.join(SETTINGS)}."),
    ] = None,
) -> None:
    """Find photos that may lie in the wrong folder, near-duplicates and hard negatives, on one sheet.

    Each photo is judged by a layer that has learnt from others, on features of a frozen network; no file is moved. What
    a kill leaves of the features is kept, and the same command goes on from there.
    """
    if out.suffix != ".html":
        raise ConfigurationError(f"--out={out}: a name that ends in .html is needed")
    need_packages("labels", "train")
    with training_errors(lambda: "the same command goes on from the features that are there"):
        from detectors.training.label_check import check_labels
        from miner.cli.label_sheet import render

        values = parse(set_, {"data": data, "model": model})
        if others := sorted(values.keys() - {*SETTINGS, "data", "model"}):
            raise ConfigurationError(f"--set {others[0]}={values[others[0]]}: {', '.join(SETTINGS)} count here")
        used = TrainConfig.make(values)
        used.check_places()
        home = cache_folder(cache)
        report = check_labels(Job(used, home, home, read_machine(), make_probe(), make_screen()))
        table = out.with_suffix(".csv")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_safely(out, render(report, used.data))
            report.write_csv(table)
        except OSError as error:
            raise CouldNotStart(f"--out={out}: can't be written: {error.strerror or error}") from error
    if as_json:
        facts = {"photos": report.judged, "sheet": str(out), "table": str(table), "left_out": list(report.skipped)}
        print(json.dumps(facts | {"found": list(report.rows())}))
        return
    contradictory = sum(pair.is_contradictory for pair in report.pairs)
    print(
        f"{len(report.doubts)} of {report.judged} labels in doubt, {len(report.pairs)} pairs of near-duplicates, "
        f"{contradictory} of them in both classes: {out} shows them, {table} lists them"
    )
