"""Options that several commands share, and what every command does first."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from miner import logs
from miner.addresses import shown_within
from miner.choices import nearest
from miner.errors import ConfigurationError
from miner.settings import Settings, lend_to_hub, setting_names

EnvFile = Annotated[Path | None, typer.Option("--env-file", help="Settings file, such as StreetVision's miner.env.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; wins over environment and file.")
]
Detector = Annotated[str | None, typer.Option(help="ViT, YOLOClassifier or Ensemble.")]
Config = Annotated[str | None, typer.Option(help="YAML file of the detector: a path, or the name of a shipped one.")]
Key = Annotated[str | None, typer.Option("--key", metavar="NAME", help="Which of WALLET_HOTKEYS; default: the first.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_settings(env_file: Path | None, assignments: list[str] | None, **flags: object) -> Settings:
    """Read the settings, set up logging, and say what the operator should know.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = read_settings(env_file, assignments, **flags)
    logs.set_up(settings.log_level, settings.log_format)
    for note in settings.notes(env_file):
        logging.getLogger("miner").warning("%s", note)
    return settings


def read_settings(env_file: Path | None, assignments: list[str] | None, **flags: object) -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: settings are wrong; all faults at once.
    """
    values: dict[str, object] = {}
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


def end_at_once(code: int) -> NoReturn:
    """End without waiting for threads: the look-up of a name that no server answers may go on for a minute."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
