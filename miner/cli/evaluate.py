"""`roadwork-miner evaluate`: how good models are on labelled photos, and which of them is better."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from detectors.errors import ImageError
from detectors.evaluation import evaluate as evaluating
from detectors.evaluation import one_class
from detectors.evaluation.evaluate import UNTRANSFORMED, Figures, Sending, ask
from detectors.evaluation.one_class import MISTAKES, ClassFigures, one_label
from detectors.models.manifest import Precision
from detectors.photos.eras import drawn, era_of
from detectors.photos.labelled import CLASSES
from detectors.photos.transforms import ERAS, VIEWS
from miner.bench.output import check_plot
from miner.cli.common import EnvFile, Json, Set, load_settings
from miner.cli.evaluation_of_views import compare_views
from miner.cli.training import (
    ERA_HELP,
    EraChoice,
    Models,
    Recorded,
    find_models,
    mix_for,
    need_packages,
    open_model,
    progress_bar,
    read_labelled,
    read_recorded,
    training_errors,
)
from miner.errors import ConfigurationError
from miner.formats import NO_VALUE
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from detectors.photos.labelled import LabelledPhotos, Photo

AnyFigures = Figures | ClassFigures
WIDE = 130  # columns that all figures take; a narrower terminal shows them in two tables
FIRST_HALF = ("accuracy (95 %)", "Brier", "ms")
SECOND_HALF = ("MCC", "precision", "recall", "AUC", "expected reward (95 %)")


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with `roadwork` and `no_roadwork`, or one of them, not used in training."),
    ] = None,
    recorded: Recorded = False,
    models: Models = None,
    precision: Annotated[Precision, typer.Option(help="Precision of a prepared variant.")] = "fp32",
    era: Annotated[EraChoice | None, typer.Option("--era", help=ERA_HELP + ".")] = None,
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
    Of photos of one class it says the false alarms, or the works that are missed. Photos that were recorded are also
    judged by the era that they were sent in.
    """
    if (data is not None) == recorded:
        raise ConfigurationError("evaluate: a folder of photos or --recorded is needed, and not both")
    if recorded and (era is not None or views is not None):
        raise ConfigurationError("--recorded has the photos as they were sent: leave --era and --views out")
    settings = load_settings(env_file, set_)
    need_packages("evaluate")
    if plot is not None:
        check_plot(plot, (".png", ".svg", ".pdf"))
    if views is not None:
        if augment or plot is not None:
            raise ConfigurationError(f"--views={views[0]}: sets of views are compared without --augment and --plot")
        sending = next((one for one in ERAS if one == era), None)
        if era is not None and sending is None:
            raise ConfigurationError(f"--era={era}: --views takes one of {', '.join(ERAS)}")
        assert data is not None
        compare_views(settings, data, models, precision, views, sending or UNTRANSFORMED, seed, as_json=as_json)
        return
    with training_errors():
        found = find_models(settings, models)
        photos = (
            read_labelled(data, one_will_do=True) if data is not None else read_recorded(settings, one_will_do=True)
        )
        labels = photos.labels == 1
        only, groups = one_label(labels), photos.groups
        if only is not None and plot is not None:
            raise ConfigurationError(
                f"--plot={plot}: needs photos of both classes; {data or '--recorded'} has {CLASSES[only]} alone"
            )
        first = era.value if era is not None else UNTRANSFORMED
        sent_as = _sendings(settings, photos.photos, era, seed, augment=augment)
        detectors = {name: open_model(settings, config, precision) for name, config in found.items()}
        said: dict[str, dict[str, Any]] = {view: {} for view in sent_as}
        seconds: dict[str, dict[str, Any]] = {view: {} for view in sent_as}
        with progress_bar("predicting", len(photos.photos) * len(sent_as) * len(detectors)) as tell:
            for view, sendings in sent_as.items():
                for name, detector in detectors.items():
                    said[view][name], seconds[view][name] = ask(detector, photos.photos, sendings, seed, tell)

        def judged(view: str, chosen: "np.ndarray[Any, np.dtype[np.bool_]]") -> dict[str, AnyFigures]:
            return {
                name: _judge(
                    labels[chosen], said[view][name][chosen], seconds[view][name][chosen], seed, groups[chosen]
                )
                for name in found
            }

        figures = {view: judged(view, np.ones(len(labels), dtype=bool)) for view in sent_as}
        eras = _eras(photos.photos, sent_as[first])
        by_era = {one: judged(first, eras == one) for one in ERAS if 0 < (eras == one).sum() < len(eras)}
        lead = evaluating.leads if only is None else one_class.most_right
        best, gains = lead(labels, said[first], seed, groups)
        classes = {name: detector.roadwork for name, detector in detectors.items()}
        warned = evaluating.warnings(classes, figures[first])
        if plot is not None:
            from detectors.evaluation.plots import draw

            draw(photos.labels, said[first], plot)
    if as_json:
        told = {
            "classes": classes, "photos": len(labels), "left_out": photos.skipped,
            "only": CLASSES[only] if only is not None else None,
            "views": {view: {name: one.plain() for name, one in rows.items()} for view, rows in figures.items()},
            "eras": {one: {name: each.plain() for name, each in rows.items()} for one, rows in by_era.items()},
            "best": best, "gains": {name: asdict(gain) | {"noise": gain.is_noise} for name, gain in gains.items()},
            "warnings": warned, "answers": _by_photo(photos, said),
        }  # fmt: skip
        print(json.dumps(told))
        return
    for name, words in classes.items():
        print(f"{name}: roadwork = {words}")
    _show(figures | {f"{one} alone": rows for one, rows in by_era.items()}, only)
    for line in evaluating.in_words(best, gains) if only is None else one_class.in_words(best, gains):
        print(line)
    if only is not None:
        print(f"photos of {CLASSES[only]} alone: MCC, AUC, precision, recall and the expected reward need both classes")
    for line in warned:
        print(line)


def _sendings(
    settings: Settings, photos: "Sequence[Photo]", era: EraChoice | None, seed: int, *, augment: bool
) -> dict[str, list[Sending]]:
    """Return how each photo is sent, by what that is called.

    Raises:
        ConfigurationError: eras are to be as recorded, and nothing was.
    """
    sent_as: dict[str, list[Sending]] = {}
    if era is None:
        sent_as[UNTRANSFORMED] = [UNTRANSFORMED] * len(photos)
    else:
        sent_as[era.value] = [*drawn(photos, mix_for(settings, era), seed)]
    if augment:
        sent_as |= {view: [view] * len(photos) for view in VIEWS if view not in sent_as}
    return sent_as


def _eras(photos: "Sequence[Photo]", sendings: Sequence[Sending]) -> "np.ndarray[Any, np.dtype[np.str_]]":
    """Return the era of each photo: the one that it is sent in, else the one that the file shows."""
    found: list[str] = []
    for photo, sending in zip(photos, sendings, strict=True):
        try:
            found.append(era_of(photo.path.read_bytes()) if sending == UNTRANSFORMED else sending)
        except (ImageError, OSError):  # it has changed since it was read
            found.append("")
    return np.array(found)


def _judge(labels: Any, said: Any, seconds: Any, seed: int, groups: Any) -> AnyFigures:
    if one_label(labels) is not None:
        return one_class.judge_class(labels, said, seconds, groups)
    return evaluating.judge(labels, said, seconds, seed, groups)


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


def _show(figures: Mapping[str, Mapping[str, AnyFigures]], only: int | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    both = ("accuracy (95 %)", "MCC", "precision", "recall", "AUC", "Brier", "expected reward (95 %)", "ms")
    columns = both if only is None else (MISTAKES[only], "accuracy (95 %)", "Brier", "ms")
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    halves = (both,) if only is not None or console.width >= WIDE else (FIRST_HALF, SECOND_HALF)
    for half in halves:
        shown = [number for number, column in enumerate(columns) if only is not None or column in half]
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        is_first = half is halves[0]  # the next one has no room for the number of photos
        for column in ("model", "sent", "photos")[: 3 if is_first else 2]:
            table.add_column(column, overflow="fold")
        for number in shown:
            table.add_column(columns[number], no_wrap=True)
        for view, rows in figures.items():
            for name, one in rows.items():
                cells, count = _cells(one, only), [str(one.photos)] * is_first
                table.add_row(name, view, *count, *(cells[number] for number in shown))
        console.print(table)


def _cells(one: AnyFigures, only: int | None) -> list[str]:
    """Return a row's figures; one that has no meaning, such as a precision without a yes, is a dash."""
    brier, milliseconds = f"{one.brier:.3f}", f"{one.seconds * 1e3:.1f}"
    if isinstance(one, Figures):
        shares = [_known(value) for value in (one.mcc, one.precision, one.recall, one.auc)]
        return [str(one.accuracy), *shares, brier, str(one.reward), milliseconds]
    if only is not None:
        return [str(one.wrong), str(one.accuracy), brier, milliseconds]
    recall = f"{one.accuracy.value:.3f}" if one.label else NO_VALUE
    return [str(one.accuracy), NO_VALUE, NO_VALUE, recall, NO_VALUE, brier, NO_VALUE, milliseconds]


def _known(value: float) -> str:
    return NO_VALUE if np.isnan(value) else f"{value:.3f}"
