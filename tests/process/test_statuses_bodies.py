"""What is read: the rows of the status table about paths and bodies, on both wires."""

import pytest

from tests.process.daemon import Daemon
from tests.process.inspection import message_of, probability_of
from tests.process.wire import CHUNK, DOORS, Door, RawRequest, chunk

LIMIT = 100_000  # bytes, of the strict miner

both_wires = pytest.mark.parametrize("door", [Door(), Door("btauth", "/predict")], ids=["dendrite", "btauth"])
all_doors = pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.wire}{door.path}")


@pytest.mark.parametrize("path", ["/", "/VideoSynapse", "/imagesynapse", "/ImageSynapse/", "/ImageSynapse/x", "/docs"])
def test_an_unknown_path_is_not_found(miner: Daemon, street: bytes, path: str) -> None:
    assert message_of(miner.ask(street, Door("dendrite", path)), 404) == "not found"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/ImageSynapse", "/ExtendedImageSynapse", "/predict"])
def test_another_method_is_not_allowed(miner: Daemon, path: str, method: str) -> None:
    answer = miner.http.request(method, path)
    assert message_of(answer, 405) == "method not allowed"
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("host", ["[", "somewhere/else", "a b", ""])
@both_wires
def test_a_strange_host_header_changes_nothing(miner: Daemon, door: Door, street: bytes, host: str) -> None:
    with miner.raw(miner.validator.sign(street, door)) as raw:
        raw.send_head(length=len(raw.signed.body), host=host).socket.sendall(raw.signed.body)
        answer = raw.answer()
    probability_of(answer)
    assert answer.json().get("name") in (None, "ImageSynapse")


def test_a_target_that_is_not_ascii_is_an_error_of_the_caller(miner: Daemon, street: bytes) -> None:
    with miner.raw(miner.validator.sign(street, Door("btauth", "/predict"))) as raw:
        raw.send_head(length=len(raw.signed.body), path="/predict?\xff")
        raw.socket.sendall(raw.signed.body)
        assert raw.answer().status_code in (400, 401)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"roadwork",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"image"',
        b"{}",
        b'{"image": null}',
        b'{"image": 5}',
        b'{"image": ["aGk="]}',
        b'{"image": "aGk=", "testnet_label": "many"}',
        b'{"image": "aGk=", "prediction": {}}',
        b'{"image": "aGk="',
        b'{"image": "\xff"}',
        b"[" * 50_000,
    ],
    ids=lambda body: repr(body[:30]),
)
@both_wires
def test_a_body_that_is_no_synapse_is_a_bad_request(miner: Daemon, door: Door, body: bytes) -> None:
    message_of(miner.ask(b"", door, body=body), 400)


def test_a_synapse_with_all_the_fields_of_the_sdk_is_read(miner: Daemon, street: bytes) -> None:
    body = miner.validator.sign(street, Door()).body
    more = b'{"total_size": 5, "dendrite": {"ip": null}, "axon": {}, "computed_body_hash": "", "header_size": 0, '
    probability_of(miner.ask(b"", body=more + body[1:]))


@all_doors
def test_a_body_that_says_it_is_too_large_is_refused_unread(strict: Daemon, door: Door) -> None:
    with strict.raw(strict.validator.sign(b"", door)) as raw:
        answer = raw.send_head(length=LIMIT + 1).answer()
    assert f"at most {LIMIT}" in message_of(answer, 413)
    assert answer.headers["connection"] == "close"


@all_doors
def test_a_body_that_grows_too_large_is_refused(strict: Daemon, door: Door) -> None:
    with strict.raw(strict.validator.sign(b"", door)) as raw:
        raw.send_head(and_then=2 * chunk(b" " * CHUNK))
        assert f"{LIMIT} bytes" in message_of(raw.answer(), 413)


@both_wires
def test_a_large_body_that_was_sent_all_the_same_is_refused_readably(strict: Daemon, door: Door) -> None:
    for megabytes in (1, 20):
        message_of(strict.ask(b"\0" * megabytes * 2**20, door), 413)


@both_wires
def test_a_body_in_chunks_is_read(miner: Daemon, door: Door) -> None:
    with miner.raw(miner.validator.sign(b"not a picture", door)) as raw:
        body = raw.signed.body
        raw.send_head(and_then=b"".join(chunk(body[start : start + 50]) for start in range(0, len(body), 50)))
        raw.send_chunk(b"")
        message_of(raw.answer(), 422)


@pytest.mark.parametrize("sent", [0, 50], ids=["nothing", "half"])
@all_doors
def test_a_body_that_stalls_is_given_up(strict: Daemon, door: Door, sent: int) -> None:
    with strict.raw(strict.validator.sign(b"\0" * 100, door)) as raw:
        raw.send_head(length=len(raw.signed.body))
        raw.socket.sendall(raw.signed.body[:sent])
        assert "too slowly" in message_of(raw.answer(), 408)


@both_wires
def test_a_body_that_drips_is_given_up_in_time(strict: Daemon, door: Door) -> None:
    with strict.raw(strict.validator.sign(b"\0" * 10_000, door, timeout="2.0")) as raw:
        raw.send_head(length=len(raw.signed.body))
        drip(raw)
        assert "too slowly" in message_of(raw.answer(), 408)


def drip(raw: RawRequest) -> None:
    """Send a byte at a time until something comes back."""
    for byte in raw.signed.body:
        raw.socket.sendall(bytes([byte]))
        if raw.has_answer(0.05):
            return
    raise AssertionError("the miner took it all")
