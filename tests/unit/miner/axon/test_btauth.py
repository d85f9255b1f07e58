"""Signed requests under both forms of the SDK's `verify`: the installed one, and the one that is told the scheme."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bittensor import http_auth
from bittensor.sp_core import Keypair

from miner.axon import BTAUTH_PATH, btauth
from miner.axon.caller import SR25519, StaleNonce
from miner.chain.standalone import own_wallet
from miner.errors import Unauthorised
from tests.unit.miner.axon.wire_in_process import Port

BODY = b'{"image": "aGk="}'
SECOND = 10**9
POST_QUANTUM = "0x" + "5e" * 5300  # 10.6 kB of hex


def next_verify(headers: Mapping[str, str], body: bytes, *, expected_crypto_type: int, **how: Any) -> http_auth.Caller:
    """The next release's: it wants to be told the signer's scheme, and holds the header against it."""
    caller = http_auth.verify(headers, body, **how)
    if caller.crypto_type != expected_crypto_type:
        raise http_auth.BadSignature("not the trusted sender's scheme")
    return caller


FORMS = pytest.mark.parametrize("verify", [None, next_verify], ids=["installed", "next"])


class Signed:
    """Requests of one validator to one miner."""

    def __init__(self, state: Path) -> None:
        self.miner, self.validator = (own_wallet(state, role) for role in ("miner", "validator"))
        self.own = self.miner.hotkey.ss58_address

    def headers(self, signer: Any = None, nonce: int | None = None, **more: str) -> dict[str, str]:
        signer = signer or self.validator
        made = http_auth.sign(
            signer, method="POST", path=BTAUTH_PATH, body=BODY, receiver_ss58=self.own, nonce_ns=nonce
        )
        return {name.lower(): value for name, value in made.items()} | more

    def judge(self, headers: Mapping[str, str], verify: Any, body: bytes = BODY, now: int | None = None) -> str:
        now = time.time_ns() if now is None else now
        return btauth.authenticate(headers, body, "POST", BTAUTH_PATH, self.own, now, verify).hotkey


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


@FORMS
def test_a_signed_request_is_its_signers(signed: Signed, verify: Any) -> None:
    assert signed.judge(signed.headers(), verify) == signed.validator.hotkey.ss58_address


@FORMS
def test_another_body_or_receiver_is_not(signed: Signed, verify: Any) -> None:
    with pytest.raises(Unauthorised):
        signed.judge(signed.headers(), verify, BODY + b" ")
    with pytest.raises(Unauthorised):
        signed.judge(signed.headers() | {"x-bittensor-receiver": signed.validator.hotkey.ss58_address}, verify)


@FORMS
@pytest.mark.parametrize(("off", "fresh"), [(-9, True), (-11, False), (1, True), (3, False)])
def test_the_time_is_judged_once_the_caller_is_proven(signed: Signed, verify: Any, off: int, fresh: bool) -> None:
    now = 1_800_000_000 * SECOND
    headers = signed.headers(nonce=now + off * SECOND)
    if fresh:
        signed.judge(headers, verify, now=now)
        return
    with pytest.raises(StaleNonce) as caught:
        signed.judge(headers, verify, now=now)
    assert caught.value.caller.hotkey == signed.validator.hotkey.ss58_address
    with pytest.raises(Unauthorised) as forged:
        signed.judge(headers | {"x-bittensor-signature": "0x" + "00" * 64}, verify, now=now)
    assert not isinstance(forged.value, StaleNonce)


@FORMS
def test_a_hotkey_of_another_scheme_is_refused_whatever_its_header_says(signed: Signed, verify: Any) -> None:
    other = Keypair.create_from_mnemonic(Keypair.generate_mnemonic(), crypto_type=0)
    headers = signed.headers(other)
    assert headers["x-bittensor-crypto"] == "ed25519"
    with pytest.raises(Unauthorised, match="sr25519"):
        signed.judge(headers, verify)
    for claim in ("sr25519", str(SR25519)):
        with pytest.raises(Unauthorised):
            signed.judge(headers | {"x-bittensor-crypto": claim}, verify)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    port = Port(tmp_path)
    yield port
    port.close()


def test_a_post_quantum_proof_is_refused_by_name_before_its_body(port: Port) -> None:
    request = port.request("btauth", BODY, **{"X-Bittensor-Crypto": "ml-dsa-65", "X-Bittensor-Signature": POST_QUANTUM})
    ((status, answer),) = port.feed([request[: -len(BODY)]])
    assert status == 401
    assert "sr25519" in answer["message"]
    assert POST_QUANTUM[:20] not in answer["message"]


def test_a_proof_of_that_size_without_a_scheme_is_no_signature(port: Port) -> None:
    ((status, _),) = port.feed([port.request("btauth", BODY, **{"X-Bittensor-Signature": POST_QUANTUM})])
    assert status == 401
