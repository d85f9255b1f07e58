"""What can be set: every setting, its default, what it is for and what is allowed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field
from pydantic_settings import BaseSettings

from detectors.remote.endpoints import check_addresses
from miner.logs import LogFormat
from miner.recorder import Mode
from miner.settings import validators
from miner.settings.addresses import check_names
from miner.settings.hotkeys import check_hotkeys, check_places
from miner.settings.validators import AUTO

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Folder = Annotated[Path, AfterValidator(validators.at_home)]
File = Annotated[Path | None, AfterValidator(validators.at_home)]
Config = Annotated[str, AfterValidator(validators.config_at_home)]
Hotkeys = Annotated[str, AfterValidator(check_hotkeys)]


class Fields(BaseSettings):
    """Every setting, its default and what it is for; the README's table is made from this class."""

    image_detector: Annotated[str, AfterValidator(validators.known_detector)] = Field(
        "ViT", description="`ViT` (any Hugging Face image classifier), `YOLOClassifier`, or `Ensemble` (several)"
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
        description="`auto` (as `roadwork-miner tune` found, else `onnx`), `onnx`, `openvino`, `torch` or `remote`",
    )
    image_detector_precision: Annotated[str, AfterValidator(validators.known_precision)] = Field(
        AUTO, description="`auto` (as `roadwork-miner tune` found, else `fp32`), `fp32`, `bf16` or `int8`"
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
    remote_fallback: Annotated[Literal["refuse", "onnx", "openvino"], BeforeValidator(validators.lower)] = Field(
        "refuse", description="while no endpoint is healthy: `refuse`, or the backend that serves on this machine"
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

    status_host: str = Field("127.0.0.1", description="address of the operator's port")
    status_port: Annotated[Port, AfterValidator(validators.free_of_validators)] = Field(
        9464,
        validate_default=True,
        description="operator's port: a page at `/`, `/status`, `/metrics`, `/healthz`, `/readyz`",
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
    max_connections: int = Field(512, ge=8, le=65536, description="connections in all; one more takes a stranger's")
    max_connections_per_address: int = Field(
        128, ge=4, le=65536, description="connections from one address; a proxy of yours in front is one address"
    )
    header_seconds: Seconds = Field(10.0, description="time for headers to arrive, and for an answer to be taken")
    max_body_bytes: int = Field(16 * 2**20, ge=2**10, le=2**30, description="largest request body")
    # From one small picture to what Pillow itself calls a bomb.
    max_image_pixels: int = Field(
        25_000_000, ge=224 * 224, le=178_956_970, description="largest picture, width × height; read before decoding"
    )
    body_stall_seconds: Seconds = Field(3.0, description="a body that pauses for longer is given up")
    inference_limit_seconds: Seconds = Field(
        30.0, description="a picture worked on for longer hangs; when every slot does, the miner ends with exit code 4"
    )
    drain_seconds: Seconds = Field(10.0, description="time for running requests after SIGTERM")

    state_dir: Folder = Field(
        Path("~/.local/state/roadwork-miner"),
        description="folder of one miner alone: its lock, the last snapshot of the chain and the SDK's cache, the "
        "recorder's files, and in standalone mode wallet and chain file",
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
        None,
        description="a file for the log too, where there is no journal: of 10 MB, and three before it",
    )

    video_detector: str = Field("", description="of the original miner.env; unused, the subnet asks for images only")
    video_detector_config: str = Field("", description="of the original miner.env; unused")
    video_detector_device: str = Field("", description="of the original miner.env; unused")
    proxy_client_url: str = Field("", description="of the original miner.env; unused, the miner calls no proxy")
