"""What became of us between two reads of the chain."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from miner.chain.base import Neuron
from miner.settings.secrets import is_shown_whole


@dataclass(frozen=True, slots=True)
class Sight:
    """One read, as far as it concerns us."""

    uid: int | None  # ours
    neurons: Mapping[str, Neuron]  # by hotkey
    coldkeys: Mapping[str, str]  # by hotkey


def changes(before: Sight | None, now: Sight, hotkey: str) -> Iterator[tuple[int, str]]:
    """Yield a logging level and a line for each change of state."""
    if before is None:
        permits = sum(neuron.validator_permit for neuron in now.neurons.values())
        who = f"our uid is {now.uid}" if now.uid is not None else f"hotkey {hotkey} is not registered"
        yield (
            logging.INFO if now.uid is not None else logging.WARNING,
            f"{len(now.neurons)} neurons, {permits} with a permit; {who}",
        )
    elif before.uid is None and now.uid is not None:
        yield logging.INFO, f"registered; our uid is {now.uid}"
    elif before.uid is not None and now.uid is None:
        yield logging.WARNING, _lost(before, now, hotkey)
    elif before.uid != now.uid:
        yield logging.WARNING, f"our uid changed from {before.uid} to {now.uid}"


def _lost(before: Sight, now: Sight, hotkey: str) -> str:
    heir = next((neuron.hotkey for neuron in now.neurons.values() if neuron.uid == before.uid), None)
    if heir is None:
        return f"deregistered; nobody has our uid {before.uid} yet"
    if now.coldkeys.get(heir) == before.coldkeys.get(hotkey):
        return f"our hotkey was swapped: uid {before.uid} belongs to {heir} now, of the same coldkey; set WALLET_HOTKEY"
    return f"deregistered; our uid {before.uid} belongs to {heir} now"


def register_command(netuid: int, wallet: str, hotkey: str, network: str) -> str:
    """Return the command that registers a hotkey; by its address, since its file need not be where the coldkey is.

    A network whose address holds what nobody else may see is left for the operator to fill in.
    """
    network = network if is_shown_whole(network) else "YOUR_ENDPOINT"
    return f"btcli subnet register --netuid {netuid} --wallet {wallet} --hotkey {hotkey} --network {network}"
