"""Nonces seen, so that no request is answered twice, whatever the wall clock does meanwhile."""

import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable

MAX_PER_KEY = 4096
MAX_KEYS = 1024
MAX_SPANS = 8


class SeenNonces:
    """A bounded set of nonces for each hotkey, so that one key can't push out another's.

    A set and not "greater than the last": two requests of one caller may arrive out of order. How long a nonce is kept
    is measured on the monotonic clock, for a wall clock that is set back makes old nonces fresh again. What is
    forgotten leaves a span behind in which that key is refused: an honest caller's next nonce lies above all of them,
    and so no jump of our clock shuts it out. The keys are bounded too, and those known to the chain apart from all
    others, of which anybody can make as many as he likes: a key that is pushed out raises the floor of those like it
    that are not tracked.

    What was sent to the process before this one is unknown here. So a nonce is refused that is older than this process
    has run: an age needs no clock that was right at the start. Only while our clock is behind by more than that can
    what a key not heard since sent in that time before the start be let in, once.
    """

    def __init__(self, retention_ns: int, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        """Start with nothing seen, and keep what is seen for `retention_ns` of `monotonic`, in ns."""
        self._retention = retention_ns
        self._monotonic = monotonic
        self._started = monotonic()
        self._known, self._others = _Keys(), _Keys()
        self._sweep_at = self._started + retention_ns

    def check_and_store(self, key: str, nonce: int, now: int, caller: str = "", *, known: bool = True) -> bool:
        """Return whether `nonce` (ns since 1970) is new for `key`, and remember it.

        `now` is the wall clock's, in ns since 1970. `caller` tells several clients of one hotkey apart, which may draw
        the same nonce; `known` the chain's keys from those that anybody can make.
        """
        at = self._monotonic()
        if at >= self._sweep_at:
            self._sweep_at = at + self._retention
            self._known.forget(at - self._retention)
            self._others.forget(at - self._retention)
        if now - nonce > at - self._started:
            return False
        keys, rest = (self._known, self._others) if known else (self._others, self._known)
        if key in rest.seen:  # it was registered meanwhile, or is no longer
            keys.seen[key] = rest.seen.pop(key)
        return keys.check_and_store(key, nonce, caller, at, at - self._retention)


class _Keys:
    """Hotkeys of one kind; the one that was silent for longest is pushed out."""

    def __init__(self) -> None:
        self.floor = 0  # of a key that is not tracked
        self.seen: OrderedDict[str, _Seen] = OrderedDict()

    def check_and_store(self, key: str, nonce: int, caller: str, at: int, horizon: int) -> bool:
        seen = self.seen.get(key)
        if seen is None:
            if nonce < self.floor:
                return False
            seen = self.seen[key] = _Seen(self.floor)
        self.seen.move_to_end(key)
        seen.forget(horizon)
        fresh = seen.add(nonce, caller, at)
        while len(self.seen) > MAX_KEYS:
            _, dropped = self.seen.popitem(last=False)
            self.floor = max(self.floor, dropped.newest + 1)
        return fresh

    def forget(self, horizon: int) -> None:
        """Forget what every key holds from before, or keys that fell silent would hold theirs for ever."""
        for seen in self.seen.values():
            seen.forget(horizon)


class _Seen:
    """The nonces of one hotkey: the latest each by itself, the forgotten ones as spans."""

    def __init__(self, floor: int) -> None:
        self._nonces: OrderedDict[tuple[int, str], int] = OrderedDict()  # with when they came, on the monotonic clock
        self._spans: list[tuple[int, int]] = [(0, floor - 1)] if floor else []  # first and last, in order, apart
        self.newest = floor - 1

    def __len__(self) -> int:
        return len(self._nonces)

    def forget(self, horizon: int) -> None:
        """Forget what came before `horizon`, on the monotonic clock."""
        while self._nonces and next(iter(self._nonces.values())) < horizon:
            self._forget_oldest()

    def add(self, nonce: int, caller: str, at: int) -> bool:
        if (nonce, caller) in self._nonces or self._is_forgotten(nonce):
            return False
        if len(self._nonces) >= MAX_PER_KEY:
            self._forget_oldest()
            if self._is_forgotten(nonce):
                return False
        self._nonces[nonce, caller] = at
        self.newest = max(self.newest, nonce)
        return True

    def _is_forgotten(self, nonce: int) -> bool:
        return any(first <= nonce <= last for first, last in self._spans)

    def _forget_oldest(self) -> None:
        (nonce, _), _ = self._nonces.popitem(last=False)
        if self._is_forgotten(nonce):
            return
        insort(self._spans, (nonce, nonce))
        if len(self._spans) > MAX_SPANS:
            # The two that are nearest become one: only more is refused, and a jump of the clock leaves a wide gap.
            gaps = [right[0] - left[1] for left, right in zip(self._spans, self._spans[1:], strict=False)]
            near = gaps.index(min(gaps))
            self._spans[near : near + 2] = [(self._spans[near][0], self._spans[near + 1][1])]
