"""The only reader of the environment: flag > environment > `--env-file` > default, into one frozen object.

StreetVision's own `miner.env` works as it is, inline comments included.
"""

import os
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AliasChoices, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from detectors.errors import NoConfig
from detectors.registry import DEFAULT_CONFIGS
from miner.errors import ConfigurationError
from miner.settings.addresses import ADDRESSES, HIDDEN, shown, shown_each, shown_within, why_unreachable
from miner.settings.fields import Fields
from miner.settings.hotkeys import Place, split_places
from miner.settings.validators import AUTO, REMOTE, is_loopback, nearest

__all__ = [
    "AUTO", "REMOTE", "Settings", "environment_of", "lend_home", "lend_to_hub", "secrets_of_environment",
    "setting_names", "settings_table",
]  # fmt: skip

HUB = "HF_"  # HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, …: huggingface_hub's own
# What python-dotenv takes for a comment outside quotes. systemd drops the space before one that is all there is.
COMMENT = re.compile(r"^#\s.*|\s+#.*")
QUOTED = re.compile(r"\s*(?:'[^']*'|\"[^\"]*\")\s*")
CONFIGS = ("image_detector_config", "shadow_detector_config")
HUB_TOKEN = "HF_TOKEN"  # noqa: S105 - a key
OLD_TOKENS = ("HUGGING_FACE_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "MNEMONIC", "API_KEY", "PRIVATE")


class Settings(Fields):
    """Every setting, read once; the README's table is made from this class."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False)

    _folders: tuple[Path, ...] = PrivateAttr(())  # where YAML files are looked for: this one, the settings file's

    @property
    def detector_config(self) -> str:
        """The YAML file's name or path, with the detector's default filled in."""
        return self.image_detector_config or DEFAULT_CONFIGS[self.image_detector]

    @property
    def is_remote(self) -> bool:
        """Whether other machines run the graph."""
        return self.image_detector_backend == REMOTE

    @property
    def is_standalone(self) -> bool:
        """Whether no chain is contacted."""
        return self.subtensor_network == "standalone"

    @property
    def chain_address(self) -> str:
        """What the SDK connects to: the endpoint if one is given, else the network."""
        return self.subtensor_chain_endpoint or self.subtensor_network

    @property
    def shown_network(self) -> str:
        """The network without what could be a secret."""
        return shown(self.subtensor_network)

    def each_key(self) -> "list[Self]":
        """Return the settings of each hotkey as if it were alone; one where there is one."""
        return [self._of(place) for place in split_places(self.wallet_hotkeys)] or [self]

    def of_key(self, name: str | None) -> Self:
        """Return the settings of one of the hotkeys; None: of the first.

        Raises:
            ConfigurationError: there is none of this name.
        """
        every = {settings.wallet_hotkey: settings for settings in self.each_key()}
        if name is None:
            return next(iter(every.values()))
        if name not in every:
            raise ConfigurationError(f"--key={name}: one of {', '.join(every)} is allowed")
        return every[name]

    def _of(self, place: Place) -> Self:
        file = self.wallet_hotkey_file
        change = {
            "wallet_hotkeys": "",
            "wallet_hotkey": place.name,
            "miner_axon_port": place.port,
            # As systemd names the credentials of a folder.
            "wallet_hotkey_file": file.with_name(f"{file.name}_{place.name}") if file is not None else None,
        }
        return self.model_copy(update=change)

    @classmethod
    def load(cls, env_file: Path | None = None, **flags: object) -> Self:
        """Read all sources.

        Raises:
            ConfigurationError: all faults at once, a line each: key, value, what is allowed.
        """
        given = {key: value for key, value in flags.items() if value is not None}
        commented = list(_commented(given))
        try:
            if env_file is not None and not env_file.is_file():
                raise ConfigurationError(f"--env-file={env_file}: there is no such file")
            _refuse_unreadable_lines(env_file)
            settings = cls(_env_file=env_file, **given)  # type: ignore[call-arg, arg-type]
        except ValidationError as error:
            told = [value for value, _ in commented]
            lines = [_line(fault) for fault in error.errors() if fault["input"] not in told]
            raise ConfigurationError("\n".join([*(line for _, line in commented), *lines])) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--env-file={env_file}: can't be read: {error}") from error
        if commented:
            raise ConfigurationError("\n".join(line for _, line in commented))
        return settings._with_configs_found(env_file)

    def _with_configs_found(self, env_file: Path | None) -> Self:
        """Return the settings with the paths of YAML files made absolute, for children and for reloads."""
        folders = [Path(), *([env_file.parent] if env_file is not None else [])]
        places = [(name, folder / getattr(self, name)) for folder in folders for name in CONFIGS]
        found = {name: str(place.absolute()) for name, place in reversed(places) if _is_file(place)}
        settings = self.model_copy(update=found)
        settings._folders = tuple(folder.absolute() for folder in folders)
        return settings

    def why_no_model(self, error: Exception) -> str:
        """Return in words why these settings give no model; of a YAML file not found, where it was looked for."""
        places = " and ".join(map(str, self._folders)) if isinstance(error, NoConfig) else ""
        words = f"IMAGE_DETECTOR_CONFIG={self.detector_config}: {error}"
        return f"{words}; looked for in {places}, and among the shipped ones" if places else words

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give the order of precedence."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        return init_settings, env_settings, dotenv_settings

    def notes(self, env_file: Path | None = None) -> list[str]:
        """Return what the operator should know and that is no fault: unknown keys, unused keys, the CPU fallback."""
        notes = []
        known = setting_names()
        for key in dotenv_values(env_file) if env_file is not None else {}:
            if key.upper() not in known and not key.startswith(HUB):
                near = HUB_TOKEN if key.upper() in OLD_TOKENS else nearest(key.upper(), known)
                notes.append(f"unknown key {key} in {env_file}" + (f"; did you mean {near}?" if near else ""))
        if not os.environ.get(HUB_TOKEN):  # where `lend_to_hub` has put the file's
            notes += [f"{key} is not read: the hub's token is {HUB_TOKEN}" for key in OLD_TOKENS if os.environ.get(key)]
        fields = [name.upper() for name in type(self).model_fields]
        unused = [name for name in fields if name.startswith(("VIDEO_", "PROXY_")) and getattr(self, name.lower())]
        if unused:
            notes.append(f"{', '.join(unused)}: accepted and unused; this miner answers images only and calls no proxy")
        if self.image_detector_device != "cpu":
            notes.append(f"IMAGE_DETECTOR_DEVICE={self.image_detector_device}: this daemon runs on the CPU; using cpu")
        if self.is_standalone and self.subtensor_chain_endpoint:
            notes.append("SUBTENSOR_CHAIN_ENDPOINT is unused while SUBTENSOR_NETWORK=standalone")
        if not is_loopback(self.status_host):
            notes.append(
                f"STATUS_HOST={self.status_host} opens the operator's port to other machines: it has no password, so "
                "let the firewall pass your Prometheus only"
            )
        if not self.blacklist_force_validator_permit:
            notes.append("BLACKLIST_FORCE_VALIDATOR_PERMIT=false answers every registered hotkey, other miners too")
        if self.publish_metrics and is_loopback(self.status_host):
            here = f"STATUS_HOST={self.status_host}"
            notes.append(f"PUBLISH_METRICS publishes a port that is reached from this machine alone: {here}")
        if self.axon_external_ip and not self.is_standalone:
            why = why_unreachable(self.axon_external_ip, self.miner_axon_host)
            if why is not None:  # on a chain that may be one's own, or it were a fault
                notes.append(f"AXON_EXTERNAL_IP={self.axon_external_ip} is {why}; right only on a chain of your own")
        if self.blacklist_allow_non_registered and (self.blacklist_force_validator_permit or self.blacklist_min_stake):
            notes.append(
                "BLACKLIST_ALLOW_NON_REGISTERED lets nobody in while a permit or a stake is required, which only "
                "registered hotkeys have"
            )
        return notes


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except PermissionError:  # of a folder that this user may not enter, such as the one that sudo was called in
        return False


def _refuse_unreadable_lines(env_file: Path | None) -> None:
    """Raise an error that names the lines that set nothing: python-dotenv would pass over them.

    Their text is left out, which may be a secret's. What is not ours may stand alone (`export PATH`).
    """
    if env_file is None:
        return
    names = setting_names()
    with env_file.open(encoding="utf-8") as file:
        lines = [
            binding.original.line
            for binding in parse_stream(file)
            if binding.error or (binding.value is None and (binding.key or "").upper() in names)
        ]
    if lines:
        raise ConfigurationError(
            "\n".join(f"{env_file}, line {line}: KEY=value is needed, or # before a comment" for line in lines)
        )


def _commented(flags: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield each value of a setting in the environment that ends in a comment, and what is to be said of it.

    Docker's `--env-file` and systemd's `EnvironmentFile=` keep what python-dotenv leaves out, so the value is not what
    the operator means. A flag takes its place.
    """
    names = setting_names()
    for key, value in os.environ.items():
        if key.lower() in flags or not (key.upper() in names or key.startswith(HUB)) or QUOTED.fullmatch(value):
            continue
        if comment := COMMENT.search(value):
            show = shown_each if key.lower() in ADDRESSES else shown_within
            meant = HIDDEN if key.startswith(HUB) else show(value[: comment.start()])
            yield (
                value,
                f"{key}={meant}{shown_within(comment[0])}: an inline comment, which the reader of that file keeps "
                "(docker --env-file, EnvironmentFile=); remove it, or give the file to the miner as --env-file",
            )


def _line(fault: Any) -> str:
    """One line for one fault, in the operator's words: KEY=value: what is allowed."""
    key, value = str(fault["loc"][0]).upper(), str(fault["input"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if key.lower() not in ADDRESSES:
        return f"{key}={shown_within(value)}: {message[0].lower()}{message[1:]}"
    for part in filter(None, (one.strip() for one in value.split(","))):  # a password may be in it, well-formed or not
        message = message.replace(part, shown(part))
    return f"{key}={shown_each(value)}: {message[0].lower()}{message[1:]}"


def setting_names() -> list[str]:
    """Return every name that a setting may be given by."""
    aliases = (field.validation_alias for field in Settings.model_fields.values())
    others = {str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices}
    return [name.upper() for name in dict.fromkeys([*Settings.model_fields, *sorted(others)])]


def lend_to_hub(env_file: Path | None) -> None:
    """Put the file's HF_… keys into the environment, where huggingface_hub and our children look; what is there wins.

    To be called before huggingface_hub is imported, which reads them once.
    """
    for key, value in dotenv_values(env_file).items() if env_file is not None else ():
        if key.startswith(HUB) and value:
            os.environ.setdefault(key, value)


def lend_home(settings: Settings) -> None:
    """Let the state folder be the home where nobody's is known: libraries end at their import without one."""
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor an entry in /etc/passwd, as in a container for any user
        os.environ["HOME"] = str(settings.state_dir.absolute())


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment with these settings in it, for a child process that shall see the same."""
    dumped = {name.upper(): getattr(settings, name) for name in settings.model_fields_set}
    return os.environ | {key: str(value) for key, value in dumped.items() if value is not None}


def secrets_of_environment(env_file: Path | None = None) -> list[str]:
    """Return what others must not read: values that are named like secrets, and those of keys that are not ours."""
    known = setting_names()
    given = dotenv_values(env_file) if env_file is not None else {}
    found = [value for key, value in os.environ.items() if any(word in key.upper() for word in SECRET_WORDS)]
    return [*found, *(value for key, value in given.items() if key.upper() not in known and value)]


def settings_table() -> str:
    """Return the settings as the README's table."""
    rows = ["| setting | default | what it is for |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = (
            "" if field.default is None else str(field.default).lower() if field.annotation is bool else field.default
        )
        rows.append(f"| `{name.upper()}` | {f'`{default}`' if default != '' else ''} | {field.description} |")
    return "\n".join(rows)
