"""What requests may cost: each alone in bytes, pixels and seconds, and all together in memory."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from detectors.photos.image import MAX_PIXELS
from miner.inference.budget import UNPROVEN, Budget, ProvenAddresses


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of all our hotkeys, so that several hold no more in memory than one."""

    max_body: int
    body_stall: float
    deadline_cap: float
    deadline_margin: float
    max_pixels: int = MAX_PIXELS
    budget: Budget = field(init=False)
    proven: ProvenAddresses = field(init=False, default_factory=ProvenAddresses)
    # One body at a time is unpacked, which takes twice its size for some milliseconds.
    unpacking: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    unpacker: ThreadPoolExecutor = field(init=False, default_factory=lambda: ThreadPoolExecutor(1, "unpacking"))

    def __post_init__(self) -> None:
        # Two of the largest bodies of strangers, so that one is not in the way of another.
        object.__setattr__(self, "budget", Budget(unproven=max(UNPROVEN, 2 * self.max_body)))

    def patience(self, arrived: float, timeout: float) -> float:
        """Return when the caller stops waiting, or we for it, on the clock of `arrived`."""
        return arrived + min(timeout, self.deadline_cap)

    def deadline(self, arrived: float, timeout: float) -> float:
        """Return when the answer must be on its way."""
        return self.patience(arrived, timeout) - self.deadline_margin
