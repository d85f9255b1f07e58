"""The flags that take a setting's place: ours, by btcli 11's names, and those of StreetVision's neurons.

One table, so that a flag means the same for each command. All become `--set KEY=VALUE` before a command sees them.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.main import get_command

from detectors.redact import shown_within
from miner.cli.common import of_setting
from miner.errors import ConfigurationError
from miner.settings.validators import BACKEND_CHOICES, is_hotkey, nearest

PANEL = "In place of settings"


@dataclass(frozen=True, slots=True)
class SettingFlag:
    """A flag that takes a setting's place, by the names that people know it by."""

    setting: str
    names: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Given:
    """A setting's value, and the flag that gave it as it was typed."""

    flag: str
    setting: str
    value: str

    @property
    def assignment(self) -> str:
        """The value as `--set` takes it."""
        return f"{self.setting.upper()}={self.value}"


WALLET = (
    SettingFlag("wallet_name", ("--wallet", "-w", "--wallet-name"), "Name of the wallet"),
    SettingFlag("wallet_hotkey", ("--wallet-hotkey", "-H", "--hotkey"), "Name of its hotkey"),
    SettingFlag("wallet_path", ("--wallet-path",), "Folder of the wallets"),
)
CHAIN = (
    SettingFlag("subtensor_network", ("--network", "-n"), "standalone, test, finney, local or ws://…"),
    SettingFlag("netuid", ("--netuid",), "72 on mainnet, 323 on testnet"),
)
AXON = (
    SettingFlag("miner_axon_host", ("--host",), "Address the validators' port listens on"),
    SettingFlag("miner_axon_port", ("--port",), "Port the validators ask"),
    SettingFlag("axon_external_ip", ("--external-ip",), "Public address published on chain"),
    SettingFlag("axon_external_port", ("--external-port",), "Port published on chain"),
)
STATUS = (
    SettingFlag("status_host", ("--status-host",), "Address of the operator's port"),
    SettingFlag("status_port", ("--status-port",), "The operator's port"),
)
MODEL = (
    SettingFlag("image_detector", ("--detector",), "ViT, YOLOClassifier or Ensemble"),
    SettingFlag(
        "image_detector_config", ("--config",), "YAML file of the detector: a path, or the name of a shipped one"
    ),
    SettingFlag("image_detector_backend", ("--backend",), f"One of {', '.join(BACKEND_CHOICES)}"),
    SettingFlag("model_url", ("--model-url",), "Your model's page, sent with each answer"),
)
LOG = (SettingFlag("log_level", ("--log-level",), "DEBUG, INFO, WARNING, ERROR or CRITICAL"),)
ALL = (*CHAIN, *WALLET, *AXON, *STATUS, *MODEL, *LOG)
# By command: those it has. A name that is an option of its own already, such as `query --wallet`, stays that.
FLAGS: dict[str, tuple[SettingFlag, ...]] = {
    "run": ALL,
    "config": ALL,
    "doctor": (*CHAIN, *WALLET, *AXON, *STATUS),
    "report": (*CHAIN, *WALLET, *AXON, *STATUS),
    "register": (*CHAIN, *WALLET),
    "query": (*CHAIN, *WALLET),
    "top": STATUS,
    "reload": STATUS,
}
# Flags of StreetVision's neurons: the setting that takes the value.
VALUE_FLAGS: dict[str, str] = {
    "--netuid": "NETUID",
    "--subtensor.network": "SUBTENSOR_NETWORK",
    "--subtensor.chain_endpoint": "SUBTENSOR_CHAIN_ENDPOINT",
    "--wallet.name": "WALLET_NAME",
    "--wallet.hotkey": "WALLET_HOTKEY",
    "--wallet.path": "WALLET_PATH",
    "--axon.port": "MINER_AXON_PORT",
    "--axon.ip": "MINER_AXON_HOST",
    "--axon.external_ip": "AXON_EXTERNAL_IP",
    "--axon.external_port": "AXON_EXTERNAL_PORT",
    "--neuron.image_detector": "IMAGE_DETECTOR",
    "--neuron.image_detector_config": "IMAGE_DETECTOR_CONFIG",
    "--neuron.image_detector_device": "IMAGE_DETECTOR_DEVICE",
    "--model_url": "MODEL_URL",
}
# Without a value, or with `true` and `false`: the setting as it is then.
SWITCH_FLAGS: dict[str, str] = {
    "--blacklist.force_validator_permit": "BLACKLIST_FORCE_VALIDATOR_PERMIT=true",
    "--blacklist.allow_non_registered": "BLACKLIST_ALLOW_NON_REGISTERED=true",
    "--logging.debug": "LOG_LEVEL=DEBUG",
    "--logging.trace": "LOG_LEVEL=DEBUG",
    "--logging.info": "LOG_LEVEL=INFO",
}
SWITCHES = ("true", "false")
NONE = "none"  # what start_miner.sh gives in place of an empty variable
# Flags that have no counterpart, or whole families of them, and why not; the longest name that fits counts.
UNUSED_FLAGS: dict[str, str] = {
    "--neuron.": "there is nothing to set for it; leave it out",
    "--neuron.video_detector": "validators send images only; leave it out",
    "--neuron.name": "STATE_DIR keeps two miners of one machine apart; leave it out",
    "--neuron.device": "this miner runs on the CPU; leave it out",
    "--axon.": "there is nothing to set for it; leave it out",
    "--axon.max_workers": "INFERENCE_SLOTS and INFERENCE_THREADS say how many pictures are worked on; leave it out",
    "--wallet.": "there is nothing to set for it; leave it out",
    "--subtensor.": "there is nothing to set for it; leave it out",
    "--subtensor._mock": "--set SUBTENSOR_NETWORK=standalone serves without a chain",
    "--mock": "--set SUBTENSOR_NETWORK=standalone serves without a chain",
    "--blacklist.": "there is nothing to set for it; the BLACKLIST_… settings are in env/README.md",
    "--logging.": "lines go to stderr or the journal; --set LOG_FORMAT=json changes their form",
    "--logging.logging_dir": "lines go to stderr or the journal; --set LOG_FILE=FILE writes them to a file too",
    "--logging.record_log": "lines go to stderr or the journal; --set LOG_FILE=FILE writes them to a file too",
    "--priority.": "the queue goes by stake; leave it out",
    "--proxy.": "this miner calls no proxy; leave it out",
    "--wandb.": "there is no wandb here: /metrics is for Prometheus; leave it out",
    "--axon_off": "a miner is its axon; leave it out",
    "--no_prompt": "nothing is ever asked; leave it out",
    "--no_version_checking": "no version is looked up; leave it out",
    "--strict": "wrong settings always end it; leave it out",
}


def options_of(command: str | None, known: Iterable[str]) -> list[Any]:
    """Return the options of a command that take settings' places, made by Typer as it makes a function's.

    Args:
        command: by its name.
        known: the names of its own options, which stay what they are.
    """
    known = set(known)
    wanted = [(flag, _free(flag.names, known)) for flag in FLAGS.get(command or "", ())]
    parameters = [
        inspect.Parameter(
            flag.setting,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[list[str] | None, of_setting(flag.setting, flag.words, *names, panel=PANEL)],
        )
        for flag, names in wanted
        if names
    ]
    return _made_by_typer(parameters) if parameters else []


def _free(names: Iterable[str], known: set[str]) -> list[str]:
    """Return the names that are no option of the command; the short one goes where a long one does."""
    free = [name for name in names if name not in known]
    return free if known.isdisjoint(names) else [name for name in free if name.startswith("--")]


def _made_by_typer(parameters: list[inspect.Parameter]) -> list[Any]:
    def options(**_: object) -> None: ...

    options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    options.__annotations__ = {one.name: one.annotation for one in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(options)
    return list(get_command(app).params)


def given_by(options: Iterable[Any], values: dict[str, Any]) -> Iterator[Given]:
    """Take the values of our own flags out of a command's, and yield those that were given.

    Raises:
        ConfigurationError: one is empty, as `--wallet "$NAME"` is without the variable, or the address of a hotkey.
    """
    for option in options:
        flag = option.opts[0]
        for value in values.pop(option.name) or ():  # given twice, it is two words about one setting
            if not value.strip():
                without = f"without the flag {option.name.upper()} holds"
                raise ConfigurationError(f"{flag}={value}: a value is needed; {without}")
            if option.name == "wallet_hotkey" and is_hotkey(value):
                instead = "; --receiver takes that" if "receiver" in values else ""
                raise ConfigurationError(f"{flag}={value}: the name in the wallet is needed, not the address{instead}")
            yield Given(flag, option.name, value)


def translated(arguments: Sequence[str], known: Iterable[str]) -> tuple[list[str], list[Given]]:
    """Return a command's arguments without the flags of StreetVision's neurons, and what those set.

    As there, an empty value, and `None` of a detector, leave the setting alone.

    Args:
        arguments: as they were typed; those behind `--` are none of ours.
        known: the command's own flags, which win.

    Raises:
        ConfigurationError: a flag lacks its value, or has no counterpart; a line for each.
    """
    known, kept, given, faults = set(known), [], [], []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if argument == "--":
            kept += [argument, *rest]
            break
        if not flag.startswith("--") or flag in known:
            kept.append(argument)
        elif flag in VALUE_FLAGS:
            if not equals and (not rest or rest[0].startswith("--")):
                faults.append(f"{flag}: a value is needed; here it is --set {VALUE_FLAGS[flag]}=VALUE")
                continue
            value = value if equals else rest.pop(0)
            if value and not (flag.startswith("--neuron.") and value.lower() == NONE):
                given.append(Given(flag, VALUE_FLAGS[flag].lower(), value))
        elif flag in SWITCH_FLAGS:
            key, _, usual = SWITCH_FLAGS[flag].partition("=")
            if not equals and rest and rest[0].lower() in SWITCHES:
                value = rest.pop(0)
            if usual in SWITCHES or value.lower() != "false":  # `--logging.debug False` is no level
                given.append(Given(flag, key.lower(), value if usual in SWITCHES and value else usual))
        elif (why := unused(flag)) is not None:
            faults.append(f"{flag}: {why}")
        else:
            kept.append(argument)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return kept, given


def unused(flag: str) -> str | None:
    """Return why a flag of StreetVision's neurons has no counterpart; None: it is none of theirs."""
    names = [name for name in UNUSED_FLAGS if flag == name or ("." in name and flag.startswith(name))]
    if not names:
        return None
    name, meant = max(names, key=len), nearest(flag, [*VALUE_FLAGS, *SWITCH_FLAGS])
    if name.endswith(".") and meant is not None:
        return f"did you mean {meant}?"  # who leaves a misspelt flag out loses what it was to say
    return UNUSED_FLAGS[name]


def hints(arguments: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Yield a line for each flag of StreetVision's neurons, for a command that takes no settings.

    Args:
        arguments: as they were typed; those behind `--` are none of ours.
        known: the command's own flags.
    """
    for number, argument in enumerate(arguments):
        if argument == "--":
            return
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--") or flag in known:
            continue
        following = arguments[number + 1 : number + 2]
        given = value if equals else next((word for word in following if not word.startswith("-")), "")
        if flag in VALUE_FLAGS:
            yield f"{flag}: here it is --set {VALUE_FLAGS[flag]}={shown_within(given) or 'VALUE'}"
        elif flag in SWITCH_FLAGS:
            key = SWITCH_FLAGS[flag].partition("=")[0]
            said = f"{key}={given.lower()}" if given.lower() in SWITCHES else SWITCH_FLAGS[flag]
            yield f"{flag}: here it is --set {said}"
        elif (why := unused(flag)) is not None:
            yield f"{flag}: {why}"


def refuse_contradictions(given: Iterable[Given]) -> None:
    """Want one value of a setting that several flags give.

    Raises:
        ConfigurationError: two flags say different things of one; `--set` is no flag here, and yields to each.
    """
    first: dict[str, Given] = {}
    for one in given:
        other = first.setdefault(one.setting, one)
        if other.value != one.value:
            both = " and ".join(f"{each.flag}={shown_within(each.value)}" for each in (other, one))
            raise ConfigurationError(f"{both}: both are {one.setting.upper()}; give one of them")


def in_words(given: Iterable[Given]) -> str:
    """Return which settings the flags of StreetVision's neurons are here."""
    return ", ".join(dict.fromkeys(f"{one.flag} is {one.setting.upper()}" for one in given))


def by_setting(given: Iterable[Given]) -> Mapping[str, str]:
    """Return the flag that gave each setting."""
    return {one.setting: one.flag for one in given}
