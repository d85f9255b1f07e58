"""`roadwork-miner calibrate`: move a model's best decision to 0.5, or leave it where it is."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detectors.evaluation.branch_file import BranchFile
from detectors.evaluation.combine import calibrate as find
from detectors.evaluation.estimates import Flags, Floats, Groups
from detectors.evaluation.evaluate import ask_raw
from detectors.models.calibration import Calibration, spread
from detectors.models.config import SHIPPED, DetectorConfig
from detectors.models.sources import model_folder
from detectors.models.store import store_calibration
from detectors.photos.eras import drawn
from detectors.photos.views import WHOLE, views_of
from miner.cli.common import EnvFile, Json, Set, load_settings
from miner.cli.training import (
    EraChoice,
    EraOption,
    Recorded,
    find_models,
    in_era,
    mix_for,
    need_packages,
    open_model,
    progress_bar,
    read_labelled,
    read_recorded,
    training_errors,
)
from miner.errors import ConfigurationError
from miner.settings.settings import Settings

if TYPE_CHECKING:
    from detectors.evaluation.estimates import Estimate


def calibrate(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER|FILE.npz", help="Photos not used in training, or probabilities and labels."),
    ] = None,
    recorded: Recorded = False,
    model: Annotated[str | None, typer.Option(metavar="YAML|FOLDER", help="Default: the configured model.")] = None,
    branch: Annotated[str | None, typer.Option(help="Array of FILE.npz that is the model's.")] = None,
    era: EraOption = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and resamples.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and write nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the calibration out of the model's manifest.")] = False,
    env_file: EnvFile = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Find the threshold that earns most, and store it, so that 0.5 is the best decision.

    The gain is measured by cross-validation. Exit code 1, and nothing written, if it may be chance. Faster precisions
    of the model take the map over; a running miner does on SIGHUP.
    """
    if [data is not None, recorded, undo].count(True) != 1:
        raise ConfigurationError("calibrate: one of a folder or .npz file, --recorded and --undo is needed")
    if recorded and era is not None:
        raise ConfigurationError(f"--era={era}: --recorded has the photos as they were sent")
    settings = load_settings(env_file, set_)
    if not undo:
        need_packages("calibrate")
    with training_errors():
        if undo:
            known = _target(settings, model, writes=not dry_run)
            if not dry_run:
                _store(settings, known, None, None)
            return

        from_file = data is not None and data.suffix == ".npz"
        # A file of anybody's may be measured without a model; it is written only where one is named.
        config = None if from_file and (model is None or dry_run) else _target(settings, model, writes=not dry_run)
        if config is not None and config.stages:
            raise ConfigurationError(
                f"{config.path.name} has stages with their own thresholds: `fuse --stages` fits them"
            )
        labels, said, groups = (
            _from_file(settings, data, branch, config, era, seed)
            if data is not None and from_file
            else _from_photos(settings, config, data, era, seed)
        )
        calibration, gain = find(labels, said, folds, seed, groups)
        writes = gain.low > 0 and not dry_run and config is not None
        if writes and config is not None:
            shares = [round(share, 4) for share in spread(calibration(said).tolist(), labels.tolist())]
            _store(settings, config, calibration.without_promise() if recorded else calibration, shares)
    _report(calibration, gain, as_json, written=writes)
    if gain.low <= 0:
        raise typer.Exit(1)


def _target(settings: Settings, model: str | None, *, writes: bool) -> DetectorConfig:
    """Return the model whose manifest is meant.

    Raises:
        ConfigurationError: it would be written, and is the one that ships with the package.
    """

    ((name, config),) = find_models(settings, [model] if model is not None else None).items()
    if writes and config.model_folder is not None and SHIPPED.parent in config.model_folder.parents:
        raise ConfigurationError(
            f"{name} ships with the package and is not changed: copy {config.model_folder} and give the copy as --model"
        )
    return config


def _from_file(
    settings: Settings, path: Path, branch: str | None, config: DetectorConfig | None, era: EraChoice | None, seed: int
) -> "tuple[Flags, Floats, Groups | None]":

    found = in_era(settings, path, BranchFile.read(path), era, seed)
    if branch is None and len(found.branches) == 1:
        (branch,) = found.branches
    if branch is None or branch not in found.branches:
        given = f"--branch={branch}" if branch is not None else "--branch is needed"
        raise ConfigurationError(f"{given}: {path.name} has {', '.join(found.branches)}")
    if config is not None and (source := found.sources.get(branch)) is not None:
        asked, own = (views_of(one.get("views", ()), one.get("pool")) for one in (source, config.model_dump()))
        if asked != own:
            raise ConfigurationError(
                f"--branch={branch}: it was asked in {asked or WHOLE}, and {config.path.name} serves {own or WHOLE}"
            )
    return found.labels, found.branches[branch], found.groups


def _from_photos(
    settings: Settings, config: DetectorConfig | None, folder: Path | None, era: EraChoice | None, seed: int
) -> "tuple[Flags, Floats, Groups | None]":

    assert config is not None
    mix = mix_for(settings, era) if era is not None else None
    photos = read_labelled(folder) if folder is not None else read_recorded(settings)
    detector = open_model(settings, config)
    with progress_bar("predicting", len(photos.photos)) as tell:
        views = drawn(photos.photos, mix, seed) if mix is not None else None
        (said,), _ = ask_raw([detector], photos.photos, tell, views, seed)
    return photos.labels == 1, said, photos.groups


def _store(
    settings: Settings, config: DetectorConfig, calibration: Calibration | None, shares: list[float] | None
) -> None:

    folder = model_folder(config, settings.models_dir)
    try:
        store_calibration(folder, calibration, shares, config.pooled_views)
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be written: {error.strerror or error}") from error
    views = f" in {config.pooled_views}" if config.pooled_views is not None else ""
    done = "calibrated" if calibration is not None else "no calibration any more"
    print(f"{folder}: {done}{views}", file=sys.stderr)
    if calibration is not None and config.threshold is not None:
        print(f"{config.path.name} has threshold: {config.threshold}, which goes before it: remove it", file=sys.stderr)
    if calibration is not None and any(folder.parent.glob(f"{folder.name}.*-*")):
        print(
            "its faster variants take it over; `export --precision` judges them anew at this threshold", file=sys.stderr
        )


def _report(calibration: Calibration, gain: "Estimate", as_json: bool, *, written: bool) -> None:
    evidence = calibration.evidence
    assert evidence is not None
    if as_json:
        print(json.dumps({"calibration": calibration.model_dump(), "gain": asdict(gain), "written": written}))
        return
    print(
        f"threshold {calibration.threshold:.3f}, temperature {calibration.temperature:.2f}: expected reward "
        f"{evidence.reward_before:.3f} -> {evidence.reward:.3f} on {evidence.photos} photos by {evidence.folds}-fold "
        f"cross-validation, gain {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    )
    if gain.low <= 0:
        print("refused: that gain may be chance; nothing is written. More photos make it surer")
