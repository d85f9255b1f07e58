"""`roadwork-miner precompute`: what is expensive to calculate, once, here or on a machine with a GPU."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from detectors.evaluation.branch_file import BranchFile
from detectors.evaluation.evaluate import UNTRANSFORMED, Sending, ask_raw
from detectors.photos.eras import drawn
from detectors.training.config import TrainConfig
from detectors.training.job import Job
from miner.cli.common import EnvFile, Json, Set, load_settings
from miner.cli.group import Command
from miner.cli.training import (
    CACHE_FOLDER,
    ERA_HELP,
    EraChoice,
    Models,
    cache_folder,
    find_models,
    make_probe,
    make_screen,
    mix_for,
    open_model,
    parse,
    progress_bar,
    read_labelled,
    read_machine,
    training_errors,
)

if TYPE_CHECKING:
    from detectors.models.config import DetectorConfig

app = typer.Typer(
    help="Calculate once, in a file, what training and fusing need.", no_args_is_help=True, add_completion=False
)


def branches(
    data: Annotated[Path, typer.Argument(help="Folder with `roadwork` and `no_roadwork`, not used in training.")],
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where the probabilities go.")],
    models: Models = None,
    eras: Annotated[list[EraChoice] | None, typer.Option("--era", help=ERA_HELP + "; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what an era leaves to chance.")] = 0,
    env_file: EnvFile = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Ask each model (of an ensemble: each branch) about every photo, and write one array for each, and the labels.

    Probabilities are the models' own, before any calibration. The file is small: `fuse` then needs no model in memory.
    It also holds the seconds of each branch, for `fuse --stages`, and how each photo was sent.
    """
    settings = load_settings(env_file, set_)
    with training_errors():
        found: dict[str, DetectorConfig] = {}
        for name, config in find_models(settings, models).items():
            found |= config.branches if config.branches is not None else {name: config}
        mixes = [mix_for(settings, era) for era in dict.fromkeys(eras or ())]
        photos = read_labelled(data)
        sendings: list[list[Sending]] = [[*drawn(photos.photos, mix, seed)] for mix in mixes]
        sendings = sendings or [[UNTRANSFORMED] * len(photos.photos)]
        # What two mixes send in the same way counts once.
        pairs = dict.fromkeys(pair for each in sendings for pair in enumerate(each))
        rows, sent = [number for number, _ in pairs], [sending for _, sending in pairs]
        detectors = [open_model(settings, config) for config in found.values()]
        with progress_bar("predicting", len(rows)) as tell:
            said, seconds = ask_raw(detectors, [photos.photos[row] for row in rows], tell, sent, seed)
        BranchFile(
            labels=photos.labels[rows] == 1,
            branches=dict(zip(found, said, strict=True)),
            sources={name: _source(config) for name, config in found.items()},
            groups=photos.groups[rows],
            seconds={name: float(np.median(row)) for name, row in zip(found, seconds, strict=True)},
            eras=np.array(sent),
        ).write(out)
    facts = {"file": str(out), "photos": len(photos.photos), "branches": list(found)}
    print(
        json.dumps(facts) if as_json else f"{out}: {', '.join(found)} on {len(photos.photos)} photos; now: fuse {out}"
    )


def _source(config: "DetectorConfig") -> dict[str, Any]:
    """Return a model's keys as a branch; its threshold is none of them, as what the branches say together has one."""
    return config.model_dump(mode="json", exclude_defaults=True, exclude={"threshold"})


app.command("branches", cls=Command)(branches)


@app.command(cls=Command)
def features(
    data: Annotated[str, typer.Argument(help="Folder of photos, or hf:DATASET, as for `train`.")],
    model: Annotated[str | None, typer.Option(help="As for `train` (lite2).")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, as for `train`.")] = None,
    cache: Annotated[
        Path, typer.Option(help="Where the features go; copy it home, files may be merged.")
    ] = CACHE_FOLDER,
    seed: Annotated[int | None, typer.Option(help="Seed of the split and the augmentation (0).")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Photos in memory at once; else by the memory.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the network runs.")] = "cpu",
    as_json: Json = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for `train`.")] = None,
) -> None:
    """Run a frozen network once over every photo and its changed views; `train --method head` then takes minutes.

    Features are found again by the photo's content, the network's weights and how views are drawn. What a kill or
    `--set max_hours=8` leaves is kept, and the same command goes on from there. Exit code 1: some are missing yet.
    """
    with training_errors():
        from detectors.training.features import fill_cache

        given = parse(set_, {"data": data, "model": model, "seed": seed, "micro_batch": micro_batch})
        base = TrainConfig.read(config).model_dump() if config is not None else {}
        used = TrainConfig.make(base | given)
        home = cache_folder(cache)
        job = Job(used, home, home, read_machine(), make_probe(), make_screen())
        filled = fill_cache(job, device)
    folder, rows = filled.cache.folder, len(filled.cache)
    if as_json:
        facts = {"folder": str(folder), "rows": rows, "new": filled.fresh, "missing": filled.missing}
        print(json.dumps(facts | {"ended": filled.why or "all features are there"}))
    else:
        print(f"{folder}: {rows} features, {filled.fresh} of them new", end="")
        print(f", {filled.missing} missing: {filled.why}" if filled.missing else "; use them with")
    if filled.missing:
        print("the same command goes on from there", file=sys.stderr)
        raise typer.Exit(1)
    if not as_json:
        print(train_command(used, config, seed, micro_batch, cache, set_))


def train_command(
    used: TrainConfig, config: Path | None, seed: int | None, micro_batch: int | None, cache: Path,
    assignments: list[str] | None,
) -> str:  # fmt: skip
    """Return the command that trains from these very features: whatever they depend on is in it."""
    words = ["roadwork-miner", "train", used.data, "--model", used.model, "--cache", str(cache), "--out", "FOLDER"]
    options = {"--config": config, "--seed": seed, "--micro-batch": micro_batch}
    words += [text for name, value in options.items() if value is not None for text in (name, str(value))]
    words += [text for assignment in assignments or [] for text in ("--set", assignment)]
    return shlex.join(words)
