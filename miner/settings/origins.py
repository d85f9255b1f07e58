"""The origins of settings: which flag, variable or line of the settings file gave each its value.

The very sources that the settings are read from are asked, so that what is told is what happened.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from detectors.redact import HIDDEN, shown, shown_within
from miner.settings.addresses import ADDRESSES, shown_each
from miner.settings.env_file import SECRET_WORDS, hub_keys, lines_of
from miner.settings.settings import Settings

Kind = Literal["flag", "unit", "environment", "file", "default"]
PAGE_SECRETS = ("@", "?", "#")  # what a page's address has where more than its place is in it


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        kind: of source.
        name: the flag or the variable, as it is spelt.
        line: of the settings file.
    """

    kind: Kind
    name: str = ""
    line: int | None = None


def origins(env_file: Path | None, given: Mapping[str, str], unit: Iterable[str] = ()) -> dict[str, Origin]:
    """Return the origin of every setting.

    Args:
        env_file: the settings file, already known to be one that can be read.
        given: by a setting's name in small letters, the flag that gave it.
        unit: the settings that a service's unit sets.
    """
    environment = EnvSettingsSource(Settings)()
    file = DotEnvSettingsSource(Settings, env_file=env_file)() if env_file is not None else {}
    lines = lines_of(env_file) if env_file is not None else {}
    found: dict[str, Origin] = {}
    for name in Settings.model_fields:
        keys = names_of(name)
        flag = next((given[key] for key in keys if key in given), None)
        if flag is not None:
            found[name] = Origin("flag", flag)
        elif name in unit:
            found[name] = Origin("unit")
        elif name in environment:
            found[name] = Origin("environment")
        elif name in file:
            key = next(key for key in keys if key in lines)
            found[name] = Origin("file", key.upper(), lines[key])
        else:
            found[name] = Origin("default")
    return found


def names_of(name: str) -> list[str]:
    """Return the names that a setting may be given by, in small letters, the one that wins first."""
    alias = Settings.model_fields[name].validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name]


def shown_value(name: str, value: Any) -> Any:
    """Return a setting's value for the operator's eyes: of an address no password and no key."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if name == "model_url":  # of which the path is all that matters
        return shown(text) if any(mark in text for mark in PAGE_SECRETS) else text
    return shown_each(text) if name in ADDRESSES else shown_within(text)


def hub_settings(env_file: Path | None) -> Iterator[tuple[str, str, Origin]]:
    """Yield each HF_… key that is given, for huggingface_hub reads these by itself: the key, its value, its origin."""
    lines = lines_of(env_file) if env_file is not None else {}
    for key, value, from_file in hub_keys(env_file):
        is_secret = any(word in key.upper() for word in SECRET_WORDS)
        origin = Origin("file", key, lines[key.lower()]) if from_file else Origin("environment", key)
        yield key, HIDDEN if is_secret else shown_within(value), origin
