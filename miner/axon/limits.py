"""What requests may cost: each alone in bytes and seconds, and all bodies together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from miner.axon.caller import Wire
from miner.queue import refused


class Held:
    """Bytes of bodies held at once; many large ones together are refused, though each alone would be allowed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0

    def take(self, count: int) -> None:
        """Hold `count` bytes more.

        Raises:
            Refused: that would be too many.
        """
        if self.now + count > self.limit:
            raise refused("queue_full")
        self.now += count

    def give_back(self, count: int) -> None:
        """Let `count` bytes go."""
        self.now -= count


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of all our hotkeys, so that several hold no more in memory than one."""

    max_body: int
    body_stall: float
    deadline_cap: float
    deadline_margin: float
    held: Mapping[Wire, Held] = field(init=False)

    def __post_init__(self) -> None:
        # Apart, so that unproven bodies of the one wire take nothing from the other.
        held: Mapping[Wire, Held] = {"dendrite": Held(2 * self.max_body), "btauth": Held(self.max_body)}
        object.__setattr__(self, "held", held)

    def patience(self, arrived: float, timeout: float) -> float:
        """Return when the caller stops waiting, or we for it, on the clock of `arrived`."""
        return arrived + min(timeout, self.deadline_cap)

    def deadline(self, arrived: float, timeout: float) -> float:
        """Return when the answer must be on its way."""
        return self.patience(arrived, timeout) - self.deadline_margin
