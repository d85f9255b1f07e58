"""uvicorn's HTTP protocol with what it lacks towards strangers: limits of time and size for headers, JSON errors."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0  # from a connection, or a request's first byte, to the end of its headers
MAX_HEADER_BYTES = 64 * 2**10  # a dendrite sends about 1.5 kB


class GuardedProtocol(HttpToolsProtocol):
    """Hangs up on a connection whose headers don't end, in time or in size."""

    _patience: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._headers_are_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count while headers are on their way."""
        super().data_received(data)
        if self._patience is not None:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._headers_are_there()
                self.send_400_response("the headers are too large")

    def on_message_begin(self) -> None:
        """Start waiting for a further request's headers."""
        super().on_message_begin()
        if self._patience is None:
            self._wait_for_headers()

    def on_headers_complete(self) -> None:
        """Stop waiting; from here on the application's limits hold."""
        self._headers_are_there()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, as JSON like every other error."""
        body = json.dumps({"message": msg.lower().rstrip(".")}).encode()
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()

    def _wait_for_headers(self) -> None:
        self._header_bytes = 0
        self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _headers_are_there(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self, *_: Any) -> None:
        self._patience = None
        self.transport.abort()
