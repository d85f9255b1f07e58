"""`roadwork-miner precompute`: what is expensive to calculate, once, here or on a machine with a GPU."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from miner.cli import branches
from miner.cli.common import Json
from miner.cli.group import Command
from miner.cli.training import CACHE, cache_folder, make_probe, make_screen, parse, read_machine, training_errors

if TYPE_CHECKING:
    from detectors.training.config import TrainConfig

app = typer.Typer(help="Calculate once, in a file, what training and fusing need.", no_args_is_help=True)
app.command("branches", cls=Command)(branches.branches)


@app.command(cls=Command)
def features(
    data: Annotated[str, typer.Argument(help="Folder of photos, or hf:DATASET, as for `train`.")],
    model: Annotated[str | None, typer.Option(help="tiny, small, base; a Hugging Face repository; a folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, as for `train`.")] = None,
    cache: Annotated[Path, typer.Option(help="Where the features go; copy it home, files may be merged.")] = CACHE,
    seed: Annotated[int | None, typer.Option(help="Of the split and the views (0).")] = None,
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
        from detectors.training.config import TrainConfig
        from detectors.training.job import Job
        from detectors.training.precomputing import fill_cache

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
    used: "TrainConfig", config: Path | None, seed: int | None, micro_batch: int | None, cache: Path,
    assignments: list[str] | None,
) -> str:  # fmt: skip
    """Return the command that trains from these very features: whatever they depend on is in it."""
    words = ["roadwork-miner", "train", used.data, "--model", used.model, "--cache", str(cache), "--out", "FOLDER"]
    options = {"--config": config, "--seed": seed, "--micro-batch": micro_batch}
    words += [text for name, value in options.items() if value is not None for text in (name, str(value))]
    words += [text for assignment in assignments or [] for text in ("--set", assignment)]
    return shlex.join(words)
