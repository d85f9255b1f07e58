"""`roadwork-miner evaluate`: how good models are on labelled photos, and which of them is better."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from detectors.evaluation import evaluate as evaluating
from detectors.evaluation.evaluate import UNTRANSFORMED, Figures, Sending, ask, in_words
from detectors.models.manifest import Precision
from detectors.photos.transforms import VIEWS
from miner.bench.output import check_plot
from miner.cli.common import EnvFile, Json, Set, load_settings
from miner.cli.evaluation_of_views import compare_views
from miner.cli.training import (
    Models,
    find_models,
    need_scikit_learn,
    open_model,
    progress_bar,
    read_labelled,
    training_errors,
)
from miner.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.evaluation.estimates import Estimate
    from detectors.photos.labelled import LabelledPhotos


def evaluate(
    data: Annotated[Path, typer.Argument(help="Folder with `roadwork` and `no_roadwork`, not used in training.")],
    models: Models = None,
    precision: Annotated[Precision, typer.Option(help="Precision of a prepared variant.")] = "fp32",
    era: Annotated[
        Literal["letterbox", "native", "augmented"] | None,
        typer.Option(help="Send them as validators of that era, as `simulate` does; default: the files as they are."),
    ] = None,
    augment: Annotated[
        bool, typer.Option("--augment", help="Also in every era, and letterboxed with JPEG, blur, noise and all three.")
    ] = False,
    views: Annotated[
        list[str] | None,
        typer.Option(
            metavar='"VIEW, …; POOL"',
            help='Compare sets of views, such as "whole, tiles 2x3; max" (or mean), with the whole; may be repeated.',
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of augmentation and resamples.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw confusion matrix and reliability.")
    ] = None,
    env_file: EnvFile = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Measure models on the same photos: figures, expected reward with its interval, time.

    Which is better is judged in pairs, photo by photo, so a difference can be more than noise where intervals overlap.
    """
    settings = load_settings(env_file, set_)
    need_scikit_learn("evaluate")
    if plot is not None:
        check_plot(plot, (".png", ".svg", ".pdf"))
    if views is not None:
        if augment or plot is not None:
            raise ConfigurationError(f"--views={views[0]}: sets of views are compared without --augment and --plot")
        compare_views(settings, data, models, precision, views, era or UNTRANSFORMED, seed, as_json=as_json)
        return
    with training_errors():
        found = find_models(settings, models)
        photos = read_labelled(data)
        labels, first = photos.labels == 1, era or UNTRANSFORMED
        sendings: list[Sending] = list(dict.fromkeys((first, *VIEWS))) if augment else [first]
        detectors = {name: open_model(settings, config, precision) for name, config in found.items()}
        said: dict[str, dict[str, Any]] = {view: {} for view in sendings}
        seconds: dict[str, dict[str, Any]] = {view: {} for view in sendings}
        with progress_bar("predicting", len(photos.photos) * len(sendings) * len(detectors)) as tell:
            for view in sendings:
                for name, detector in detectors.items():
                    said[view][name], seconds[view][name] = ask(detector, photos.photos, view, seed, tell)
        figures = {
            view: {
                name: evaluating.judge(labels, answers[name], seconds[view][name], seed, photos.groups)
                for name in found
            }
            for view, answers in said.items()
        }
        best, gains = evaluating.leads(labels, said[first], seed, photos.groups)
        classes = {name: detector.roadwork for name, detector in detectors.items()}
        warned = evaluating.warnings(classes, figures[first])
        if plot is not None:
            from detectors.evaluation.plots import draw

            draw(photos.labels, said[first], plot)
    if as_json:
        told = {
            "classes": classes, "photos": len(labels), "left_out": photos.skipped,
            "views": {view: {name: one.plain() for name, one in rows.items()} for view, rows in figures.items()},
            "best": best, "gains": {name: asdict(gain) | {"noise": gain.is_noise} for name, gain in gains.items()},
            "answers": _by_photo(photos, said),
        }  # fmt: skip
        print(json.dumps(told))
        return
    for name, words in classes.items():
        print(f"{name}: roadwork = {words}")
    _show(figures, best, gains)
    for line in warned:
        print(line)


def _by_photo(photos: "LabelledPhotos", said: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for scripts what each model says of each photo in each view."""
    return [
        {
            "picture": photo.name,
            "roadwork": photo.label == 1,
            "said": {view: {name: float(row[number]) for name, row in rows.items()} for view, rows in said.items()},
        }
        for number, photo in enumerate(photos.photos)
    ]


def _show(figures: "dict[str, dict[str, Figures]]", best: str, gains: "dict[str, Estimate]") -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("accuracy (95 %)", "MCC", "precision", "recall", "AUC", "Brier", "expected reward (95 %)", "ms")
    table = Table("model", "photos sent", *columns)
    for view, rows in figures.items():
        for name, one in rows.items():
            table.add_row(
                name, view, str(one.accuracy), f"{one.mcc:.3f}", f"{one.precision:.3f}", f"{one.recall:.3f}",
                f"{one.auc:.3f}", f"{one.brier:.3f}", str(one.reward), f"{one.seconds * 1e3:.1f}",
            )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for line in in_words(best, gains):
        print(line)
