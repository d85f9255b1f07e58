"""Flags of StreetVision's own neurons, and what says the same here: whoever moves over types them first."""

from collections.abc import Iterator, Sequence

from miner.settings.secrets import shown_within

# By flag: the setting that takes its value.
VALUES: dict[str, str] = {
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
# By flag without a value: the setting as it is then.
SWITCHES: dict[str, str] = {
    "--blacklist.force_validator_permit": "BLACKLIST_FORCE_VALIDATOR_PERMIT=true",
    "--blacklist.allow_non_registered": "BLACKLIST_ALLOW_NON_REGISTERED=true",
    "--logging.debug": "LOG_LEVEL=DEBUG",
    "--logging.trace": "LOG_LEVEL=DEBUG",
    "--logging.info": "LOG_LEVEL=INFO",
}
# Whole families of flags that have no counterpart, and why not.
UNUSED: dict[str, str] = {
    "--neuron.": "there is nothing to set for it; leave it out",
    "--axon.": "there is nothing to set for it; leave it out",
    "--wallet.": "there is nothing to set for it; leave it out",
    "--subtensor.": "there is nothing to set for it; leave it out",
    "--blacklist.": "there is nothing to set for it; the BLACKLIST_… settings are in the README",
    "--logging.": "lines go to stderr or the journal; --set LOG_FORMAT=json changes their form",
    "--priority.": "the queue goes by stake; leave it out",
    "--proxy.": "this miner calls no proxy; leave it out",
    "--wandb.": "there is no wandb here: /metrics is for Prometheus; leave it out",
}


def hints(arguments: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Yield a line for each foreign flag among a command's arguments: the flag, and our word for it.

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
        said = _said_here(flag, given)
        if said:
            yield f"{flag}: {said}"


def _said_here(flag: str, value: str) -> str | None:
    if flag in VALUES:
        return f"here it is --set {VALUES[flag]}={shown_within(value) or 'VALUE'}"
    if flag in SWITCHES:
        key = SWITCHES[flag].partition("=")[0]
        is_switch = value.lower() in ("true", "false")
        return f"here it is --set {f'{key}={value.lower()}' if is_switch else SWITCHES[flag]}"
    return next((why for family, why in UNUSED.items() if flag.startswith(family)), None)
