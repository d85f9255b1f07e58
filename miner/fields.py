"""What can be set: every setting, its default, what it is for and what is allowed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from detectors.registry import BACKENDS, DETECTORS, PRECISIONS
from detectors.remote.options import check_addresses
from miner.choices import one_of
from miner.hotkeys import check_hotkeys, check_places
from miner.logs import LogFormat
from miner.recorder import Mode

AUTO = "auto"
REMOTE = "remote"
NETWORKS = ("standalone", "local", "test", "finney")

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Hotkeys = Annotated[str, AfterValidator(check_hotkeys)]
Addresses = Annotated[str, AfterValidator(check_addresses)]
Places = Annotated[str, AfterValidator(check_places)]


class Fields(BaseSettings):
    """Every setting, its default and what it is for; the README's table is made from this class."""

    image_detector: str = Field(
        "ViT", description="`ViT` (any Hugging Face image classifier), `YOLOClassifier`, or `Ensemble` (several)"
    )
    image_detector_config: str = Field(
        "", description="YAML file of the detector: a path, or the name of a shipped one; empty: the detector's default"
    )
    image_detector_device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="`cpu`; `cuda` and `auto` are accepted, run on the CPU and say so"
    )
    image_detector_backend: str = Field(
        AUTO,
        description="`auto` (as `roadwork-miner tune` found, else `onnx`), `onnx`, `openvino`, `torch` or `remote`",
    )
    image_detector_precision: str = Field(
        AUTO, description="`auto` (as `roadwork-miner tune` found, else `fp32`), `fp32`, `bf16` or `int8`"
    )
    remote_endpoints: Addresses = Field(
        "",
        validate_default=True,
        description="of the backend `remote`: `http://host:port` of Open Inference Protocol v2 servers, with commas",
    )
    remote_model: str = Field("", description="the model's name on these servers; empty: as in its manifest")
    remote_fallback: Literal["refuse", "onnx", "openvino"] = Field(
        "refuse", description="while no endpoint is healthy: `refuse`, or the backend that serves on this machine"
    )
    tune_on_start: bool = Field(False, description="tune before the first start on a machine (about a minute, once)")

    netuid: int = Field(323, ge=0, le=65535, description="subnet: 72 on mainnet, 323 on testnet")
    subtensor_network: str = Field(
        "standalone", description="`standalone` (no chain), `test`, `finney`, `local` or a `ws://` address"
    )
    subtensor_chain_endpoint: str = Field(
        "", description="`ws://` or `wss://` address used in place of the network's own"
    )

    wallet_name: str = Field("default", description="name of the wallet; only its hotkey has to be on this machine")
    wallet_hotkey: str = Field("default", description="name of the hotkey")
    wallet_hotkey_password_file: Path | None = Field(
        None, description="file with the password of an encrypted hotkey, such as a systemd credential"
    )
    wallet_hotkey_file: Path | None = Field(
        None, description="the hotkey's file itself, such as a systemd credential; empty: in `WALLET_PATH`"
    )
    wallet_path: Path = Field(Path("~/.bittensor/wallets"), description="folder of the wallets")

    miner_axon_host: str = Field("0.0.0.0", description="address the validators' port listens on")  # noqa: S104
    miner_axon_port: Port = Field(8091, description="port the validators ask")
    axon_external_ip: str = Field(
        "", description="address published on chain; empty: as several services see this machine"
    )
    axon_external_port: Port | None = Field(None, description="port published on chain; empty: `MINER_AXON_PORT`")
    wallet_hotkeys: Places = Field(
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
    model_url: str = Field("", description="your model's page, sent with each answer, as validators expect")

    status_host: str = Field("127.0.0.1", description="address of the operator's port")
    status_port: Port = Field(
        9464, description="operator's port: a page at `/`, `/status`, `/metrics`, `/healthz`, `/readyz`"
    )

    inference_slots: int = Field(
        0,
        ge=0,
        le=64,
        description="pictures worked on at once; 0: one, or two for each remote endpoint",
    )
    inference_threads: int = Field(
        0, ge=0, le=256, description="threads for each picture; 0: all cores the quota allows"
    )
    queue_depth: int = Field(32, ge=1, le=1024, description="requests that may wait; one more is refused at once")
    queue_share: float = Field(0.5, gt=0, le=1, description="largest part of the queue that one caller may hold")
    deadline_cap_seconds: Seconds = Field(12.0, description="longest time a caller may ask to wait")
    deadline_margin_seconds: float = Field(
        0.5, ge=0, le=10, description="time kept back for the answer's way to the caller"
    )
    max_connections: int = Field(512, ge=8, le=65536, description="connections in all; one more takes a stranger's")
    max_connections_per_address: int = Field(
        128, ge=4, le=65536, description="connections from one address; a proxy of yours in front is one address"
    )
    header_seconds: Seconds = Field(10.0, description="time for a request's headers to arrive")
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

    state_dir: Path = Field(
        Path("~/.local/state/roadwork-miner"), description="folder of the standalone wallet and chain file"
    )
    models_dir: Path = Field(Path("~/.cache/roadwork-miner/models"), description="folder of the exported models")
    standalone_file: Path | None = Field(
        None, description="hotkeys, permits and stakes in standalone mode; empty: `standalone.yaml` in the state folder"
    )
    shadow_detector: str = Field("", description="kind of the shadow model; empty: `IMAGE_DETECTOR`")
    shadow_detector_config: str = Field(
        "", description="YAML file of a second model that scores a sample of the requests in idle time; empty: none"
    )
    shadow_sample: float = Field(0.25, ge=0, le=1, description="share of the requests that the shadow model sees")
    recorder: Mode = Field(
        "off", description="`meta` records the last requests in the state folder, `images` their photos too"
    )
    recorder_max_mb: int = Field(256, ge=1, le=10**6, description="largest size of the recorder's folder")
    recorder_max_hours: float = Field(24.0, gt=0, le=24 * 365, description="how long a recorded request is kept")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="how much is logged")
    log_format: LogFormat = Field("auto", description="`text`, `json`, or `auto`: as a service the journal's fields")

    video_detector: str = Field("", description="of the original miner.env; unused, the subnet asks for images only")
    video_detector_config: str = Field("", description="of the original miner.env; unused")
    video_detector_device: str = Field("", description="of the original miner.env; unused")
    proxy_client_url: str = Field("", description="of the original miner.env; unused, the miner calls no proxy")

    @field_validator("image_detector")
    @classmethod
    def _known_detector(cls, value: str) -> str:
        return one_of(value, tuple(DETECTORS))

    @field_validator("shadow_detector")
    @classmethod
    def _known_shadow(cls, value: str) -> str:
        return one_of(value, tuple(DETECTORS)) if value else value

    @field_validator("image_detector_backend")
    @classmethod
    def _known_backend(cls, value: str) -> str:
        return one_of(value, (AUTO, *BACKENDS))

    @field_validator("remote_endpoints")
    @classmethod
    def _needed_for_remote(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("image_detector_backend") == REMOTE:
            raise ValueError(f"with IMAGE_DETECTOR_BACKEND={REMOTE} at least one http://host:port is needed")
        return value

    @field_validator("image_detector_precision")
    @classmethod
    def _known_precision(cls, value: str) -> str:
        return one_of(value, (AUTO, *PRECISIONS))

    @field_validator("subtensor_network")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return value if value.startswith(("ws://", "wss://")) else one_of(value, (*NETWORKS, "ws://…", "wss://…"))

    @field_validator("subtensor_chain_endpoint")
    @classmethod
    def _websocket(cls, value: str) -> str:
        if value and not value.startswith(("ws://", "wss://")):
            raise ValueError("an address that begins with ws:// or wss:// is allowed")
        return value

    @field_validator("wallet_hotkeys")
    @classmethod
    def _own_ports(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("axon_external_port") is not None:
            raise ValueError("each hotkey publishes the port it listens on: leave AXON_EXTERNAL_PORT empty")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("image_detector_device", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator(
        "wallet_path", "wallet_hotkey_file", "wallet_hotkey_password_file", "state_dir", "models_dir", "standalone_file"
    )
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None
