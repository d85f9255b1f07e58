"""`roadwork-miner precompute branches`: what several models say of labelled photos, once, for `fuse`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.common import EnvFile, Json, Set, load_settings
from miner.cli.photos import Models, find_models, open_model, progress_bar, read_labelled
from miner.cli.training import training_errors

if TYPE_CHECKING:
    from detectors.models.config import DetectorConfig


def branches(
    data: Annotated[Path, typer.Argument(help="Folder with `roadwork` and `no_roadwork`, not used in training.")],
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where the probabilities go.")],
    models: Models = None,
    env_file: EnvFile = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Ask each model (of an ensemble: each branch) about every photo, and write one array for each, and the labels.

    Probabilities are the models' own, before any calibration. The file is small: `fuse` then needs no model in memory.
    """
    settings = load_settings(env_file, set_)
    with training_errors():
        from detectors.evaluation.asking import ask_raw
        from detectors.evaluation.branch_file import BranchFile

        found: dict[str, DetectorConfig] = {}
        for name, config in find_models(settings, models).items():
            found |= config.branches if config.branches is not None else {name: config}
        photos = read_labelled(data)
        detectors = [open_model(settings, config) for config in found.values()]
        with progress_bar("asking", len(photos.photos)) as tell:
            said = ask_raw(detectors, photos.photos, tell)
        sources = {name: config.model_dump(mode="json", exclude_defaults=True) for name, config in found.items()}
        written = dict(zip(found, said, strict=True))
        BranchFile(photos.labels == 1, written, sources, photos.groups).write(out)
    facts = {"file": str(out), "photos": len(photos.photos), "branches": list(found)}
    print(
        json.dumps(facts) if as_json else f"{out}: {', '.join(found)} on {len(photos.photos)} photos; now: fuse {out}"
    )
