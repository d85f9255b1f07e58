"""`roadwork-miner precompute`: what is expensive to calculate, once, here or on a machine with a GPU."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from miner.cli import branches
from miner.cli.options import Json
from miner.cli.training import CACHE, make_probe, make_screen, parse, read_machine, training_errors

app = typer.Typer(help="Calculate once, in a file, what training and fusing need.", no_args_is_help=True)
app.command("branches")(branches.branches)


@app.command()
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

    Features are found again by the photo's content, the network's weights and how views are drawn. What a kill leaves
    is kept, and the same command goes on from there.
    """
    with training_errors():
        from detectors.training.config import TrainConfig
        from detectors.training.job import Job
        from detectors.training.precomputing import fill_cache

        given = parse(set_, {"data": data, "model": model, "seed": seed, "micro_batch": micro_batch})
        base = TrainConfig.read(config).model_dump() if config is not None else {}
        used = TrainConfig.make(base | given)
        home = cache.expanduser()
        job = Job(used, home, home, read_machine(), make_probe(), make_screen())
        folder, rows, fresh = fill_cache(job, device)
    if as_json:
        print(json.dumps({"folder": str(folder), "rows": rows, "new": fresh}))
        return
    print(f"{folder}: {rows} features, {fresh} of them new; use them with")
    print(f"roadwork-miner train {used.data} --model {used.model} --cache {cache} --out FOLDER")
