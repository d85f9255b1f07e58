"""The last good snapshot on disk, so that a restart while the chain is down still serves."""

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from miner.chain.base import Neuron, Snapshot
from miner.settings.secrets import is_shown_whole

AHEAD_SECONDS = 60.0  # by which a clock may have been set back since; more is no time that ever was


@dataclass(frozen=True, slots=True)
class SnapshotStore:
    """One file for each network and subnet."""

    state_dir: Path
    network: str
    netuid: int

    @property
    def name(self) -> str:
        """What the network is called here: the hash of an address that holds what nobody else may see."""
        if is_shown_whole(self.network):
            return self.network
        return hashlib.sha256(self.network.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """Where the file lies; a ws:// address becomes part of its name."""
        network = re.sub(r"[^a-zA-Z0-9.]+", "-", self.name).strip("-")
        return self.state_dir / f"chain-{network}-{self.netuid}.json"

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file as a whole.

        Raises:
            OSError: it can't be written.
        """
        neurons = [
            [n.uid, n.hotkey, n.stake, n.validator_permit, n.incentive, n.trust, n.last_update]
            for n in snapshot.neurons.values()
        ]
        content = {
            "network": self.name,
            "netuid": self.netuid,
            "block": snapshot.block,
            "taken_at": snapshot.taken_at,
            "neurons": neurons,
        }
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def load(self, now: float) -> Snapshot | None:
        """Return what was stored by `now`, in seconds since 1970; None where there is nothing.

        Raises:
            ValueError: the file is broken, or another chain's, or of a time that is still to come.
            OSError: it can't be read.
        """
        if not self.path.exists():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if (content["network"], content["netuid"]) != (self.name, self.netuid):
                raise ValueError("it belongs to another network or subnet")
            rows = [_neuron(*row) for row in content["neurons"]]
            neurons = {neuron.hotkey: neuron for neuron in rows}
            taken_at = _finite(content["taken_at"])
            if taken_at > now + AHEAD_SECONDS:
                raise ValueError(f"taken_at={taken_at:.0f} is {(taken_at - now) / 3600:.1f} h ahead of the clock")
            return Snapshot(block=int(content["block"]), taken_at=taken_at, neurons=MappingProxyType(neurons))
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"it is not what was stored: {error}") from error


def _neuron(uid: int, hotkey: str, stake: float, permit: bool, *scores: float) -> Neuron:
    incentive, trust, last_update = scores or (math.nan, math.nan, 0)  # older files end before them
    if scores:
        incentive, trust = _finite(incentive), _finite(trust)
    return Neuron(int(uid), str(hotkey), _finite(stake), bool(permit), incentive, trust, int(last_update))


def _finite(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number that was stored")
    return number
