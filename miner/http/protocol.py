"""The guarded HTTP protocol: limits of number, time and size; JSON errors; a lingering close."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any, NoReturn, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from miner.errors import MESSAGES, DropReason
from miner.http.connections import VOUCH_EXTENSION, Connections

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 2**20  # far above the largest body that is accepted

MAX_HEADER_BYTES = 16 * 2**10  # a dendrite sends about 1.5 kB
MAX_HEADERS = 100
MAX_UNSENT_BYTES = 8 * 2**10  # of answers to one caller who does not read them, besides what the kernel holds
HEADERS_TOO_LARGE = "the headers are too large"
STATUS_LINES = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    503: b"HTTP/1.1 503 Service Unavailable",
}


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


class GuardedProtocol(HttpToolsProtocol):
    """Hangs up on whoever is too slow, sends too much that is no body, or is one too many."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self.is_proven = False
        self._guarded = connections
        self._patience: asyncio.TimerHandle | None = None  # while the caller owes us bytes that the app does not await
        self._framing_bytes = 0  # since a request or the last piece of its body: of headers, of trailers
        self._in_headers = True
        self._in_body = False
        self._unsent_since: float | None = None
        self._fault = ""

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests."""
        return self._patience is None and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Find room, and start waiting for the first request."""
        self._line = LingeringTransport(transport, lambda: self._in_body)
        transport.set_write_buffer_limits(MAX_UNSENT_BYTES)
        super().connection_made(cast("asyncio.Transport", self._line))
        self.address = self.client[0] if self.client is not None else ""
        if self._guarded.join(self):
            self._wait_for_bytes()
        else:
            self._in_body = self._guarded.may_linger(self)  # it may have sent its request already
            self._end(503, "too many connections", "crowded")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._line.lost()
        self._guarded.leave(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Hang up when what is worked on is answered: the server ends, and who owes us bytes is not waited for."""
        self._line.stop_lingering()
        if self._in_body and self.cycle is not None and not self.cycle.response_complete:
            self._end(503, MESSAGES["draining"])
        else:
            super().shutdown()

    def drop(self, reason: DropReason) -> None:
        """Hang up without a word."""
        self._guarded.dropped(reason)
        self.transport.abort()

    def look(self, now: float) -> None:
        """Hang up on a caller who leaves its answers lying; some dozens of the short ones fit the kernel's buffer."""
        if self.transport.get_write_buffer_size() == 0:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self._guarded.guard.write_seconds:
            if (opened := self.transport.get_extra_info("socket")) is not None:
                # Else the kernel would keep what is unsent, and offer it for minutes.
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.drop("slow")

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what is no body: it keeps a header, or a trailer, until that ends."""
        if self.transport.is_closing():
            self._line.throw_away(len(data))
            return
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > MAX_HEADER_BYTES:
            self.send_400_response(HEADERS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Start waiting for a request's headers, unless the connection has begun that."""
        if self.cycle is not None and not self.cycle.response_complete:
            # Nobody pipelines, and one read may hold ten thousand small requests that would take kilobytes each.
            self._refuse("one request at a time, please")
        super().on_message_begin()
        self.scope["extensions"] = {VOUCH_EXTENSION: {"prove": self._prove}}
        self._in_headers = True
        if self._patience is None:
            self._wait_for_bytes()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        super().on_url(url)
        if len(self.url) > MAX_HEADER_BYTES:
            self._refuse("the target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, if there are not too many."""
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS or len(name) + len(value) > MAX_HEADER_BYTES:
            self._refuse(HEADERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Stop waiting; from here on the application's limits hold."""
        self._stop_waiting()
        self._in_headers, self._in_body = False, True
        self._framing_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting for the rest of a body that nobody wanted."""
        self._stop_waiting()
        self._in_body = False
        self._framing_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """After an answer that did not need the whole body, wait for the rest of it only so long."""
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self.cycle.body = bytearray()  # what nobody asked for would stay for as long as the connection does
        if self._in_body and self.cycle.response_complete and self._patience is None:
            self._wait_for_bytes()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, as JSON like every other error."""
        self._in_body = True  # for all that is known
        self._end(400, self._fault or msg.lower().rstrip("."), "malformed")

    def _refuse(self, fault: str) -> NoReturn:
        """Stop the parser, which calls this from its midst; then `send_400_response` says why."""
        self._fault = fault
        raise ValueError(fault)

    def _end(self, status: int, message: str, reason: DropReason | None = None) -> None:
        """Say why, and hang up."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if reason is not None:
            self._guarded.dropped(reason)
        body = json.dumps({"message": message}).encode()
        self.transport.write(
            b"%s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
            % (STATUS_LINES[status], len(body), body)
        )
        self.transport.close()

    def _prove(self) -> None:
        self.is_proven = True

    def _wait_for_bytes(self) -> None:
        self._patience = self.loop.call_later(self._guarded.guard.header_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self._in_headers and self._framing_bytes:
            self._end(408, "the headers came too slowly", "slow")
        else:
            self.drop("slow")
