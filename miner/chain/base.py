"""What the miner knows of the chain, whichever chain it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Neuron:
    """One registered hotkey of the subnet."""

    uid: int
    hotkey: str
    stake: float  # in tao-equivalent units, as the chain sums them up
    validator_permit: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The subnet at one block; replaced as a whole, never changed."""

    block: int
    taken_at: float  # wall clock, seconds since 1970
    neurons: Mapping[str, Neuron]  # by hotkey
    uid: int | None  # our own; None: not registered


EMPTY = Snapshot(block=0, taken_at=0.0, neurons=MappingProxyType({}), uid=None)


class Chain(Protocol):
    """Keeps a snapshot fresh and publishes our address."""

    @property
    def snapshot(self) -> Snapshot:
        """The last good snapshot; reading it costs nothing."""
        ...

    @property
    def obstacle(self) -> str | None:
        """Why the chain's side is not ready, in words for the operator; None when it is."""
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
