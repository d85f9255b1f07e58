"""The memory budget of requests, reserved by rank; and the settings of glibc's allocator.

Bodies, what unpacking takes, and decoded pixels all come from one budget. What is short goes from who ranks worse to
who ranks better, by the rank that places in the queue go by (`miner.inference.queue`); a request in a slot keeps what
it has. Callers who have proved nothing rank behind everybody who has, and among themselves by what their address holds.
"""

import asyncio
import ctypes
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from math import inf

from miner.errors import Refused, refused
from miner.inference.queue import Rank

MAX_BUDGET_BYTES = 2**30  # bytes that requests take in all, however much is left
UNPROVEN_BYTES = 64 * 2**20  # bytes of the bodies of callers who have proved nothing
MIN_CLAIM_BYTES = (
    512 * 2**10
)  # bytes that each of these counts for: what has been read of it before anybody asks, twice
RETRY_SECONDS = 0.02  # seconds between two tries
STALE_SECONDS = 0.005  # seconds; a look at the machine that is older is taken again before somebody is refused
MAX_PROVEN_ADDRESSES = 4096  # that have proved themselves and are remembered

Precedence = tuple[bool, Rank]  # whether it is unproven, and its rank; the larger loses first

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
ARENAS = 2  # heaps that all threads share; 8 for each core otherwise
LARGE_BLOCK = 128 * 2**10  # bytes; glibc's own start value, which it would raise up to 32 MB by itself
PICTURE_BLOCK = 12 * 2**20  # a decoded photo of 1920×1080 takes 8.3 MB
PICTURE_MEMORY = 16 * 2**20  # what one takes in all


class Budget:
    """The bytes of all requests, of all our hotkeys. Lives on the event loop.

    Args:
        unproven: bytes that the bodies of callers who have proved nothing may take.
        most: bytes that all may take.
    """

    def __init__(self, unproven: int = UNPROVEN_BYTES, most: int = MAX_BUDGET_BYTES) -> None:
        self._most = most
        self._most_unproven = unproven
        self._capacity: float = most
        self._claims: dict[Claim, None] = {}  # as an ordered set: those that hold something
        self.held = 0
        self._unproven: Counter[str] = Counter()  # bytes of those who have proved nothing, by address
        self._all_unproven = 0
        self.short = False  # whether the machine had not enough for a claim since the last look
        self.reread: Callable[[], float] | None = None  # returns the bytes that are left now
        self._seen = -inf  # when that was asked, on time.monotonic

    @property
    def free(self) -> float:
        """Bytes that can still be claimed without taking them from anybody."""
        return self._capacity - self.held

    @property
    def used(self) -> int:
        """Bytes of claims that are surely filled, so that the kernel counts them already."""
        return sum(claim.used for claim in self._claims)

    def see(self, left: float, used: int) -> None:
        """Take a fresh look at the machine: `left` bytes can be taken now, while `used` bytes of claims are filled."""
        self._capacity = min(self._most, left + used)
        self.short = False

    @property
    def is_busy(self) -> bool:
        """Whether a picture that is worked on holds some, and will give it back."""
        return any(claim.lose is None for claim in self._claims)

    def claim(self, rank: Rank | None, address: str = "") -> "Claim":
        """Return a claim that holds nothing yet; without a rank it is one of an unproven caller at this address."""
        return Claim(self, rank, address)

    def take(self, claim: "Claim", count: int) -> None:
        """Give `count` bytes to a claim; it raises as `Claim.grow`."""
        if claim.rank is None:
            count = max(count, MIN_CLAIM_BYTES - claim.bytes)
            over = self._all_unproven + count - self._most_unproven
            self._make_room(over, claim.standing(count), lambda one: one.rank is None)
        # On the loop: it takes 0.8 ms, only when memory is short, and what a picture has just given back counts.
        if count > self.free and self.reread is not None and time.monotonic() - self._seen > STALE_SECONDS:
            self._seen = time.monotonic()
            self.see(self.reread(), self.used)
        try:
            self._make_room(count - self.free, claim.standing(count), lambda one: True)
        except Refused:
            self.short = True
            raise
        self._claims[claim] = None
        self._note(claim, count)

    def give_back(self, claim: "Claim", left: int) -> None:
        """Take back all but `left` bytes of a claim."""
        left = min(left, claim.bytes)
        self._note(claim, left - claim.bytes)
        claim.used = left
        if not left:
            self._claims.pop(claim, None)

    def held_at(self, address: str) -> int:
        """Return the bytes that unproven callers at an address hold."""
        return self._unproven[address]

    def prove(self, claim: "Claim") -> None:
        """Count a claim's bytes no longer among those of unproven callers."""
        self._note_unproven(claim, -claim.bytes)

    def _note(self, claim: "Claim", more: int) -> None:
        claim.bytes += more
        self.held += more
        self._note_unproven(claim, more)

    def _note_unproven(self, claim: "Claim", more: int) -> None:
        if claim.rank is None:
            self._all_unproven += more
            self._unproven[claim.address] += more
            if not self._unproven[claim.address]:
                del self._unproven[claim.address]

    def _make_room(self, needed: float, standing: Precedence, among: "Callable[[Claim], bool]") -> None:
        """Take bytes from those who stand behind, the last first; from nobody if that were not enough.

        Raises:
            Refused: it is not.
        """
        if needed <= 0:
            return
        behind = [(one.standing(), one) for one in self._claims if one.lose is not None and among(one)]
        losers: list[Claim] = []
        for place, one in sorted(behind, key=lambda pair: pair[0], reverse=True):
            if needed <= 0 or place <= standing:
                break
            losers.append(one)
            needed -= one.bytes
        if needed > 0:
            raise refused("memory")
        for one in losers:
            self.give_back(one, 0)
            one.end(refused("memory"))


class Claim:
    """What one request holds of the budget."""

    def __init__(self, budget: Budget, rank: Rank | None, address: str) -> None:
        self._budget = budget
        self._rank = rank
        self.address = address
        self.bytes = 0
        self.used = 0
        self.lose: Callable[[Refused], None] | None = None  # ends the request; None: nobody can take it away

    @property
    def rank(self) -> Rank | None:
        """That of its request; None while its caller has proved nothing."""
        return self._rank

    @rank.setter
    def rank(self, rank: Rank) -> None:
        self._budget.prove(self)
        self._rank = rank

    def standing(self, more: int = 0) -> Precedence:
        """Return where it stands, if it held `more` bytes than it does."""
        if self.rank is not None:
            return False, self.rank
        return True, Rank(self._budget.held_at(self.address) + more, 0.0, 0)

    def grow(self, count: int) -> None:
        """Take `count` bytes more, if need be from who stands behind.

        Raises:
            Refused: there are not so many for it.
        """
        self._budget.take(self, count)

    def grow_or_wait(self, count: int, until: float) -> bool:
        """Take `count` bytes more; False: a running picture may give them back, so try again after `RETRY_SECONDS`.

        Callers who have proved nothing don't wait: there may be hundreds of them.

        Raises:
            Refused: there are not so many for it by `until`, on `time.monotonic`.
        """
        try:
            self.grow(count)
        except Refused:
            if self._rank is None or time.monotonic() >= until or not self._budget.is_busy:
                raise
            return False
        return True

    async def obtain(self, count: int, until: float, check: Callable[[], None]) -> None:
        """Take `count` bytes more as soon as there are so many; what a running picture holds is waited for.

        Args:
            count: how many.
            until: when that makes no sense any more, on `time.monotonic`.
            check: raises once the request has ended for another reason.

        Raises:
            Refused: there are not so many for it.
        """
        check()
        while not self.grow_or_wait(count, until):
            await asyncio.sleep(RETRY_SECONDS)
            check()

    def fill(self, count: int) -> None:
        """Note that `count` bytes more of it are filled."""
        self.used = min(self.bytes, self.used + count)

    def shrink(self, left: int = 0) -> None:
        """Give back all but `left` bytes, which are filled."""
        self._budget.give_back(self, left)

    def release(self) -> None:
        """Give back all; the request has ended, and whoever would have ended it is let go too."""
        self.shrink()
        self.lose = None

    def end(self, why: Refused) -> None:
        """End the request that has lost it."""
        if self.lose is not None:
            lose, self.lose = self.lose, None
            lose(why)


class ProvenAddresses:
    """From which addresses a hotkey has proved itself: there, what names that hotkey ranks as it would.

    The pair is what counts: from its own address a validator of little stake could else name one of much.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def remember(self, address: str, hotkey: str) -> None:
        """Note that this hotkey has signed a request from this address."""
        self._seen[address, hotkey] = None
        self._seen.move_to_end((address, hotkey))
        while len(self._seen) > MAX_PROVEN_ADDRESSES:
            self._seen.popitem(last=False)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._seen


def keep_large_blocks_apart() -> None:
    """While a model is loaded, have large blocks mapped one by one: each goes back to the machine when it is freed.

    Loading an int8 ViT-base without its optimised graph stays at 202 MB instead of 273 MB. Each reload is a thread of
    its own, and would leave what it freed in another heap: after 24 of the starter 133 MB instead of 91.
    """
    _call("mallopt", M_ARENA_MAX, ARENAS)
    _call("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK)


def keep_pictures_together() -> None:
    """Return what is free, and from now on reuse the memory of one picture for the next.

    Blocks that are mapped one by one come as pages that fault: 4,300 for a photo of 1920×1080 and 180 for one of
    224×224, instead of 100 and 3. That is a third of the large one's time (30 ms instead of 20 with the starter); it
    costs 18 MB once such photos come, and 2 MB before.
    """
    give_back()
    _call("mallopt", M_MMAP_THRESHOLD, PICTURE_BLOCK)
    _call("mallopt", M_TRIM_THRESHOLD, PICTURE_MEMORY)


def give_back() -> None:
    """Return what is free."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
