"""Nonces seen, so that no request is answered twice."""

from collections import OrderedDict

MAX_PER_KEY = 4096
MAX_KEYS = 1024


class SeenNonces:
    """A bounded set of nonces for each hotkey, so that one key can't push out another's.

    A set and not "greater than the last": two requests of one caller may arrive out of order. What falls out of a full
    set raises that key's floor, so forgetting never opens a hole: below the floor everything is refused. The keys are
    bounded too, and those known to the chain apart from all others, of which anybody can make as many as he likes: a
    key that is pushed out raises the floor of those like it that are not tracked.
    """

    def __init__(self, started_ns: int, retention_ns: int) -> None:
        """Refuse what is older than the process, whose set is empty then, and forget after `retention_ns`."""
        self._retention = retention_ns
        self._known, self._others = _Keys(started_ns), _Keys(started_ns)
        self._sweep_at = started_ns + retention_ns

    def check_and_store(self, key: str, nonce: int, now: int, caller: str = "", *, known: bool = True) -> bool:
        """Return whether `nonce` (ns since 1970) is new for `key`, and remember it.

        `caller` tells several clients of one hotkey apart, which may draw the same nonce; `known` the chain's keys from
        those that anybody can make.
        """
        if now >= self._sweep_at:
            self._sweep_at = now + self._retention
            self._known.forget(now - self._retention)
            self._others.forget(now - self._retention)
        keys, rest = (self._known, self._others) if known else (self._others, self._known)
        if key in rest.seen:  # it was registered meanwhile, or is no longer
            keys.seen[key] = rest.seen.pop(key)
        return keys.check_and_store(key, nonce, caller, now - self._retention)


class _Keys:
    """Hotkeys of one kind; the one that was silent for longest is pushed out."""

    def __init__(self, floor: int) -> None:
        self.floor = floor  # of a key that is not tracked
        self.seen: OrderedDict[str, _Seen] = OrderedDict()

    def check_and_store(self, key: str, nonce: int, caller: str, horizon: int) -> bool:
        seen = self.seen.get(key)
        if seen is None:
            if nonce < self.floor:
                return False
            seen = self.seen[key] = _Seen(self.floor)
        self.seen.move_to_end(key)
        fresh = seen.add(nonce, caller, horizon)
        while len(self.seen) > MAX_KEYS:
            _, dropped = self.seen.popitem(last=False)
            self.floor = max(self.floor, dropped.newest + 1)
        return fresh

    def forget(self, horizon: int) -> None:
        """Forget what every key holds from before, or keys that fell silent would hold theirs for ever."""
        for key, seen in list(self.seen.items()):
            seen.forget(horizon)
            if not seen:
                del self.seen[key]


class _Seen:
    """The nonces of one hotkey."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._nonces: OrderedDict[tuple[int, str], None] = OrderedDict()
        self.newest = floor

    def __len__(self) -> int:
        return len(self._nonces)

    def forget(self, horizon: int) -> None:
        while self._nonces and next(iter(self._nonces))[0] < horizon:
            self._nonces.popitem(last=False)

    def add(self, nonce: int, caller: str, horizon: int) -> bool:
        self.forget(horizon)
        if nonce < self._floor or (nonce, caller) in self._nonces:
            return False
        if len(self._nonces) >= MAX_PER_KEY:
            (oldest, _), _ = self._nonces.popitem(last=False)
            self._floor = max(self._floor, oldest + 1)
            if nonce < self._floor:
                return False
        self._nonces[nonce, caller] = None
        self.newest = max(self.newest, nonce)
        return True
