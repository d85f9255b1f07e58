"""The settings: flag > environment > `--env-file` > default, into one frozen object.

Nothing else reads any of the four.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from detectors.errors import NoConfig
from detectors.photos import MAX_PIXELS
from detectors.redact import shown, shown_within
from detectors.registry import BACKENDS, DETECTORS
from detectors.remote.endpoints import check_addresses
from miner.errors import ConfigurationError
from miner.logs import LogFormat
from miner.recorder import Mode
from miner.settings import validators
from miner.settings.addresses import ADDRESSES, check_names, local_url, shown_each, why_unreachable
from miner.settings.env_file import commented, key_notes, refuse_unreadable_lines
from miner.settings.validators import AUTO, REMOTE, HotkeyPort, check_hotkeys, check_places, is_loopback, split_places

CONFIGS = ("image_detector_config", "shadow_detector_config")

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Folder = Annotated[Path, AfterValidator(validators.at_home)]
File = Annotated[Path | None, AfterValidator(validators.at_home)]
Config = Annotated[str, AfterValidator(validators.config_at_home)]
Hotkeys = Annotated[str, AfterValidator(check_hotkeys)]


class Settings(BaseSettings):
    """Every setting, its default and what it is for, read once; `env/README.md` has its table."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False)

    image_detector: Annotated[str, AfterValidator(validators.known_detector)] = Field(
        "ViT", description=f"kind of the model: {validators.listed(DETECTORS)}; see `detectors/README.md`"
    )
    image_detector_config: Config = Field(
        "",
        description="YAML file of the detector: a path (relative: from here, or from the settings file), or the name "
        "of a shipped one; empty: the detector's default",
    )
    image_detector_device: Annotated[Literal["cpu", "cuda", "mps", "auto"], BeforeValidator(validators.device)] = Field(
        "cpu", description="`cpu`; `cuda` (`cuda:0`, `gpu`), `mps` and `auto` are accepted, run on the CPU and say so"
    )
    image_detector_backend: Annotated[str, AfterValidator(validators.known_backend)] = Field(
        AUTO,
        description=f"`auto` (as `roadwork-miner tune` found, else `onnx`), {validators.listed(BACKENDS)}",
    )
    image_detector_precision: Annotated[str, AfterValidator(validators.known_precision)] = Field(
        AUTO, description="`auto` (as tuned, else `fp32`), `fp32`, `bf16`, `int8`, `merged` or `int8-merged`"
    )
    remote_endpoints: Annotated[str, AfterValidator(check_addresses), AfterValidator(validators.needed_for_remote)] = (
        Field(
            "",
            validate_default=True,
            description="of the backend `remote`: `http://host:port` of Open Inference Protocol v2 servers, "
            "with commas",
        )
    )
    remote_model: str = Field("", description="the model's name on these servers; empty: as in its manifest")
    remote_fallback: Annotated[str, AfterValidator(validators.known_fallback)] = Field(
        validators.NO_FALLBACK,
        description="while no endpoint is healthy: `refuse`, or the backend that serves on this machine",
    )
    tune_on_start: bool = Field(False, description="tune before the first start on a machine (about a minute, once)")

    netuid: int = Field(323, ge=0, le=65535, description="subnet: 72 on mainnet, 323 on testnet")
    subtensor_network: Annotated[str, AfterValidator(validators.known_network)] = Field(
        "standalone", description="`standalone` (no chain), `test`, `finney`, `local` or a `ws://` address"
    )
    subtensor_chain_endpoint: Annotated[str, AfterValidator(validators.websocket)] = Field(
        "", description="`ws://` or `wss://` address used in place of the network's own"
    )

    wallet_name: str = Field("default", description="name of the wallet; only its hotkey has to be on this machine")
    wallet_hotkey: str = Field("default", description="name of the hotkey")
    wallet_hotkey_password_file: File = Field(
        None, description="file with the password of an encrypted hotkey, such as a systemd credential"
    )
    wallet_hotkey_file: File = Field(
        None, description="the hotkey's file itself, such as a systemd credential; empty: in `WALLET_PATH`"
    )
    wallet_path: Folder = Field(Path("~/.bittensor/wallets"), description="folder of the wallets")

    miner_axon_host: str = Field("0.0.0.0", description="address the validators' port listens on")  # noqa: S104
    miner_axon_port: Port = Field(8091, description="port the validators ask")
    axon_external_ip: Annotated[str, AfterValidator(validators.address), AfterValidator(validators.reachable)] = Field(
        "", description="public address published on chain; empty: as several services see this machine"
    )
    axon_external_port: Port | None = Field(None, description="port published on chain; empty: `MINER_AXON_PORT`")
    wallet_hotkeys: Annotated[str, AfterValidator(check_places), AfterValidator(validators.own_ports)] = Field(
        "",
        description="several hotkeys of the wallet in one process, with a port each: `first:8091,second:8092`; they "
        "take the place of `WALLET_HOTKEY` and `MINER_AXON_PORT`",
    )
    chain_sync_seconds: Seconds = Field(60.0, description="time between two reads of the chain")
    chain_max_age_hours: float = Field(
        24.0, gt=0, le=24 * 30, description="how long to go on by the last good read while the chain is away"
    )
    cost_per_month: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="what the machine costs a month, in the currency of `TAO_PRICE`, or in TAO; 0: not compared",
    )
    tao_price: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="what a TAO is worth in your currency; 0: your costs are in TAO"
    )
    blacklist_force_validator_permit: bool = Field(
        True, description="answer only hotkeys with a validator permit; false means false"
    )
    blacklist_allow_non_registered: bool = Field(
        False, description="answer also hotkeys that are not registered; they have neither permit nor stake"
    )
    blacklist_min_stake: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="answer only hotkeys with at least this stake on the subnet"
    )
    blacklist_allow_hotkeys: Hotkeys = Field("", description="hotkeys answered in any case, with commas between them")
    blacklist_deny_hotkeys: Hotkeys = Field("", description="hotkeys never answered, even those allowed above")
    model_url: Annotated[str, AfterValidator(validators.page)] = Field(
        "", description="your model's page, sent with each answer, as validators expect"
    )
    natix_url: Annotated[str, AfterValidator(validators.web_address)] = Field(
        "https://hydra.natix.network", description="NATIX's server, which `roadwork-miner register` asks"
    )

    status_host: str = Field("127.0.0.1", description="address of the operator's port")
    status_port: Annotated[Port, AfterValidator(validators.free_of_validators)] = Field(
        9464, validate_default=True, description="operator's port: `/`, `/status`, `/metrics`, `/healthz`, `/readyz`"
    )
    status_allowed_hosts: Annotated[str, AfterValidator(check_names)] = Field(
        "",
        description="names that the operator's port may be asked by, with commas; its address, `localhost`, "
        "`STATUS_HOST` and this machine's own name always are",
    )
    publish_metrics: bool = Field(
        False, description="publish the operator's port on chain too, for whoever collects the subnet's metrics"
    )

    inference_slots: int = Field(
        0,
        ge=0,
        le=64,
        description="pictures worked on at once; 0: as many as `INFERENCE_THREADS` leaves cores for, one if that is 0 "
        "too; of the backend `remote`: two for each endpoint",
    )
    inference_threads: int = Field(
        0, ge=0, le=256, description="threads for each picture; 0: all cores the quota allows"
    )
    inference_stages: Annotated[validators.StageMode, BeforeValidator(validators.lower)] = Field(
        "adaptive",
        description="of a detector with stages: `adaptive`, the further ones while time is left; `cheapest`, the first "
        "one alone; `all`, every branch for every picture, whatever waits",
    )
    queue_depth: int | None = Field(
        None, ge=1, le=4096, description="most requests that may wait; empty: as many as can be answered in time"
    )
    queue_share: float = Field(
        0.5, gt=0, le=1, description="largest part of these places that one caller may hold while others wait"
    )
    deadline_cap_seconds: Seconds = Field(
        12.0,
        validation_alias=AliasChoices("deadline_cap_seconds", "request_deadline"),
        description="longest time a caller may ask to wait; `REQUEST_DEADLINE` is another name for it",
    )
    deadline_margin_seconds: Annotated[float, AfterValidator(validators.leaves_time)] = Field(
        0.5, ge=0, validate_default=True, description="time kept back for the answer's way to the caller"
    )
    max_connections: int = Field(
        512, ge=8, le=65536, description="connections in all; one more replaces an unproven caller's"
    )
    max_connections_per_address: int = Field(
        128, ge=4, le=65536, description="connections from one address; a proxy of yours in front is one address"
    )
    header_seconds: Seconds = Field(10.0, description="time for headers to arrive, and for an answer to be taken")
    max_body_bytes: int = Field(16 * 2**20, ge=2**10, le=2**30, description="largest request body")
    # From one small picture to what Pillow itself calls a bomb.
    max_image_pixels: int = Field(
        MAX_PIXELS, ge=224 * 224, le=178_956_970, description="largest picture, width × height; read before decoding"
    )
    body_stall_seconds: Seconds = Field(3.0, description="a body that pauses for longer is given up")
    inference_limit_seconds: Seconds = Field(
        30.0, description="a picture worked on for longer hangs; when every slot does, the miner ends with exit code 4"
    )
    drain_seconds: Seconds = Field(10.0, description="time for running requests after SIGTERM")

    state_dir: Folder = Field(
        Path("~/.local/state/roadwork-miner"),
        description="folder of one miner alone: its lock, the last chain snapshot, the page's history, NATIX's last "
        "word, whose subnet it was, doctor's findings, the SDK's cache, the recorder's files, labels, and in "
        "standalone mode wallet and chain file",
    )
    models_dir: Folder = Field(Path("~/.cache/roadwork-miner/models"), description="folder of the exported models")
    standalone_file: File = Field(
        None, description="hotkeys, permits and stakes in standalone mode; empty: `standalone.yaml` in the state folder"
    )
    shadow_detector: Annotated[str, AfterValidator(validators.known_detector_or_none)] = Field(
        "", description="kind of the shadow model; empty: `IMAGE_DETECTOR`"
    )
    shadow_detector_config: Config = Field(
        "", description="YAML file of a second model that scores a sample of the requests in idle time; empty: none"
    )
    shadow_sample: float = Field(0.25, ge=0, le=1, description="share of the requests that the shadow model sees")
    recorder: Annotated[Mode, BeforeValidator(validators.lower)] = Field(
        "off", description="`meta` records the last requests in the state folder, `images` their photos too"
    )
    recorder_max_mb: int = Field(256, ge=1, le=10**6, description="largest size of the recorder's folder")
    recorder_max_hours: float = Field(24.0, gt=0, le=24 * 365, description="how long a recorded request is kept")
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(validators.level)
    ] = Field("INFO", description="how much is logged")
    log_format: Annotated[LogFormat, BeforeValidator(validators.lower)] = Field(
        "auto", description="`text`, `json`, or `auto`: as a service the journal's fields"
    )
    log_file: File = Field(
        None, description="a file for the log too, where there is no journal: of 10 MB, and three before it"
    )

    _folders: tuple[Path, ...] = PrivateAttr(())  # where YAML files are looked for: this one, the settings file's

    @property
    def detector_config(self) -> str:
        """The YAML file's name or path, with the detector's default filled in."""
        return self.image_detector_config or DETECTORS[self.image_detector].config

    @property
    def is_remote(self) -> bool:
        """Whether other machines run the graph."""
        return self.image_detector_backend == REMOTE

    @property
    def is_standalone(self) -> bool:
        """Whether no chain is contacted."""
        return self.subtensor_network == "standalone"

    @property
    def status_address(self) -> str:
        """The operator's port as a URL, asked from this machine."""
        return local_url(self.status_host, self.status_port)

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

    def _of(self, place: HotkeyPort) -> Self:
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
        faults = list(commented(given, setting_names()))
        try:
            if env_file is not None and not env_file.is_file():
                raise ConfigurationError(f"--env-file={env_file}: there is no such file")
            refuse_unreadable_lines(env_file, setting_names())
            settings = cls(_env_file=env_file, **given)  # type: ignore[call-arg, arg-type]
        except ValidationError as error:
            told = [value for value, _ in faults]
            lines = [_line(fault) for fault in error.errors() if fault["input"] not in told]
            raise ConfigurationError("\n".join([*(line for _, line in faults), *lines])) from error
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", "") or error
            raise ConfigurationError(f"--env-file={env_file}: can't be read: {why}") from error
        if faults:
            raise ConfigurationError("\n".join(line for _, line in faults))
        return settings._with_configs_found(env_file)

    def _with_configs_found(self, env_file: Path | None) -> Self:
        """Return the settings with the paths of YAML files made absolute, for children and for reloads."""
        folders = [Path(), *([env_file.parent] if env_file is not None else [])]
        places = [(name, folder / getattr(self, name)) for folder in folders for name in CONFIGS]
        found = {name: str(place.absolute()) for name, place in reversed(places) if validators.is_file(place)}
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
        notes = list(key_notes(setting_names(), env_file))
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
