"""`roadwork-miner train`: photos to a detector of one's own, on the CPU."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from detectors.registry import METHODS
from detectors.training.config import TrainConfig
from detectors.training.job import CHOSEN_FILE, Job, open_run
from miner.cli.common import Json, load_settings
from miner.cli.training import (
    CACHE_FOLDER,
    cache_folder,
    check_views,
    make_probe,
    make_screen,
    open_serving,
    parse,
    read_machine,
    training_errors,
)
from miner.errors import ConfigurationError


def train(
    data: Annotated[
        str | None, typer.Argument(help="Folder with `roadwork` and `no_roadwork` (or both in `train`), or hf:DATASET.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run: everything goes there.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Resume the run in this folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, as a run's config.yaml.")] = None,
    detector: Annotated[Literal["ViT", "YOLOClassifier"] | None, typer.Option(help="What to train (ViT).")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Without the hub: lite2 (the default), lite0, starter, a folder; from it: tiny, small, base, a "
            "repository. YOLO: .pt or .yaml."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar=f"<{'|'.join(METHODS)}>",
            help="; ".join(f"{name}: {entry.words}" for name, entry in METHODS.items()) + ".",
        ),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="What of each photo a head looks at, such as whole,tiles:2x3 (the whole)."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Most epochs; early stopping may end before.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Photos per optimiser step (32).")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Photos in memory at once; else by the memory.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; else by the method.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Stop cleanly after that, with the best so far.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, augmentation and order (0).")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two minutes on some of the photos: what are they worth?")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print all settings as YAML and end.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help=f"Features of frozen networks, for all runs; `precompute` fills it ({CACHE_FOLDER})."),
    ] = None,
    as_json: Json = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of --print-config.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="YAML|FOLDER", help="A model that serves, to learn its probabilities, too.")
    ] = None,
    unlabelled: Annotated[
        list[str] | None, typer.Option(metavar="FOLDER", help="Photos that the teacher alone judges; may be repeated.")
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Show a run from another terminal: curves, resources, time left; q ends it."),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Compare threads, loaders, micro-batches, precisions for a minute or two; take the best."
        ),
    ] = False,
) -> None:
    """Train a detector, judge it on photos kept back, and export it to a folder that `run` serves.

    Memory, cores and time are measured first and said before it starts. Kill it at any moment: `--resume` goes on, and
    so it does where time or a signal ended the run; each start has `--max-hours` of its own.
    """

    def hint() -> str:
        run = resume or out
        has_begun = watch is None and run is not None and (run / CHOSEN_FILE).is_file()
        return f"`--resume {run}` goes on from the last checkpoint" if has_begun else ""

    with training_errors(hint):
        flags: dict[str, Any] = {
            "data": data, "detector": detector, "model": model, "method": method,
            "served_views": views, "epochs": epochs,
            "batch_size": batch_size, "micro_batch": micro_batch, "learning_rate": learning_rate,
            "max_hours": max_hours, "seed": seed, "quick": quick or None,
            "cache": str(cache) if cache is not None else None, "teacher": teacher, "unlabelled": unlabelled,
        }  # fmt: skip
        check_views(views)
        values = parse(set_, flags)
        if watch is not None:
            if values or out or resume or config or probe:
                raise ConfigurationError(f"--watch={watch}: only looks; no other setting counts")
            from miner.cli.train_watch import watch as follow

            follow(watch, as_json=as_json)
            return
        if resume is not None:
            folder, given = resume, None
            if values or out is not None or config is not None or probe:
                raise ConfigurationError(f"--resume={resume}: goes on as the run was started; no other setting counts")
        else:
            base = TrainConfig.read(config).model_dump() if config is not None else {}
            if isinstance(values.get("augment"), dict):
                values["augment"] = {**base.get("augment", {}), **values["augment"]}
            if "data" not in base | values:
                raise ConfigurationError("no photos: name their folder, as in `roadwork-miner train photos --out run`")
            given = TrainConfig.make(base | values)
            if print_config:
                print(given.to_yaml(), end="")
                return
            if out is None and probe:
                _compare(given, as_json=as_json)
                return
            if out is None:
                raise ConfigurationError("--out: name the run's folder")
            folder = out
        if given is not None:
            cache_folder(given.cache)
        used = open_run(folder, given)
        screen = make_screen()
        screen.say(used.to_yaml().rstrip())
        from detectors.training.run import run

        job = Job(
            used, folder.resolve(), cache_folder(used.cache), read_machine(), make_probe(), screen,
            resume=given is None, serving=open_serving, compare=probe,
            models=load_settings(None, None).models_dir if used.teacher is not None else None,
        )  # fmt: skip
        results = run(job)
    if as_json:
        print(json.dumps(results))
        return
    for line in last_lines(folder, results):
        print(line)


def last_lines(folder: Path, results: Mapping[str, Any]) -> list[str]:
    """Return the verdict on a run, and the command that serves its model where that is worth it."""
    verdict, values = results["verdict"], (results["detector"], results["yaml"])
    if not verdict["recommended"]:
        return [f"{folder}: {verdict['words']}"]
    command = "roadwork-miner run --set IMAGE_DETECTOR={} --set IMAGE_DETECTOR_CONFIG={}".format(*values)
    return [f"{folder}: {verdict['words']}: serve it with", command]


def _compare(config: TrainConfig, *, as_json: bool) -> None:
    """Compare settings for a training that is not begun."""
    from detectors.training.probe import best
    from detectors.training.throughput import probe_machine

    cache = cache_folder(config.cache)
    config.check_places()
    rows = probe_machine(Job(config, cache, cache, read_machine(), make_probe(), make_screen()))
    if as_json:
        print(json.dumps({"rows": [row.plain() for row in rows], "best": best(rows).plain()}))
