"""The wire of SDK 11: `btauth/1`, any HTTP request signed with its body.

The SDK itself is imported when the hotkey is opened, beside the loading of the model: it takes half of a start's time.
"""

from collections.abc import Mapping
from typing import cast

from miner.axon.caller import Caller, read_timeout
from miner.errors import BadRequest, Unauthorised

VERSION_HEADER, HOTKEY_HEADER, NONCE_HEADER = "X-Bittensor-Version", "X-Bittensor-Hotkey", "X-Bittensor-Nonce"
MAX_AGE, ALLOWED_SKEW = 10.0, 2.0
RETENTION_NS = int((MAX_AGE + ALLOWED_SKEW) * 10**9)


def claimed_hotkey(headers: Mapping[str, str]) -> str:
    """Return who the request claims to come from: the signature covers the body, which is not read yet.

    Raises:
        Unauthorised: it does not say.
    """
    hotkey = headers.get(HOTKEY_HEADER.lower(), "")
    if not hotkey:
        raise Unauthorised(f"the header {HOTKEY_HEADER} is missing")
    return hotkey


def authenticate(
    headers: Mapping[str, str], body: bytes | bytearray, method: str, path: str, own_hotkey: str, now_ns: int
) -> Caller:
    """Return the caller who signed this very request for us.

    The one place that calls the SDK's `verify`: newer versions of it want further arguments. Replay is judged
    afterwards, by `replay.SeenNonces`, as for the older wire.

    Args:
        headers: with lower-case names.
        body: as received, before any parsing.
        method: of the request.
        path: the percent-encoded target, with its query.
        own_hotkey: the receiver that must have been signed.
        now_ns: ns since 1970.

    Raises:
        BadRequest: the nonce or the timeout is not a number.
        Unauthorised: anything else that `verify` refuses.
    """
    from bittensor import http_auth

    nonce = headers.get(NONCE_HEADER.lower(), "")
    if nonce and not (nonce.isascii() and nonce.isdecimal() and len(nonce) <= 20):
        raise BadRequest(f"the header {NONCE_HEADER} is not a whole number")
    timeout = read_timeout(headers.get("timeout"))
    try:
        caller = http_auth.verify(
            headers,
            cast("bytes", body),  # it is only hashed
            method=method,
            path=path,
            self_hotkey_ss58=own_hotkey,
            max_age=MAX_AGE,
            allowed_skew=ALLOWED_SKEW,
            require_receiver=True,
            nonce_store=_NoStore(),
            now_ns=now_ns,
        )
    except http_auth.AuthError as error:
        raise Unauthorised(str(error)) from None
    return Caller(hotkey=caller.hotkey_ss58, nonce=caller.nonce_ns, uuid="", timeout=timeout, wire="btauth")


class _NoStore:
    """Leaves replay to `SeenNonces`, which is bounded for each key."""

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        return True
