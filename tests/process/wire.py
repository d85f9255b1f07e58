"""Requests as validators sign them, made one part at a time so that a part can be wrong."""

import http.client
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import httpx

from miner.axon.client import Client
from miner.recorder.records import Wire
from tests.process.inspection import inspect_answer

if TYPE_CHECKING:
    from bittensor import Wallet

HOUR = 3600 * 10**9  # ns
CHUNK = 65536


class Door(NamedTuple):
    """One way in: a wire and a path."""

    wire: Wire = "dendrite"
    path: str = "/ImageSynapse"


DOORS = (Door(), Door("dendrite", "/ExtendedImageSynapse"), Door("btauth", "/predict"), Door("btauth"))


@dataclass(frozen=True)
class Signed:
    """A request, ready to be sent, changed or sent again."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def with_body(self, body: bytes) -> Self:
        return replace(self, body=body)

    def without(self, *names: str) -> Self:
        return replace(self, headers={key: value for key, value in self.headers.items() if key not in names})

    def but(self, **headers: str) -> Self:
        """Change or add headers; in the names of btauth `_` stands for `-`."""
        changed = dict(self.headers)
        for name, value in headers.items():
            changed[name.replace("_", "-") if name.startswith("x_") else name] = value
        return replace(self, headers=changed)


class Signer:
    """A hotkey that signs requests for one receiver."""

    def __init__(self, wallet: "Wallet", receiver: str) -> None:
        self.hotkey = wallet.hotkey.ss58_address
        self._client = Client(wallet, receiver, "http://127.0.0.1:1")

    def sign(
        self,
        image: bytes,
        door: Door,
        *,
        nonce: int | None = None,
        timeout: str = "9.0",
        body: bytes | None = None,
        signed_path: str | None = None,
    ) -> Signed:
        """Sign a picture, or another body, for a door."""
        body = self._client.body(image) if body is None else body
        if door.wire == "btauth":
            headers = self._client.btauth_headers(signed_path or door.path, body, nonce)
        else:
            headers = self._client.dendrite_headers(nonce)
        lowered = {key.lower(): value for key, value in headers.items()}
        return Signed(door.path, lowered | {"content-type": "application/json", "timeout": timeout}, body)


def chunk(data: bytes) -> bytes:
    """Return a piece of a body in chunks; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class RawRequest:
    """A connection on which the parts of a request are sent one by one."""

    def __init__(self, host: str, port: int, signed: Signed) -> None:
        self.signed = signed
        self.socket = socket.create_connection((host, port), timeout=120)

    @classmethod
    def on(cls, connection: socket.socket, signed: Signed) -> Self:
        """Send a request on a connection of one's own, such as one from another address."""
        raw = cls.__new__(cls)
        raw.signed, raw.socket = signed, connection
        return raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    @property
    def _encoded(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.signed.headers.items()]

    def send_head(
        self, *, length: int | None = None, host: str = "miner", path: str | None = None, and_then: bytes = b""
    ) -> Self:
        """Send the headers, with a length or, without one, for a body in chunks; at once with it what comes next."""
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [f"POST {path or self.signed.path} HTTP/1.1", f"host: {host}", framing]
        lines += [f"{name}: {value}" for name, value in self.signed.headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + and_then)
        return self

    def send_all(self) -> Self:
        self.send_head(length=len(self.signed.body))
        self.socket.sendall(self.signed.body)
        return self

    def send_chunk(self, data: bytes) -> None:
        self.socket.sendall(chunk(data))

    def has_answer(self, seconds: float = 0) -> bool:
        """Whether the miner has said something, or hung up."""
        return bool(self._came(select.POLLIN, seconds))

    def _came(self, events: int, seconds: float) -> int:
        """Wait for one of these; not with `select`, which knows no descriptor above 1024."""
        poll = select.poll()
        poll.register(self.socket, events)
        return sum(came for _, came in poll.poll(seconds * 1000))

    def takes_one_byte(self) -> bool:
        """Send a byte, if the miner has not said anything yet; return whether it has not."""
        if self.has_answer():
            return False
        try:
            self.socket.sendall(b" ")
        except ConnectionError:
            return False
        return True

    def takes_more(self, filling: bytes = b" ") -> bool:
        """Send a piece of something endless, if the miner takes it; return whether it has not refused yet."""
        came = self._came(select.POLLIN | select.POLLOUT, 0.001)
        if came & ~select.POLLOUT:
            return False
        try:
            if came:
                self.socket.send(filling * CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except ConnectionError:  # it refused, and has waited for the end of this in vain
            return False
        return True

    def hang_up(self) -> None:
        self.socket.close()

    def answer(self) -> httpx.Response:
        """Wait for the answer, and inspect it as all others."""
        received = http.client.HTTPResponse(self.socket)
        try:
            received.begin()
            response = httpx.Response(
                received.status,
                headers=received.getheaders(),
                content=received.read(),
                request=httpx.Request("POST", "http://miner" + self.signed.path, headers=self._encoded),
            )
        finally:
            received.close()
        inspect_answer(response)
        return response
