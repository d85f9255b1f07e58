"""The client of both wires: the requests as a validator sends them.

`query`, the simulation and the benches ask with it, so that the axon is never measured by a shortcut.
"""

import asyncio
import base64
import hashlib
import json
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx
from anyio.lowlevel import checkpoint

from miner.axon import BTAUTH_PATH
from miner.recorder.records import Wire
from miner.settings.validators import VALIDATORS_WAIT

if TYPE_CHECKING:
    from bittensor import Wallet

DENDRITE_VERSION = 10_005_000  # of the dendrite whose wire this is
EMPTY_BODY_HASH = hashlib.sha3_256(b"").hexdigest()  # an ImageSynapse has no required_hash_fields


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the status (0: no answer), the prediction if there is one, the message, the seconds it took."""

    status: int
    prediction: float | None
    message: str
    seconds: float
    timed_out: bool = False


def another(picture: bytes, number: int) -> bytes:
    """Return a photo that looks the same in bytes of its own: the miner scores equal ones in flight only once.

    What follows the end of a JPEG, PNG or WebP is no part of the picture.
    """
    return picture + number.to_bytes(8, "big") if number else picture


class Client:
    """A validator that asks one miner."""

    def __init__(
        self, wallet: "Wallet", receiver: str, address: str, wire: Wire = "dendrite", timeout: float = VALIDATORS_WAIT
    ) -> None:
        """Ask the miner with hotkey `receiver` at `address` (`http://host:port`), signing with the wallet's hotkey."""
        self.wallet = wallet
        self.receiver = receiver
        self.address = address
        self.wire = wire
        self.timeout = timeout
        self._uuid = str(uuid.uuid1())
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        await checkpoint()  # loads what httpx would load during the first request, whose time is measured
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, image: bytes) -> Reply:
        """Send an encoded photo and wait for the answer, for as long as a validator would."""
        path = BTAUTH_PATH if self.wire == "btauth" else "/ImageSynapse"
        body = self.body(image)
        headers = self.btauth_headers(path, body) if self.wire == "btauth" else self.dendrite_headers()
        headers |= {"content-type": "application/json", "timeout": str(self.timeout)}
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout):  # as a dendrite's: all in all, the way to the miner too
                response = await self._http.post(self.address + path, content=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            words = f"no answer from {self.address} within {self.timeout:g} s"
            return Reply(0, None, words, time.perf_counter() - started, timed_out=True)
        except httpx.HTTPError as error:
            return Reply(
                0,
                None,
                f"no connection to {self.address}: {error or type(error).__name__}",
                time.perf_counter() - started,
            )
        seconds = time.perf_counter() - started
        try:
            answer = response.json()
            prediction = answer.get("prediction")
            return Reply(response.status_code, prediction, str(answer.get("message", "")), seconds)
        except (ValueError, AttributeError):
            return Reply(response.status_code, None, "the answer is not a JSON object", seconds)

    def body(self, image: bytes) -> bytes:
        """Return the JSON of an ImageSynapse."""
        fields = {"name": "ImageSynapse", "timeout": self.timeout, "testnet_label": -1, "prediction": -1.0}
        return json.dumps(fields | {"image": base64.b64encode(image).decode()}).encode()

    def dendrite_headers(self, nonce: int | None = None) -> dict[str, str]:
        """Return the signed headers of the SDK's versions 9 and 10; `nonce` in ns since 1970, now if None."""
        hotkey = self.wallet.hotkey
        nonce = time.time_ns() if nonce is None else nonce
        message = f"{nonce}.{hotkey.ss58_address}.{self.receiver}.{self._uuid}.{EMPTY_BODY_HASH}"
        return {
            "name": "ImageSynapse",
            "bt_header_axon_hotkey": self.receiver,
            "bt_header_dendrite_version": str(DENDRITE_VERSION),
            "bt_header_dendrite_nonce": str(nonce),
            "bt_header_dendrite_uuid": self._uuid,
            "bt_header_dendrite_hotkey": hotkey.ss58_address,
            "bt_header_dendrite_signature": "0x" + hotkey.sign(message.encode()).hex(),
            "computed_body_hash": EMPTY_BODY_HASH,
        }

    def btauth_headers(self, path: str, body: bytes, nonce: int | None = None) -> dict[str, str]:
        """Return the signed headers of SDK 11."""
        from bittensor import http_auth

        return http_auth.sign(
            self.wallet, method="POST", path=path, body=body, receiver_ss58=self.receiver, nonce_ns=nonce
        )
