"""The protocol of a chain, and its snapshot: what the miner knows of the subnet, whichever chain it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

ACTIVITY_CUTOFF = 5000  # blocks; the chain's own default


@dataclass(frozen=True, slots=True)
class Neuron:
    """One registered hotkey of the subnet."""

    uid: int
    hotkey: str
    stake: float  # in tao-equivalent units, as the chain sums them up
    validator_permit: bool
    incentive: float = 0.0  # share of what the subnet's miners get, 0 to 1
    trust: float = 0.0  # 0 to 1; the chain has stopped computing it (SDK 11.3) and reports 0
    last_update: int = 0  # block at which it last set weights


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The subnet at one block; replaced as a whole, never changed."""

    block: int
    taken_at: float  # wall clock, seconds since 1970
    neurons: Mapping[str, Neuron]  # by hotkey

    def uid_of(self, hotkey: str) -> int | None:
        """Return a hotkey's uid; None: not registered."""
        neuron = self.neurons.get(hotkey)
        return neuron.uid if neuron is not None else None


EMPTY = Snapshot(block=0, taken_at=0.0, neurons=MappingProxyType({}))


def active_validators(neurons: Iterable[Neuron], block: int, cutoff: int = ACTIVITY_CUTOFF) -> list[Neuron]:
    """Return those with a permit that set weights in the last `cutoff` blocks, as of `block`."""
    return [neuron for neuron in neurons if neuron.validator_permit and block - neuron.last_update <= cutoff]


class Chain(Protocol):
    """Keeps a snapshot fresh and publishes our address: one hotkey's side of it."""

    hotkey: str

    @property
    def snapshot(self) -> Snapshot:
        """The last good snapshot; reading it costs nothing."""
        ...

    @property
    def uid(self) -> int | None:
        """Our own; None: not registered."""
        ...

    @property
    def obstacle(self) -> str | None:
        """Why the chain's side is not ready, in words for the operator; None when it is."""
        ...

    @property
    def age(self) -> float:
        """Seconds since the snapshot was taken; infinite before the first."""
        ...

    @property
    def fault(self) -> str | None:
        """Why the snapshot is not fresh, as of the last read; None while all is well."""
        ...

    @property
    def publication(self) -> str:
        """Whether validators can find us, in words."""
        ...

    @property
    def is_published(self) -> bool:
        """Whether they can, as of the last read."""
        ...

    @property
    def syncs(self) -> int:
        """How often the chain was read."""
        ...

    @property
    def failures(self) -> int:
        """How often it could not be read, or our address not be published."""
        ...

    async def start(self) -> None:
        """Take the first snapshot and keep it fresh from then on.

        Raises:
            ConfigurationError: what was asked for can't exist.
        """
        ...

    async def publish(self) -> None:
        """Make our address known to validators, if it is not already."""
        ...

    async def stop(self) -> None:
        """Stop refreshing."""
        ...
