"""Whatever bytes come to the validators' port: answers of the table, nothing left over, and nothing to complain of."""

import base64
import contextlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.axon import btauth, dendrite
from miner.axon.body import picture_of
from miner.errors import BadRequest, Unauthorised, UnreadableImage
from tests.mutations import Damage, damaged, damages
from tests.unit.miner.axon.wire_in_process import MAX_BODY, Port

pytestmark = pytest.mark.fuzz

BODY = json.dumps({"image": base64.b64encode(b"a picture").decode(), "testnet_label": -1, "prediction": -1.0}).encode()

wires = st.sampled_from(["dendrite", "btauth"])
texts = st.text(st.characters(exclude_characters="\r\n"), max_size=40)
numbers = st.integers(-(2**70), 2**70).map(str) | st.floats().map(str)
names = st.sampled_from(
    [f"bt_header_dendrite_{name}" for name in ("nonce", "uuid", "hotkey", "signature", "version", "ip")]
    + [f"x-bittensor-{name}" for name in ("version", "nonce", "hotkey", "receiver", "signature", "crypto")]
    + ["timeout", "content-length", "content-encoding", "transfer-encoding", "computed_body_hash", "connection"]
    + ["expect", "upgrade", "host", "name", "content-type"]
)
long = st.builds(str.__mul__, st.sampled_from(["0", "9", "-", "a", " "]), st.integers(4000, 6000))
values = (
    texts | numbers | long | st.sampled_from(["", "chunked", "gzip", "close", "100-continue", "h2c", "0x", "-1", "inf"])
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(["image", "testnet_label", "prediction", "dendrite", "name"])


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    port = Port(tmp_path_factory.mktemp("port"))
    yield port
    port.close()


def cut(whole: bytes, places: list[float]) -> list[bytes]:
    """Cut bytes into pieces, as a network may."""
    ends = sorted(int(place * len(whole)) for place in places)
    return [whole[start:end] for start, end in zip([0, *ends], [*ends, len(whole)], strict=True)]


cuts = st.lists(st.floats(0, 1), max_size=3)


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
def test_what_is_fuzzed_would_be_answered(port: Port, wire: str) -> None:
    assert [status for status, _ in port.feed([port.request(wire, BODY)])] == [200]
    assert [status for status, _ in port.feed([port.request(wire, BODY), port.request(wire, BODY)])] == [200, 200]


@given(wires, cuts)
def test_a_request_in_pieces_is_answered(port: Port, wire: str, places: list[float]) -> None:
    assert [status for status, _ in port.feed(cut(port.request(wire, BODY), places))] == [200]


@given(wires, damages, cuts)
def test_a_damaged_request(port: Port, wire: str, changes: list[Damage], places: list[float]) -> None:
    port.feed(cut(damaged(port.request(wire, BODY), changes), places))


@given(wires, st.dictionaries(names, st.none() | values, min_size=1, max_size=4))
def test_headers_that_mean_something_else(port: Port, wire: str, changes: dict[str, str | None]) -> None:
    port.feed([port.request(wire, BODY, **changes)])


@given(wires, st.binary(max_size=300) | jsons.map(lambda value: json.dumps(value).encode()))
def test_a_body_that_is_something_else(port: Port, wire: str, body: bytes) -> None:
    ((status, _),) = port.feed([port.request(wire, body)])
    assert status in (200, 400, 422)


@given(wires, st.dictionaries(fields, jsons, max_size=4))
def test_fields_that_are_something_else(port: Port, wire: str, body: dict[str, object]) -> None:
    ((status, _),) = port.feed([port.request(wire, json.dumps({"image": "aGk="} | body).encode())])
    assert status in (200, 400, 422)


@given(wires, st.lists(st.integers(0, 3000), max_size=20), st.binary(max_size=30))
def test_a_body_in_chunks(port: Port, wire: str, sizes: list[int], end: bytes) -> None:
    framing = {"content-length": None, "transfer-encoding": "chunked"}
    chunks = [b"%x\r\n%b\r\n" % (size, b" " * size) for size in sizes if size]
    given_up = sum(sizes) > MAX_BODY
    answers = port.feed([port.request(wire, b"", **framing), *chunks, end or b"0\r\n\r\n"])
    assert all(status in (400, 401, 413) for status, _ in answers)
    assert not given_up or 413 in [status for status, _ in answers]


@given(st.binary(max_size=400), cuts)
def test_noise(port: Port, noise: bytes, places: list[float]) -> None:
    port.feed(cut(noise, places))


@given(st.integers(2, 300), wires, st.sampled_from([b"", BODY]))
def test_many_requests_at_once_on_one_connection(port: Port, count: int, wire: str, body: bytes) -> None:
    one = b"GET / HTTP/1.1\r\n\r\n" if not body else port.request(wire, body)
    assert len(port.feed([one * count])) <= 2


@given(st.dictionaries(names, values), st.integers(0, 2**70))
def test_headers_alone(headers: dict[str, str], now: int) -> None:
    for authenticate in (
        lambda: dendrite.authenticate(headers, "5F", now),
        lambda: btauth.authenticate(headers, b"", "POST", "/predict", "5F", now),
        lambda: btauth.claimed_hotkey(headers),
    ):
        with contextlib.suppress(BadRequest, Unauthorised):
            authenticate()


@given(damages)
def test_a_body_alone(changes: list[Damage]) -> None:
    with contextlib.suppress(BadRequest, UnreadableImage):
        assert isinstance(picture_of(damaged(BODY, changes)), bytes)
