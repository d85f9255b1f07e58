"""A transport that hangs up in a way its caller's last answer survives."""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 2**20  # far above the largest body that is accepted


class LingeringTransport:
    """Says that no more comes, and reads on for a moment, where the caller may still be sending.

    To close a socket that holds unread bytes, or gets more, resets the connection, and a reset can overtake the
    answer: its caller sees a network error instead of the 413 (RFC 9112, section 9.6). What is read is thrown away.
    """

    def __init__(self, transport: asyncio.Transport, may_send: Callable[[], bool]) -> None:
        self._transport = transport
        self._may_send = may_send  # whether the caller may still be sending
        self._over: asyncio.TimerHandle | None = None
        self._thrown_away = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._over is not None or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send more; what an application says of an earlier request after all was said is thrown away."""
        if not self.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Send what is left, then hang up: at once, or when the caller has, or after `LINGER_SECONDS`."""
        if self.is_closing() or not self._may_send():
            self._transport.close()
            return
        self._over = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)
        self._transport.write_eof()
        self._transport.resume_reading()

    def stop_lingering(self) -> None:
        """Wait for nobody any more, now and later."""
        self._may_send = lambda: False
        if self._over is not None:
            self._transport.abort()

    def throw_away(self, count: int) -> None:
        """Note that `count` bytes came after all was said."""
        self._thrown_away += count
        if self._thrown_away > LINGER_BYTES:
            self._transport.abort()

    def lost(self) -> None:
        """Forget the connection, which is gone."""
        self._may_send = lambda: False
        if self._over is not None:
            self._over.cancel()
