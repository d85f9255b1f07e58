"""Whether memory is about to run out: what comes then is refused, before the kernel kills the process."""

from collections.abc import Callable
from math import inf

from detectors.machine import Headroom, read_headroom
from miner.inference import allocator

MEBIBYTE = 2**20
SHARE = 0.05  # of the limit is kept free,
LEAST, MOST = 16 * MEBIBYTE, 128 * MEBIBYTE  # within these: about what the requests of a moment take
RELIEF = 1.25  # of that must be free again


class Pressure:
    """Looks at what is left of the tightest limit."""

    def __init__(self, read: Callable[[], Headroom] = read_headroom) -> None:
        self._read = read
        self.obstacle: str | None = None
        self.left = inf  # bytes that requests may take

    def look(self, *, wanted: bool = False) -> None:
        """Look again; `wanted`: a request was refused for want of memory, so what is free is given back first."""
        room = self._read()
        if self.obstacle is None and (wanted or is_short(room, pressed=False)):
            allocator.give_back()
            room = self._read()
        self.left = room.left - reserve(room.limit)
        if is_short(room, pressed=self.obstacle is not None):
            self.obstacle = (
                f"memory is short: {room.left / MEBIBYTE:.0f} MiB are left of the {room.whose}'s "
                f"{room.limit / MEBIBYTE:.0f}, and {reserve(room.limit) / MEBIBYTE:.0f} are kept free"
            )
        else:
            self.obstacle = None

    def read_left(self) -> float:
        """Return the bytes that requests may take at this moment."""
        room = self._read()
        return room.left - reserve(room.limit)


def reserve(limit: float) -> float:
    """Return the bytes that are kept free of a limit."""
    return min(MOST, max(LEAST, SHARE * limit))


def is_short(room: Headroom, *, pressed: bool) -> bool:
    """Return whether too little is left; once it was, some more has to be free again."""
    return room.left < reserve(room.limit) * (RELIEF if pressed else 1)
