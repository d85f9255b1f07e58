"""`roadwork-miner tune`: measure how this machine serves the configured model best, once."""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from detectors.base import Way, side_by_side
from detectors.console import bar_on
from detectors.load import PreparedModel
from detectors.machine import allowed_cores, read_headroom
from detectors.models.config import read_config
from detectors.registry import BACKENDS, DEFAULT, MERGED
from miner.bench import tuning
from miner.bench.subject import Variant, made_pictures, variants
from miner.bench.tuning import BURST, MeasuredVariant
from miner.bench.worker import BenchJob
from miner.cli.common import Config, Detector, EnvFile, Json, Set, load_settings
from miner.cli.preparation import start_errors
from miner.errors import ConfigurationError, CouldNotStart
from miner.inference.plan import folders, key_of, writable, write_plan
from miner.settings.settings import Settings, environment_of
from miner.settings.validators import AUTO

SECONDS = 60.0


def tune(
    env_file: EnvFile = None,
    detector: Detector = None,
    config: Config = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=5, help="Longest time to take; default: a minute, of an ensemble one for each branch."),
    ] = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Measure backends, prepared precisions and splits of the cores; store the best as the plan.

    The next start reads the plan in milliseconds and says what it chose. Another model, a precision made anew, another
    CPU, quota or library version asks for another plan.
    """
    from rich.console import Console

    settings = load_settings(env_file, set_, image_detector=detector, image_detector_config=config)
    if settings.is_remote:
        raise ConfigurationError("IMAGE_DETECTOR_BACKEND=remote: tune measures this machine only")
    began = time.monotonic()
    with start_errors(settings), tempfile.TemporaryDirectory() as scratch:
        place = writable(folders(settings))
        model, cores = PreparedModel.find(read_config(settings.detector_config), settings.models_dir), allowed_cores()
        allowed = seconds or SECONDS * max(1, len(model.branches))
        pictures = [str(path) for path in made_pictures(Path(scratch)).paths]
        template = BenchJob(
            kind="ours",
            detector=settings.image_detector,
            config=settings.detector_config,
            revision=model.manifest.revision,
            models_dir=str(settings.models_dir),
            backend=DEFAULT,
            precision="fp32",
            slots=1,
            threads=cores,
            pictures=pictures,
        )
        with bar_on(Console(file=sys.stderr)) as bar:
            task = bar.add_task("", total=allowed)

            def progress(words: str) -> None:
                bar.update(task, description=words, completed=min(allowed, time.monotonic() - began))

            measured = _measure_ensemble if model.branches else _measure_network
            found = measured(settings, model, template, (began, allowed), progress)
        plan = tuning.plan_of(found.chosen, found.default)
        path = write_plan(place, key_of(model, cores), plan)
    if as_json:
        rows = [_facts(row) for row in found.rows]
        print(json.dumps({"plan": asdict(plan), "file": str(path), "rows": rows, "left_out": found.left_out}))
        return
    _show(found)
    print(f"{found.chosen.words}, {found.chosen.resident / 1e6:.0f} MB ({plan.why}); stored for the next start")


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What was measured and left out; the row to serve by, and that of the default way, if there was time for it."""

    rows: list[MeasuredVariant]
    left_out: list[str]
    chosen: MeasuredVariant
    default: MeasuredVariant | None


def _measure_network(
    settings: Settings, model: PreparedModel, template: BenchJob, time_: tuple[float, float], progress: tuning.Progress
) -> TuningResult:
    """Measure the variants of a model with one graph, then the splits of the best one."""
    began, seconds = time_
    environment = environment_of(settings)
    jobs = [
        replace(template, backend=backend, precision=precision)
        for backend, precision in _variants(settings, settings.image_detector, model)
    ]
    first, faults = tuning.measure(jobs, environment, began + seconds * tuning.VARIANTS_SHARE, progress)
    if not first:
        raise CouldNotStart("; ".join([*faults, "more --seconds may help"]))
    leader = tuning.best(tuning.faithful(first)).job
    more = tuning.ways(first[0].job, leader, template.threads)
    second, later = tuning.measure(more, environment, began + seconds, progress)
    return TuningResult([*first, *second], faults + later, *tuning.decide(first, second))


def _measure_ensemble(
    settings: Settings, model: PreparedModel, template: BenchJob, time_: tuple[float, float], progress: tuning.Progress
) -> TuningResult:
    """Measure each branch's variants alone, then the best combinations of them, in turn and side by side."""
    began, seconds = time_
    environment, most_bytes = environment_of(settings), read_headroom().left
    found = {name: _variants(settings, branch.config.detector, branch) for name, branch in model.branches.items()}
    each = [
        [replace(template, backend=backend, precision=precision, branch=name) for backend, precision in variants]
        for name, variants in without_copies(model, found).items()
    ]
    # The first variant of every branch before the second of any: where time or memory runs out, no branch has none.
    jobs = [job for row in zip_longest(*each) for job in row if job is not None]
    until = began + seconds * tuning.BRANCHES_SHARE
    first, faults = tuning.measure(jobs, environment, until, progress, burst=1)
    lacking = model.branches.keys() - {row.job.branch for row in first}
    if lacking:
        raise CouldNotStart("; ".join([*faults, "more --seconds may help"]))
    chosen = tuning.combinations(first, model.has_fused, most_bytes)
    if not chosen:
        raise CouldNotStart(
            f"IMAGE_DETECTOR_CONFIG={settings.detector_config}: nothing that its branches say together was judged, or "
            f"it takes more than the {most_bytes / 1e6:.0f} MB there are; `roadwork-miner export --precision` judges"
        )
    uniform = [(job.backend, job.precision) for job in jobs if model.has(job.precision, job.backend)]
    backend, precision = next(iter(uniform), (template.backend, template.precision))
    baseline = replace(template, backend=backend, precision=precision) if uniform else None
    more = tuning.ensemble_ways(template, baseline, chosen)
    if model.config.stages:  # which run one after the other
        more = [job for job in more if not side_by_side(job.branches or {})]
    second, later = tuning.measure(more, environment, began + seconds, progress)
    if not second:
        raise CouldNotStart("; ".join([*faults, *later, "more --seconds may help"]))
    default = next((row for row in second if row.job == baseline), None)
    return TuningResult([*first, *second], faults + later, tuning.best(second), default)


def _variants(settings: Settings, detector: str, model: PreparedModel) -> list[Variant]:
    """Return the variants of a model that the settings leave open."""
    chosen = [settings.image_detector_backend], [settings.image_detector_precision]
    backends, precisions = (None if names == [AUTO] else names for names in chosen)
    found = variants(detector, model, backends, precisions)
    # The reference path is never the fastest; it takes part where it is asked for.
    return tuning.by_promise([variant for variant in found if not BACKENDS[variant[0]].original] or found)


def without_copies(model: PreparedModel, found: Mapping[str, Sequence[Variant]]) -> dict[str, list[Variant]]:
    """Return the variants of an ensemble's branches, without the dense ones of a branch that has no tokens to merge.

    They are the same graphs under another name, so that they would be measured twice, and take places of combinations.
    """
    kept = {name: list(variants) for name, variants in found.items()}
    for dense, merged in MERGED.items():
        for backend in BACKENDS:
            copies = {
                name
                for name, branch in model.branches.items()
                if (manifest := branch.variants.get((merged, backend))) is not None
                and manifest.gate is not None
                and manifest.gate.merging is None
                and {(backend, dense), (backend, merged)} <= set(kept[name])
            }
            ways = {name: Way(dense if name in copies else merged, backend) for name in model.branches}
            if copies and model.has_fused(ways):  # else nothing but all under the one name was judged
                for name in copies:
                    kept[name].remove((backend, merged))
    return kept


def _facts(row: MeasuredVariant) -> dict[str, object]:
    job = row.job
    return {
        "backend": job.backend, "precision": job.precision, "slots": job.slots, "threads": job.threads,
        "arena": job.arena, "branch": job.branch, "branches": asdict(job)["branches"],
        "alone": row.alone, "bursts": row.bursts, "resident": row.resident, "score": row.score,
    }  # fmt: skip


def _show(found: TuningResult) -> None:
    import statistics

    from rich.console import Console
    from rich.table import Table

    table = Table("way to serve", "alone, ms", f"{BURST} at once, ms", "memory, MB")
    for row in found.rows:
        cells = (
            row.words, f"{statistics.median(row.alone) * 1e3:.1f}", f"{statistics.median(row.bursts) * 1e3:.1f}",
            f"{row.resident / 1e6:.0f}",
        )  # fmt: skip
        table.add_row(*cells, style="bold green" if row is found.chosen else "")
    console = Console()
    console.print(table)
    for line in found.left_out:
        console.print(f"left out: {line}")
