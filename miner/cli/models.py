"""`roadwork-miner models`: fetch, export, list, show and remove models."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from detectors.backends.ort_cache import ensure_graph
from detectors.load import PreparedModel, is_prepared
from detectors.machine import allowed_cores
from detectors.models import MODEL_FILE
from detectors.models.config import DetectorConfig, read_config
from detectors.models.inventory import StoredModel, size_of, stored_models
from detectors.models.inventory import remove as drop
from detectors.models.manifest import NO_REFERENCE, Manifest, Precision
from detectors.models.sources import pins
from detectors.quantize.gate import MAX_FLIPS, of_precision, renewal
from detectors.registry import BACKENDS, MERGED
from miner.cli.common import Config, Detector, EnvFile, Json, Service, Set, load_settings
from miner.cli.group import Command
from miner.cli.model_removal import ask, chosen
from miner.cli.model_views import print_views, views_of
from miner.cli.preparation import prepare_faster, prepare_fp32, start_errors
from miner.errors import ConfigurationError
from miner.inference.plan import plan_of
from miner.settings.settings import Settings
from miner.settings.validators import AUTO

app = typer.Typer(help="Fetch, export, list, show and remove models.", no_args_is_help=True, add_completion=False)


@app.command(cls=Command)
def download(
    env_file: EnvFile = None,
    service: Service = None,
    detector: Detector = None,
    config: Config = None,
    force: Annotated[bool, typer.Option("--force", help="Also if it is there already.")] = False,
    set_: Set = None,
) -> None:
    """Fetch the configured model at its pinned revision, verify it, export it to ONNX, optimise it for this machine.

    A local folder needs no network; with HF_HUB_OFFLINE=1 the hub's cache (HF_HOME) is used alone.
    """

    settings = load_settings(env_file, set_, service, image_detector=detector, image_detector_config=config)
    with start_errors(settings):
        yaml = read_config(settings.detector_config)
        if is_prepared(yaml, settings.models_dir) and not force:
            model = PreparedModel.find(yaml, settings.models_dir)
            for each, manifest in model.folders():
                manifest.verify(each)
                entry = BACKENDS.get(manifest.backend)  # none: any can run it
                if (entry is None or entry.onnxruntime) and MODEL_FILE in manifest.files:
                    ensure_graph(each, manifest)  # another library or machine than the one it was made on, perhaps
            cores = allowed_cores()
            plan = plan_of(settings, model, cores)
            outdated = renewal(model, plan.precision, plan.backend, plan.branches)
            told = (f"{model.folder} is there and whole", ": ".join(filter(None, outdated)))
            print("; ".join(filter(None, told)), file=sys.stderr)
        else:
            prepare_fp32(settings, force=force)
        for pin in pins(yaml, settings.models_dir):
            print(pin, file=sys.stderr)
        precision, backend = settings.image_detector_precision, settings.image_detector_backend
        if precision in (AUTO, "fp32"):
            return
        model = PreparedModel.find(yaml, settings.models_dir)
        there = of_precision(model, precision)
        # What takes photos to make was made with some by `export`, and is not made anew without.
        keeps = not force or precision in MERGED.values()
        if keeps and (there if backend == AUTO else backend in there):
            return
        _make_faster(settings, yaml, precision)  # type: ignore[arg-type]


def _make_faster(settings: Settings, config: DetectorConfig, precision: Precision) -> None:
    """Make the set precision without photos.

    Raises:
        ConfigurationError: it can't be made without them.
    """
    from detectors.quantize.schedule import why_too_few

    asked = f"IMAGE_DETECTOR_PRECISION={precision}"
    if precision in MERGED.values():
        raise ConfigurationError(
            f"{asked}: {why_too_few(0, made=False)}: `roadwork-miner export --precision {precision} --pictures FOLDER` "
            "makes it"
        )
    prepare_faster(settings, config, precision, MAX_FLIPS, None, asked=asked)


@app.command("list", cls=Command)
def list_(env_file: EnvFile = None, service: Service = None, as_json: Json = False, set_: Set = None) -> None:
    """List the models on this disk."""
    from rich.console import Console
    from rich.table import Column, Table

    settings = load_settings(env_file, set_, service)
    starter = Path(__file__).resolve().parents[2] / "detectors" / "starter"
    stored = [StoredModel(starter, size_of(starter)), *stored_models(settings.models_dir)]
    found = [(one, Manifest.read(one.folder)) for one in stored if one.is_whole]
    if as_json:
        told = [manifest.model_dump() | {"folder": str(one.folder), "bytes": one.bytes} for one, manifest in found]
        print(json.dumps(told, indent=2))
        return
    # `models remove` takes what the first column says, so that nothing of it may be cut off.
    whole = (Column(name, no_wrap=True) for name in ("model", "precisions: MB"))
    table = Table(
        *whole, Column("roadwork is", min_width=10, overflow="fold"), "differs from its library by", show_lines=True
    )
    models: dict[tuple[str, str], list[tuple[StoredModel, Manifest]]] = {}
    for one, manifest in found:  # of some, as the starter, only the faster variants are in MODELS_DIR
        name, revision = (manifest.name, manifest.revision) if one.folder == starter else one.folder.parts[-2:]
        revision = revision.removesuffix(f".{manifest.precision}-{manifest.backend}")
        models.setdefault((name, revision), []).append((one, manifest))
    for (name, revision), parts in models.items():
        manifest = parts[0][1]
        # An ensemble's weights are its branches', which are in the list themselves.
        sizes = [_precision(each) + ("" if each.branches else f": {part.bytes / 1e6:.0f}") for part, each in parts]
        table.add_row(
            f"{name}/\n{revision[:18]}\n{manifest.detector}", "\n".join(sizes),
            "; ".join(filter(None, (_roadwork(manifest), manifest.output.doubt, manifest.judged_doubt))),
            (f"{manifest.parity.max_difference:.1e} on {manifest.parity.pictures} pictures"
             if manifest.parity.reference != NO_REFERENCE else "no library")
            + (f"; {manifest.parity.caveat}" if manifest.parity.caveat else ""),
        )  # fmt: skip
    Console().print(table)


@app.command(cls=Command)
def show(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="YAML file, model folder, or NAME/REVISION of `list`; else the set one."),
    ] = None,
    env_file: EnvFile = None,
    service: Service = None,
    detector: Detector = None,
    config: Config = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Show a prepared model: what it is, which class counts, where it is from, its precisions, whether it is whole.

    Exit code 1 if a file differs from its sum.
    """
    settings = load_settings(env_file, set_, service, image_detector=detector, image_detector_config=config)
    with start_errors(settings):
        views = views_of(settings, model)
    if as_json:
        print(json.dumps([asdict(view) for view in views], indent=2))
    else:
        print_views(views)
    if any(part.fault for view in views for part in view.parts):
        raise typer.Exit(1)


@app.command(cls=Command)
def remove(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="NAME, NAME/REVISION or NAME/REVISION.PRECISION-BACKEND, as in `list`."),
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="All that no settings name, and what was left half.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also the model that the settings name.")] = False,
    env_file: EnvFile = None,
    service: Service = None,
    as_json: Json = False,
    set_: Set = None,
) -> None:
    """Remove prepared models from MODELS_DIR, with their faster variants; never what a running miner serves.

    What the settings name stays, as does what those of installed services name; originals in the hub's cache do too.
    """
    settings = load_settings(env_file, set_, service)
    with start_errors(settings):
        going = chosen(settings, model, unused=unused, force=force)
        total = sum(one.bytes for one in going)
        if as_json:
            rows = [{"model": one.name, "folder": str(one.folder), "bytes": one.bytes} for one in going]
            told = {"models": rows, "bytes": total, "removed": not dry_run}
        for one in going:
            print(f"{one.bytes / 1e6:9.1f} MB  {one.name}", file=sys.stderr if as_json else sys.stdout)
        if going and not (dry_run or yes):
            ask(f"remove {total / 1e6:.1f} MB from {settings.models_dir}?")
        if not dry_run:
            for one in going:
                drop(one)
    if as_json:
        print(json.dumps(told))
    elif not going:
        print("nothing to remove")
    else:
        print(f"{'would free' if dry_run else 'freed'} {total / 1e6:.1f} MB of {settings.models_dir}")


def _precision(manifest: Manifest) -> str:
    return manifest.precision if manifest.backend == "any" else f"{manifest.precision} {manifest.backend}"


def _roadwork(manifest: Manifest) -> str:
    """Which class counts, and of an ensemble its views; its branches, in the list themselves, say the class."""
    if manifest.branches is None:
        return manifest.output.words
    return "; ".join(filter(None, ("as its branches", manifest.view_words)))
