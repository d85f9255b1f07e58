"""`roadwork-miner tune`: measure how this machine serves the configured model best, once."""

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from detectors.load import PreparedModel
from detectors.machine import allowed_cores
from detectors.models.config import read_config
from detectors.registry import BACKENDS
from miner.bench import tuning
from miner.bench.subject import made_pictures, variants
from miner.bench.tuning import BURST, MeasuredVariant
from miner.bench.worker import BenchJob
from miner.cli.common import Config, Detector, EnvFile, Json, Set, load_settings
from miner.cli.preparation import start_errors
from miner.errors import ConfigurationError, CouldNotStart
from miner.inference.plan import folders, key_of, writable, write_plan
from miner.settings.settings import environment_of
from miner.settings.validators import AUTO


def tune(
    env_file: EnvFile = None,
    detector: Detector = None,
    config: Config = None,
    seconds: Annotated[float, typer.Option(min=5, help="Longest time to take.")] = 60.0,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Measure backends, prepared precisions and splits of the cores; store the best as the plan.

    The next start reads the plan in milliseconds and says what it chose. Another model, a precision made anew, another
    CPU, quota or library version asks for another plan.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    settings = load_settings(env_file, set_, image_detector=detector, image_detector_config=config)
    if settings.is_remote:
        raise ConfigurationError("IMAGE_DETECTOR_BACKEND=remote: tune measures this machine only")
    began = time.monotonic()
    with start_errors(settings), tempfile.TemporaryDirectory() as scratch:
        place = writable(folders(settings))
        model, cores = PreparedModel.find(read_config(settings.detector_config), settings.models_dir), allowed_cores()
        chosen = [settings.image_detector_backend], [settings.image_detector_precision]
        backends, precisions = (None if names == [AUTO] else names for names in chosen)
        found = variants(settings.image_detector, model, backends, precisions)
        # The reference path is never the fastest; it takes part where it is asked for.
        found = [variant for variant in found if not BACKENDS[variant[0]].original] or found
        pictures = [str(path) for path in made_pictures(Path(scratch)).paths]
        jobs = [
            BenchJob(
                kind="ours",
                detector=settings.image_detector,
                config=settings.detector_config,
                revision=model.manifest.revision,
                models_dir=str(settings.models_dir),
                backend=backend,
                precision=precision,
                slots=1,
                threads=cores,
                pictures=pictures,
            )
            for backend, precision in found
        ]
        environment = environment_of(settings)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task("", total=seconds)

            def progress(words: str) -> None:
                bar.update(task, description=words, completed=min(seconds, time.monotonic() - began))

            first, faults = tuning.measure(jobs, environment, began + seconds * tuning.VARIANTS_SHARE, progress)
            if not first:
                raise CouldNotStart("; ".join([*faults, "more --seconds may help"]))
            leader = tuning.best(tuning.faithful(first)).job
            more = tuning.ways(first[0].job, leader, cores)
            second, later = tuning.measure(more, environment, began + seconds, progress)
        chosen_row, default = tuning.decide(first, second)
        plan = tuning.plan_of(chosen_row, default)
        path = write_plan(place, key_of(model, cores), plan)
    if as_json:
        rows = [_facts(row) for row in [*first, *second]]
        print(json.dumps({"plan": asdict(plan), "file": str(path), "rows": rows, "left_out": faults + later}))
        return
    _show([*first, *second], chosen_row, faults + later)
    print(f"{chosen_row.words} ({plan.why}); stored for the next start")


def _facts(row: MeasuredVariant) -> dict[str, object]:
    job = row.job
    return {
        "backend": job.backend, "precision": job.precision, "slots": job.slots, "threads": job.threads,
        "arena": job.arena, "alone": row.alone, "bursts": row.bursts, "resident": row.resident, "score": row.score,
    }  # fmt: skip


def _show(rows: "list[MeasuredVariant]", chosen: MeasuredVariant, left_out: list[str]) -> None:
    import statistics

    from rich.console import Console
    from rich.table import Table

    table = Table("way to serve", "alone, ms", f"{BURST} at once, ms", "memory, MB")
    for row in rows:
        cells = (
            row.words, f"{statistics.median(row.alone) * 1e3:.1f}", f"{statistics.median(row.bursts) * 1e3:.1f}",
            f"{row.resident / 1e6:.0f}",
        )  # fmt: skip
        table.add_row(*cells, style="bold green" if row is chosen else "")
    console = Console()
    console.print(table)
    for line in left_out:
        console.print(f"left out: {line}")
