"""The btauth wire, of SDK 11: `btauth/1`, any HTTP request signed with its body.

The SDK takes a third of a start's CPU time, most of it for Ethereum's keys. Without a chain nobody needs it before the
first answer: `load_sdk` imports it behind the start. With one, the hotkey's wallet did so beside the model's loading.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from miner.axon.caller import SR25519, Caller, Window, check_fresh, read_timeout
from miner.errors import BadRequest, Unauthorised

if TYPE_CHECKING:
    from bittensor import http_auth

    Verify = Callable[..., http_auth.Caller]

VERSION_HEADER, HOTKEY_HEADER, NONCE_HEADER = "X-Bittensor-Version", "X-Bittensor-Hotkey", "X-Bittensor-Nonce"
CRYPTO_HEADER = "X-Bittensor-Crypto"
SCHEME = "sr25519"  # of every hotkey that may ask; without the header it is meant too
MAX_AGE, ALLOWED_SKEW = 10.0, 2.0
WINDOW = Window(int(MAX_AGE * 10**9), int(ALLOWED_SKEW * 10**9))
RETENTION_NS = WINDOW.past + WINDOW.future


def load_sdk() -> None:
    """Import what `authenticate` asks, so that no caller waits for it; blocks for half a second.

    A failure is told by whoever needs it: there may be no file descriptor left just now.
    """
    with suppress(ImportError, OSError):
        from bittensor import http_auth  # noqa: F401


def claimed_hotkey(headers: Mapping[str, str]) -> str:
    """Return who the request claims to come from: the signature covers the body, which is not read yet.

    Raises:
        Unauthorised: it does not say, or is signed by a scheme that no hotkey here has.
    """
    hotkey = headers.get(HOTKEY_HEADER.lower(), "")
    if not hotkey:
        raise Unauthorised(f"the header {HOTKEY_HEADER} is missing")
    if headers.get(CRYPTO_HEADER.lower(), SCHEME).strip().lower() not in (SCHEME, str(SR25519)):
        raise Unauthorised(f"the header {CRYPTO_HEADER} names another scheme than {SCHEME}, which is all that is taken")
    return hotkey


def authenticate(
    headers: Mapping[str, str],
    body: bytes | bytearray,
    method: str,
    path: str,
    own_hotkey: str,
    now_ns: int,
    verify: "Verify | None" = None,
) -> Caller:
    """Return the caller who signed this very request for us.

    The one place that calls the SDK's `verify`. Its next release has to be told the signer's scheme, which 11.3 does
    not know: it is ours, never the header's word. Replay is judged afterwards, by `nonces.SeenNonces`, as for the
    older wire, and the time here, so that a proven caller is known by name when the clocks differ.

    Args:
        headers: with lower-case names.
        body: as received, before any parsing.
        method: of the request.
        path: the percent-encoded target, with its query.
        own_hotkey: the receiver that must have been signed.
        now_ns: ns since 1970.
        verify: the SDK's, or one that is called like it; None: that of the installed release.

    Raises:
        BadRequest: the nonce or the timeout is not a number.
        StaleNonce: the nonce of a proven caller is not fresh.
        Unauthorised: anything else that `verify` refuses.
    """
    from bittensor import http_auth

    verify = verify or http_auth.verify
    claimed_hotkey(headers)
    nonce = headers.get(NONCE_HEADER.lower(), "")
    if nonce and not (nonce.isascii() and nonce.isdecimal() and len(nonce) <= 20):
        raise BadRequest(f"the header {NONCE_HEADER} is not a whole number")
    timeout = read_timeout(headers.get("timeout"))
    try:
        found = verify(
            headers,
            cast("bytes", body),  # it is only hashed
            method=method,
            path=path,
            self_hotkey_ss58=own_hotkey,
            max_age=MAX_AGE,
            allowed_skew=ALLOWED_SKEW,
            require_receiver=True,
            nonce_store=_NoStore(),
            now_ns=int(nonce) if nonce else now_ns,
            **_scheme(verify),
        )
    except http_auth.AuthError as error:
        raise Unauthorised(str(error)) from None
    caller = Caller(hotkey=found.hotkey_ss58, nonce=found.nonce_ns, uuid="", timeout=timeout, wire="btauth")
    check_fresh(caller, WINDOW, now_ns)
    return caller


@lru_cache(maxsize=4)
def _scheme(verify: "Verify") -> dict[str, Any]:
    """Return the argument that names the signer's scheme, where `verify` has one."""
    name = "expected_crypto_type"
    return {name: SR25519} if name in inspect.signature(verify).parameters else {}


class _NoStore:
    """Leaves replay to `SeenNonces`, which is bounded for each key."""

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        return True
