"""The dendrite wire, of the SDK's versions 9 and 10: a dendrite asks, an axon answers.

Header names contain underscores, the path decides, and the signature covers neither method, path nor image: its quirks
stay in this file.
"""

import time
from collections.abc import Mapping
from typing import Any

import bittensor_core  # the SDK's native part, which its `sp_core` hands on: `btauth` says what the rest of it costs

from miner import __version__
from miner.axon.caller import SR25519, Caller, Window, check_fresh, read_timeout
from miner.errors import BadRequest, Unauthorised

MIN_VERSION = 7_002_000  # 7.2.0 is the first that signs the nonce as a time
PAST_NS = 4 * 10**9  # clocks differ; the SDK's own axon allows as much
FUTURE_NS = 4 * 10**9
MAX_TIMEOUT_NS = 12 * 10**9  # the timeout is not signed, so it must not stretch the window at will
RETENTION_NS = PAST_NS + MAX_TIMEOUT_NS + FUTURE_NS
MAX_TEXT = 200  # characters of a value; a signature has 130, a uuid, which is remembered, 36
HEADER_PREFIX = "bt_header_dendrite_"


def authenticate(headers: Mapping[str, str], own_hotkey: str, now_ns: int) -> Caller:
    """Return the caller who signed these headers for us; about 33 µs, so it runs on the event loop.

    In a pool of threads concurrent requests of one caller would overtake each other. Replay is the next step
    (`nonces.SeenNonces`), once the caller is known to be welcome.

    Raises:
        BadRequest: a number is not one.
        StaleNonce: the nonce of a proven caller is not fresh.
        Unauthorised: a header is missing, or the signature is not of this caller for us.
    """
    nonce = _number(headers, "nonce")
    version = _number(headers, "version")
    timeout = read_timeout(headers.get("timeout"))
    hotkey, uuid = _text(headers, "hotkey"), _text(headers, "uuid")
    signature = _text(headers, "signature")
    if version < MIN_VERSION:
        raise Unauthorised("the dendrite is older than 7.2.0")
    # Rebuilt with our own hotkey: a request meant for another miner fails as a mismatch.
    message = f"{nonce}.{hotkey}.{own_hotkey}.{uuid}.{headers.get('computed_body_hash', '')}"
    try:
        signed = bittensor_core.verify(
            message.encode(), bytes.fromhex(signature.removeprefix("0x")), hotkey, crypto_type=SR25519
        )
    except ValueError:
        signed = False
    if not signed:
        raise Unauthorised("the signature does not match")
    caller = Caller(hotkey=hotkey, nonce=nonce, uuid=uuid, timeout=timeout, wire="dendrite")
    # The time comes last: whose it is tells whether our clock or an unproven caller is wrong.
    check_fresh(caller, window(timeout), now_ns)
    return caller


def window(timeout: float) -> Window:
    """Return how far the nonce of a caller who waits so many seconds may be from our clock."""
    return Window(PAST_NS + int(min(timeout * 10**9, MAX_TIMEOUT_NS)), FUTURE_NS)


def answer_headers(status: int, message: str, started: float) -> dict[str, str]:
    """Return the headers a dendrite copies into its synapse; `started` is on `time.monotonic`."""
    return {
        "bt_header_axon_status_code": str(status),
        "bt_header_axon_status_message": message,
        "bt_header_axon_process_time": f"{time.monotonic() - started:.6f}",
    }


def answer_body(
    synapse: str, prediction: float, model_url: str, request: Mapping[str, str], own_hotkey: str, started: float
) -> dict[str, Any]:
    """Return the body that makes a dendrite's `is_success` true; unlike the SDK, it does not send the picture back."""
    elapsed = time.monotonic() - started
    return {
        "name": synapse,
        "prediction": prediction,
        "model_url": model_url,
        "axon": {
            "status_code": 200,
            "status_message": "Success",
            "process_time": elapsed,
            "hotkey": own_hotkey,
            "version": int("".join(part.zfill(3) for part in __version__.split("."))),
        },
        "dendrite": {
            "status_code": 200,
            "status_message": "Success",
            "ip": request.get(HEADER_PREFIX + "ip"),
            "version": int(request[HEADER_PREFIX + "version"]),
            "nonce": int(request[HEADER_PREFIX + "nonce"]),
            "uuid": request[HEADER_PREFIX + "uuid"],
            "hotkey": request[HEADER_PREFIX + "hotkey"],
        },
    }


def _text(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(HEADER_PREFIX + name, "")
    if not value:
        raise Unauthorised(f"the header {HEADER_PREFIX}{name} is missing")
    if len(value) > MAX_TEXT:
        raise BadRequest(f"the header {HEADER_PREFIX}{name} is too long")
    return value


def _number(headers: Mapping[str, str], name: str) -> int:
    text = _text(headers, name)
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise BadRequest(f"the header {HEADER_PREFIX}{name} is not a whole number")
    return int(text)
