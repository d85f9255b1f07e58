"""Whether memory is about to run out: what comes then is refused, before the kernel kills the process."""

from collections.abc import Callable

from miner import memory
from miner.machine import Headroom, read_headroom

MEBIBYTE = 2**20
SHARE = 0.05  # of the limit is kept free,
LEAST, MOST = 16 * MEBIBYTE, 128 * MEBIBYTE  # within these: about what the requests of a moment take
RELIEF = 1.25  # of that must be free again


class Pressure:
    """Looks at what is left of the tightest limit."""

    def __init__(self, read: Callable[[], Headroom] = read_headroom) -> None:
        self._read = read
        self.obstacle: str | None = None

    def look(self) -> None:
        """Look again."""
        room = self._read()
        if self.obstacle is None and is_short(room, pressed=False):
            memory.give_back()
            room = self._read()
        if is_short(room, pressed=self.obstacle is not None):
            self.obstacle = (
                f"memory is short: {room.left / MEBIBYTE:.0f} MiB are left of the {room.whose}'s "
                f"{room.limit / MEBIBYTE:.0f}, and {reserve(room.limit) / MEBIBYTE:.0f} are kept free"
            )
        else:
            self.obstacle = None


def reserve(limit: float) -> float:
    """Return the bytes that are kept free of a limit."""
    return min(MOST, max(LEAST, SHARE * limit))


def is_short(room: Headroom, *, pressed: bool) -> bool:
    """Return whether too little is left; once it was, some more has to be free again."""
    return room.left < reserve(room.limit) * (RELIEF if pressed else 1)
