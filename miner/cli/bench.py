"""`roadwork-miner bench`: how fast a model is on this machine, and whether that is fast enough."""

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from detectors.base import is_plain
from detectors.load import PreparedModel, is_prepared
from detectors.machine import LOUD, allowed_cores
from detectors.models.config import read_config
from detectors.registry import BACKENDS
from miner.bench.daemon import DaemonFigures, Load, measure_daemon
from miner.bench.operators import profile
from miner.bench.output import (
    alone_table,
    burst_table,
    check_plot,
    daemon_line,
    daemon_table,
    draw,
    least_words,
    line_printer,
    loaded_table,
    operator_table,
    print_all,
    progress_bar,
    slow_words,
)
from miner.bench.run import MOST_VALIDATORS, choose, judge
from miner.bench.run import as_json as figures_as_json
from miner.bench.run import bench as compare
from miner.bench.subject import Subject, lacks_library, made_pictures, own_pictures, variants
from miner.cli.common import Config, Detector, EnvFile, Json, Set, end_in_order_on_sigterm, load_settings
from miner.cli.preparation import prepare_fp32, start_errors
from miner.cli.training import say_left_out
from miner.errors import ConfigurationError, CouldNotStart
from miner.inference.loader import seconds_allowed
from miner.inference.plan import split_cores
from miner.settings.settings import Settings, environment_of

BENCH_SECONDS = 60.0


def bench(
    env_file: EnvFile = None,
    detector: Detector = None,
    config: Config = None,
    backends: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="onnx, openvino, torch; default: all that are installed.")
    ] = None,
    precisions: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Such as fp32, int8; default: all that are prepared.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also the model's own library: transformers' pipeline, YOLO.predict.")
    ] = False,
    reference_if_there: Annotated[
        bool, typer.Option("--reference-if-there", help="The same, where its weights and the library are here.")
    ] = False,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Measure whole daemons: start, memory, overhead, growth.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile the graph on onnxruntime instead: time by operator.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent requests that must be answered in time.")] = 10,
    slots: Annotated[int, typer.Option(min=0, help="Concurrent images; 0: as the miner would.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Threads per slot; 0: as the miner would.")] = 0,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of photos; default: synthetic ones of two sizes.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Time in all, one round at least; default: 60, or as --rounds needs.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds at most.")] = None,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help="With --daemon: requests for the growth; default: 2000, or as many as fit in 30 s."),
    ] = None,
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the figures.")] = None,
    set_: Set = None,
) -> None:
    """Measure the configured model: all competitors in turn, on the same number of threads.

    Exit code 1 if the p99 at --concurrency misses the validators' deadline.
    """
    settings = load_settings(env_file, set_, image_detector=detector, image_detector_config=config)
    others = {
        "--reference": reference, "--plot": plot is not None, "--pictures": pictures is not None,
        "--seconds": seconds is not None, "--rounds": rounds is not None, "--profile": daemon and profile,
    }  # fmt: skip
    if (daemon or profile) and any(others.values()):
        unfit = ", ".join(name for name, is_given in others.items() if is_given)
        raise ConfigurationError(f"{'--daemon' if daemon else '--profile'}: without {unfit}")
    if plot is not None:
        check_plot(plot)
    end_in_order_on_sigterm()
    subject = _subject(settings, slots, threads, _names(backends), _names(precisions))
    if profile:
        _profile(subject, as_json)
        return
    if daemon:
        is_demanded = backends is not None or precisions is not None
        met = _measure_daemons(subject, requests, is_demanded, concurrency, as_json)
    else:
        bound = (BENCH_SECONDS if seconds is None and rounds is None else seconds, rounds)
        reference = reference or (reference_if_there and _has_reference(subject))
        is_demanded = backends is not None or precisions is not None
        met = _measure(subject, reference, is_demanded, concurrency, pictures, bound, as_json, plot)
    if not met:
        raise typer.Exit(1)


def _measure(
    subject: Subject, reference: bool, is_demanded: bool, concurrency: int, folder: Path | None,
    bound: tuple[float | None, int | None], as_json: bool, plot: Path | None,
) -> bool:  # fmt: skip
    """Measure the model alone, print, and return whether the deadline is met."""

    settings, deadline = subject.settings, _deadline(subject.settings)
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        pictures = own_pictures(folder) if folder is not None else made_pictures(Path(made))
        say_left_out(pictures.left_out)
        with start_errors(settings):
            jobs = subject.jobs([str(path) for path in pictures.paths], reference=reference)
        console, progress = stack.enter_context(progress_bar())
        work, environment = subject.work(), environment_of(settings)
        result = compare(jobs, pictures.kinds, work, concurrency, deadline, *bound, environment, progress, is_demanded)
        for name, reason in result.left_out.items():
            console.print(f"left out: {name}: {reason}")
        if result.others > LOUD:
            console.print(
                f"other programs took {result.others:.0%} of this machine meanwhile: measure again when quiet"
            )
        if slow := slow_words(result.slow, result.rounds):
            console.print(slow)
    counted = choose(result.figures, subject.served(), concurrency)
    verdict = judge(counted, concurrency, deadline, settings.queue_depth or MOST_VALIDATORS)
    if as_json:
        told = {
            **subject.facts(), "pictures": pictures.kinds, "rounds": result.rounds, "left_out": result.left_out,
            "others": result.others, "slow_rounds": result.slow, "work": work, "least_seconds": result.least,
            "competitors": [figures_as_json(figures) for figures in result.figures], "verdict": asdict(verdict),
        }  # fmt: skip
        print(json.dumps(told))
    else:
        least = least_words(result.figures, result.least)
        alone, loaded = alone_table(result.figures), loaded_table(result.figures)
        print_all(subject, alone, least, loaded, burst_table(result.figures, verdict), verdict.words)
    if plot is not None:
        draw(result.figures, deadline, f"{subject.model.manifest.name}, {subject.split}", plot)
    return verdict.met


def _profile(subject: Subject, as_json: bool) -> None:
    """Print the operators of each of the model's graphs."""

    jobs = [job for job in subject.graphs() if BACKENDS[job.backend].onnxruntime]
    if not jobs:
        raise ConfigurationError("--profile: it is for graphs on onnx, not for another backend")
    with progress_bar() as (_, progress):
        found = {}
        for number, job in enumerate(jobs):
            progress(f"profiling {job.name}", number / len(jobs))
            found[job.name] = profile(job, environment_of(subject.settings))
    if as_json:
        told = {name: [asdict(one) for one in operators] for name, operators in found.items()}
        print(json.dumps({**subject.facts(), "operators": told}))
    else:
        print_all(subject, *(operator_table(name, operators) for name, operators in found.items()))


def _measure_daemons(
    subject: Subject, requests: int | None, is_demanded: bool, concurrency: int, as_json: bool
) -> bool:
    """Measure a daemon for each variant, print, and return whether every request was answered in time.

    Each variant has its line as soon as it is measured, and what was measured is printed whatever ends the rest.
    """

    deadline, environment = _deadline(subject.settings), environment_of(subject.settings)
    load = Load(requests, concurrency, deadline + subject.settings.deadline_margin_seconds)
    waiting = {" ".join(variant): subject.assignments(variant) for variant in subject.variants}
    count, found, left_out = len(waiting), list[DaemonFigures](), dict[str, str]()
    end: BaseException | None = None
    say = line_printer(to_stderr=as_json)
    with progress_bar() as (console, progress):
        say(console, f"{count} daemons, one after another, about a minute each at most unless --requests says more")
        try:
            while waiting:
                name, assignments = next(iter(waiting.items()))

                def step(text: str, share: float, begun: int = count - len(waiting)) -> None:
                    progress(text, (begun + share) / count)

                try:
                    figures = measure_daemon(name, assignments, environment, load, step)
                    found.append(figures)
                    say(console, daemon_line(figures))
                except CouldNotStart as error:
                    end = end or error
                    left_out[name] = str(error)
                    say(console, f"left out: {name}: {error}")
                del waiting[name]
        except (KeyboardInterrupt, SystemExit) as interruption:
            end = interruption
            say(console, f"stopped; not measured: {', '.join(waiting)}")
    if as_json:
        daemons = [asdict(figures) | {"first_answer": figures.first_answer} for figures in found]
        told = {"daemons": daemons, "left_out": left_out, "not_measured": list(waiting)}
        print(json.dumps({**subject.facts(), **told}), flush=True)
    elif found:
        print_all(subject, daemon_table(found))
    if end is not None and (is_demanded or not found or not isinstance(end, CouldNotStart)):
        raise end
    return all(figures.unanswered == 0 and figures.p99 <= deadline for figures in found)


def _subject(
    settings: Settings, slots: int, threads: int, backends: list[str] | None, precisions: list[str] | None
) -> Subject:
    """Return the configured model, prepared if it was not, and what is to be measured of it."""

    detector, cores = settings.image_detector, allowed_cores()
    with start_errors(settings):
        config = read_config(settings.detector_config)
        if not is_prepared(config, settings.models_dir):
            prepare_fp32(settings, force=False)
        model = PreparedModel.find(config, settings.models_dir)
    if (kind := model.manifest.detector) != detector:
        raise ConfigurationError(f"IMAGE_DETECTOR={detector}: {config.path.name} holds a model for {kind}")
    chosen = variants(detector, model, backends, precisions)
    split = split_cores(cores, slots or settings.inference_slots, threads or settings.inference_threads)
    subject = Subject(settings, model, chosen, cores, split)
    if backends is None and precisions is None and not is_plain(ways := subject.plan().branches):
        return replace(subject, tuned=ways)
    return subject


def _has_reference(subject: Subject) -> bool:
    """Return whether the model's own library can take part; if not, say what it lacks."""

    lack = lacks_library(subject.settings.image_detector, subject.model.config)
    if lack is not None:
        print(f"left out: the model's own library: {lack}", file=sys.stderr)
    return lack is None


def _deadline(settings: Settings) -> float:
    """Return the seconds after which an answer must be on its way."""

    return seconds_allowed(settings)


def _names(names: str | None) -> list[str] | None:
    return [name.strip() for name in names.split(",") if name.strip()] if names is not None else None
