"""What `models remove` may take away: not what settings name, and never what a running miner serves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from detectors.errors import DetectorError
from detectors.files import is_in_use
from detectors.models.config import DetectorConfig, read_config
from detectors.models.inventory import StoredModel, named, stored_models
from detectors.models.inventory import unused as unused_of
from detectors.models.manifest import NAME, Manifest
from detectors.models.sources import is_hub, model_folder
from miner.cli.common import ETC, settings_file, unit_settings
from miner.cli.top import ANSWER_SECONDS, fetch
from miner.errors import ConfigurationError, CouldNotStart
from miner.lock import holder
from miner.settings.settings import Settings


def chosen(
    settings: Settings, name: str | None, *, unused: bool, force: bool, root: Path = Path("/")
) -> list[StoredModel]:
    """Return what shall go.

    Raises:
        ConfigurationError: nothing or too much is asked for, there is no such model, or it has to stay.
    """
    if (name is None) != unused:
        raise ConfigurationError("models remove: MODEL or --unused is needed, and not both; `models list` names them")
    every = stored_models(settings.models_dir)
    configured = {folder: whose for one, whose in _all_settings(settings, root) for folder in _folders(one, whose)}
    served = [*_served(settings), *(one.folder for one in every if is_in_use(one.folder))]
    if name is None:
        return unused_of(every, {*configured, *served})
    going = named(every, name)
    if not going:
        known = ", ".join(one.name for one in every) or "none"
        raise ConfigurationError(f"MODEL={name}: none such in MODELS_DIR={settings.models_dir}; there are: {known}")
    for one in going:
        if any(one.is_part_of(folder) for folder in served):
            raise ConfigurationError(f"MODEL={name}: a running miner serves {one.name}; stop it, or reload another")
        whose = next((whose for folder, whose in configured.items() if one.is_part_of(folder)), None)
        if whose is not None and not force:
            raise ConfigurationError(f"MODEL={name}: {whose} names {one.name}; --force removes it all the same")
    return going


def ask(question: str) -> None:
    """Ask on the terminal.

    Raises:
        ConfigurationError: there is none to ask on.
        Exit: the answer is no.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} --yes is needed where nobody can be asked")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def _all_settings(settings: Settings, root: Path) -> Iterator[tuple[Settings, str]]:
    """Yield these settings, and those of each installed service with the same models; and whose they are.

    Raises:
        ConfigurationError: a service's can't be read, so that nobody knows what it names.
    """
    yield settings, "IMAGE_DETECTOR_CONFIG or SHADOW_DETECTOR_CONFIG"
    for file in sorted((root / ETC).glob("*.env")):
        try:
            other = Settings.load(settings_file(file.stem, root), **unit_settings(file.stem, root))
        except ConfigurationError as error:
            raise _unknown(f"the service {file.stem}", error) from error
        if other.models_dir == settings.models_dir:
            yield other, f"the service {file.stem}"


def _unknown(whose: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"what {whose} needs is not known: {error}")


def _folders(settings: Settings, whose: str) -> Iterator[Path]:
    """Yield the fp32 folders of the models that settings name, prepared or not.

    Raises:
        ConfigurationError: a YAML file is gone or wrong, so that nobody knows what it names.
    """
    for name in filter(None, (settings.detector_config, settings.shadow_detector_config)):
        try:
            yield from _needed(read_config(name), settings.models_dir)
        except DetectorError as error:
            raise _unknown(whose, error) from error


def _needed(config: DetectorConfig, models_dir: Path) -> Iterator[Path]:
    for branch in (config.branches or {}).values():
        yield from _needed(branch, models_dir)
    folder = model_folder(config, models_dir)
    yield folder
    if config.branches is None and is_hub(config) and folder.name == config.revision and not folder.exists():
        yield from folder.parent.glob("*")  # a branch whose commit is not known here: any of them may be it


def _served(settings: Settings) -> list[Path]:
    """Return the fp32 folder of what a running miner serves, and of what its ensemble asks.

    Raises:
        CouldNotStart: one runs, and does not say what it serves.
    """
    if holder(settings.state_dir) is None:
        return []
    import httpx

    with httpx.Client(base_url=settings.status_address, timeout=ANSWER_SECONDS, trust_env=False) as client:
        model = fetch(client).model
    if model is None:
        raise CouldNotStart("the running miner loads its model still; ask again once it serves")
    served = settings.models_dir / model.name / model.revision
    asked = (Manifest.read(served).branches or {}).values() if (served / NAME).is_file() else ()
    return [served, *(settings.models_dir / branch.name / branch.revision for branch in asked)]
