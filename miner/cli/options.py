"""Options that several commands share, and what every command does first."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from miner import logs
from miner.addresses import shown_within
from miner.choices import nearest
from miner.cli.installed import settings_file, unit_settings
from miner.errors import ConfigurationError
from miner.settings import Settings, lend_to_hub, setting_names

EnvFile = Annotated[Path | None, typer.Option("--env-file", help="Settings file, such as StreetVision's miner.env.")]
Service = Annotated[
    str | None,
    typer.Option("--service", metavar="NAME", help="The service roadwork-miner@NAME: its settings, key and folders."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; wins over environment and file.")
]
Detector = Annotated[str | None, typer.Option(help="ViT, YOLOClassifier or Ensemble.")]
Config = Annotated[str | None, typer.Option(help="YAML file of the detector: a path, or the name of a shipped one.")]
Key = Annotated[str | None, typer.Option("--key", metavar="NAME", help="Which of WALLET_HOTKEYS; default: the first.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def file_of(env_file: Path | None, service: str | None) -> Path | None:
    """Return the settings file.

    Raises:
        ConfigurationError: there is no such service, or both are given.
    """
    if service is None:
        return env_file
    if env_file is not None:
        raise ConfigurationError(f"--service={service}: it has a settings file of its own; leave --env-file out")
    return settings_file(service)


def load_settings(
    env_file: Path | None, assignments: list[str] | None, service: str | None = None, **flags: object
) -> Settings:
    """Read the settings, set up logging, and say what the operator should know.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    env_file = file_of(env_file, service)
    settings = read_settings(env_file, assignments, service, **flags)
    logs.set_up(settings.log_level, settings.log_format)
    for note in settings.notes(env_file):
        logging.getLogger("miner").warning("%s", note)
    return settings


def read_settings(
    env_file: Path | None, assignments: list[str] | None, service: str | None = None, **flags: object
) -> Settings:
    """Read the settings; those that the unit of a service sets win over its file, as they do for the service.

    Raises:
        ConfigurationError: settings are wrong; all faults at once.
    """
    values: dict[str, object] = dict(unit_settings(service)) if service is not None else {}
    faults: list[str] = []
    names = setting_names()
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if key.upper() in names and equals:
            values[key.lower()] = value
        elif key.upper() in names:
            faults.append(f"--set {shown_within(assignment)}: {key.upper()}=VALUE is needed")
        else:
            near = nearest(key.upper(), names)
            hint = f"; did you mean {near}?" if near else ""
            faults.append(f"--set {shown_within(assignment)}: there is no such setting{hint}")
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        settings = Settings.load(env_file, **values)
    except ConfigurationError as error:
        raise ConfigurationError("\n".join([*faults, str(error)])) from error
    if faults:
        raise ConfigurationError("\n".join(faults))
    lend_to_hub(env_file)
    return settings
