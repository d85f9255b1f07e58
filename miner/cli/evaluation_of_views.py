"""`evaluate --views`: what sets of views of each picture bring a model, and what they cost."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from detectors.evaluation.evaluate import Sending
from detectors.evaluation.view_sets import ALONE, MeasuredSet, advised, ask_views, measure_sets
from detectors.models.manifest import Precision
from detectors.network import Network
from detectors.photos.views import WHOLE, PooledViews, parse, views_of
from miner.cli.training import find_models, open_model, progress_bar, read_labelled, training_errors
from miner.errors import ConfigurationError
from miner.settings.settings import Settings


def compare_views(
    settings: Settings, data: Path, models: list[str] | None, precision: Precision, named: Sequence[str],
    sending: Sending, seed: int, *, as_json: bool,
) -> None:  # fmt: skip
    """Ask each model about every view of labelled photos, print what each set brings, and advise what gains.

    Raises:
        ConfigurationError: a set can't be read, or a model is an ensemble.
    """
    sets = [read_set(text) for text in named]
    with training_errors():
        found = find_models(settings, models)
        for name, config in found.items():
            if config.branches is not None:
                raise ConfigurationError(f"--model={name}: each of its branches has views of its own: name one of them")
        photos = read_labelled(data)
        rows: dict[str, list[MeasuredSet]] = {}
        for name, config in found.items():
            detector = open_model(settings, config.model_copy(update={"views": (), "pool": None}), precision)
            assert isinstance(detector, Network)
            if detector.head is not None:
                raise ConfigurationError(f"--model={name}: its head judges {detector.view_words} alone: drop --views")
            with progress_bar(name, len(photos.photos)) as tell:
                asked = ask_views(detector, photos.photos, sets, sending, seed, tell)
            rows[name] = measure_sets(photos.labels == 1, asked, sets, photos.groups, seed=seed)
            detector.close()
    if as_json:
        told = {
            name: {
                "sets": [row.plain() for row in each],
                "advised": best.yaml if (best := advised(each)) is not None else None,
            }
            for name, each in rows.items()
        }
        print(json.dumps({"photos": len(photos.photos), "left_out": photos.skipped, "models": told}))
        return
    for name, each in rows.items():
        _show(name, each, len(photos.photos))


def read_set(text: str) -> PooledViews:
    """Return the set of views that a text names: `whole, tiles 2x3; max`, and `mean` where it names no pool.

    Raises:
        ConfigurationError: it names something else.
    """
    named, _, pool = text.partition(";")
    try:
        parts = parse(named)
    except ValueError as error:
        raise ConfigurationError(f"--views={text}: {error}") from error
    match pool.strip() or "mean":
        case "mean" | "max" as known:
            return views_of(parts, known) or ALONE
    raise ConfigurationError(f"--views={text}: mean or max is allowed behind the semicolon")


def _show(name: str, rows: Sequence[MeasuredSet], photos: int) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("accuracy", "recall", "specificity", "expected reward (95 %)", "gain over the whole (95 %)")
    table = Table("views", *columns, "accuracy at 0.5", "recall", "specificity", "ms", "× whole")
    for row in rows:
        own, half, gain = row.own, row.half, row.gain
        interval = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        table.add_row(
            WHOLE if row is rows[0] else str(row.views),
            *(f"{one:.3f}" for one in (own.accuracy, own.recall, own.specificity)), str(row.reward),
            "" if row is rows[0] else interval,
            *(f"{one:.3f}" for one in (half.accuracy, half.recall, half.specificity)),
            f"{row.seconds * 1e3:.1f}", f"{row.times:.1f}",
        )  # fmt: skip
    print(f"{name}: {photos} photos; at a threshold of its own by cross-validation, both classes weighed alike")
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    best = advised(rows)
    if best is None:
        print("none gains on the whole picture by more than chance: leave `views` out")
    else:
        print(f"write into the YAML file, for {best.times:.1f} times the time of a picture:\n{best.yaml}")
