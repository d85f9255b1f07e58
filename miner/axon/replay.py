"""Nonces seen, so that no request is answered twice."""

from collections import OrderedDict

MAX_PER_KEY = 4096
MAX_KEYS = 1024


class SeenNonces:
    """A bounded set of nonces for each hotkey, so that one key can't push out another's.

    A set and not "greater than the last": two requests of one caller may arrive out of order. What falls out of a full
    set raises that key's floor, so forgetting never opens a hole: below the floor everything is refused.
    """

    def __init__(self, started_ns: int, retention_ns: int) -> None:
        """Refuse what is older than the process, whose set is empty then, and forget after `retention_ns`."""
        self._floor = started_ns
        self._retention = retention_ns
        self._keys: OrderedDict[str, _Seen] = OrderedDict()
        self._sweep_at = started_ns + retention_ns

    def check_and_store(self, key: str, nonce: int, now: int, caller: str = "") -> bool:
        """Return whether `nonce` (ns since 1970) is new for `key`, and remember it.

        `caller` tells several clients of one hotkey apart, which may draw the same nonce.
        """
        if nonce < self._floor:
            return False
        if now >= self._sweep_at:
            self._sweep(now)
        seen = self._keys.get(key)
        if seen is None:
            seen = self._keys[key] = _Seen(self._floor)
        self._keys.move_to_end(key)
        fresh = seen.add(nonce, caller, now - self._retention)
        while len(self._keys) > MAX_KEYS:
            # Only a miner open to unregistered keys gets here; the oldest key's requests are old by now too.
            _, dropped = self._keys.popitem(last=False)
            self._floor = max(self._floor, dropped.newest + 1)
        return fresh

    def _sweep(self, now: int) -> None:
        """Forget what every key holds from before the window, or keys that fell silent would hold theirs for ever."""
        self._sweep_at = now + self._retention
        for key, seen in list(self._keys.items()):
            seen.forget(now - self._retention)
            if not seen:
                del self._keys[key]


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
