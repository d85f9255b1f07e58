"""The protocol's own limits, byte by byte and second by second."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from uvicorn.server import ServerState

from miner.errors import MESSAGES, DropReason
from miner.http.connections import Connections, Guard
from miner.http.protocol import HEADERS_TOO_LARGE, LINGER_BYTES, MAX_HEADERS, GuardedProtocol
from tests.unit.miner.axon.wire_in_process import Port, Wire, answers

PATIENCE = 0.05  # seconds for headers


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    port = Port(tmp_path_factory.mktemp("port"))
    yield port
    port.close()


class Line:
    """A connection to the port, with a wire one can look at."""

    def __init__(self, port: Port, guard: Guard | None = None, connections: Connections | None = None) -> None:
        self.port = port
        self.dropped: list[DropReason] = []
        if connections is None:
            connections = Connections(guard or Guard(header_seconds=PATIENCE), self.dropped.append)
        self.connections = connections
        self.wire = Wire()
        self.state = ServerState()
        self.protocol = GuardedProtocol(port.config, self.state, {}, port.loop, connections=connections)
        self.play(self._connect())

    async def _connect(self) -> None:
        self.protocol.connection_made(self.wire)

    def play(self, scene: Coroutine[Any, Any, None]) -> None:
        self.port.loop.run_until_complete(scene)

    def send(self, data: bytes, *, and_wait: float = 0.0) -> list[tuple[int, str]]:
        """Send bytes, wait, and return what was answered so far: status and message."""

        async def sending() -> None:
            self.protocol.data_received(data)
            await asyncio.sleep(and_wait)
            if self.state.tasks and not self.protocol.cycle.more_body:
                await asyncio.wait(self.state.tasks)

        self.play(sending())
        return [(status, answer.get("message", "")) for status, answer in answers(bytes(self.wire.sent))]

    def hang_up(self) -> None:
        async def gone() -> None:
            self.protocol.connection_lost(None)
            if self.state.tasks:
                await asyncio.wait(self.state.tasks)

        self.play(gone())


def test_headers_that_do_not_end_in_time_are_given_up_with_a_word(port: Port) -> None:
    line = Line(port)
    ((status, said),) = line.send(b"POST / HTTP/1.1\r\nhost: m", and_wait=3 * PATIENCE)
    assert (status, "the headers" in said) == (408, True)
    assert (line.wire.closed, line.dropped) == (True, ["slow"])


def test_a_connection_that_says_nothing_is_ended_without_a_word(port: Port) -> None:
    line = Line(port)
    assert line.send(b"", and_wait=3 * PATIENCE) == []
    assert (line.wire.closed, line.dropped) == (True, ["slow"])


def test_too_many_and_too_long_headers_are_refused(port: Port) -> None:
    for headers in (b"a: b\r\n" * (MAX_HEADERS + 2), b"a: " + b"b" * 100_000, b"a" * 100_000):
        line = Line(port)
        assert line.send(b"POST / HTTP/1.1\r\n" + headers) == [(400, HEADERS_TOO_LARGE)]
        assert line.wire.ended
        line.hang_up()
    ((status, said),) = Line(port).send(b"GET /" + b"x" * 20_000)
    assert (status, "the target" in said) == (400, True)


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
@pytest.mark.parametrize("length", ["0" * 5000 + "17", "0" * 30 + "17"])
def test_a_length_that_python_makes_no_number_of_is_none(port: Port, wire: str, length: str) -> None:
    line = Line(port, Guard())
    request = port.request(wire, b'{"image": "aGk="}', **{"content-length": length})
    ((status, said),) = line.send(request)
    assert (status, "content-length" in said) == (400, True)
    assert port.complaints.said == []
    line.hang_up()


@pytest.mark.parametrize("frame", [b"0\r\nname: ", b"0\r\n", b"1;"], ids=["trailer", "trailers", "extension"])
def test_what_frames_a_body_is_no_longer_than_headers_may_be(port: Port, frame: bytes) -> None:
    """The parser keeps a trailer until it ends, and no limit of the body's is for it."""
    changes = {"content-length": None, "transfer-encoding": "chunked"}
    line = Line(port, Guard())
    assert line.send(port.request("btauth", b"", **changes) + b"1\r\n{\r\n" * 5000 + frame) == []
    more = b"name: x\r\n" if frame == b"0\r\n" else b"x" * 9
    line.send(more * (MAX_HEADERS // 2))
    assert line.send(b"1" * 20_000) == [(400, HEADERS_TOO_LARGE)]
    line.hang_up()


def test_requests_are_answered_one_at_a_time(port: Port) -> None:
    """One read can hold thousands of small requests, each of which would take kilobytes."""
    line = Line(port)
    status, said = line.send(b"GET / HTTP/1.1\r\n\r\n" * 10_000)[0]
    assert (status, "one request" in said) == (400, True)
    assert line.wire.ended
    line.hang_up()


def test_what_is_said_of_an_earlier_request_after_a_refusal_is_thrown_away(port: Port) -> None:
    """uvloop raises where something is written after the end, and that would be a traceback for each such caller."""
    line = Line(port, Guard())
    request = port.request("dendrite", b'{"image": "aGk="}')
    ((status, said),) = line.send(request + b"GET / HTTP/1.1\r\n\r\n")
    assert (status, "one request" in said) == (400, True)
    assert port.complaints.said == []
    line.hang_up()


def test_a_body_that_nobody_waits_for_must_come_in_time_too(port: Port) -> None:
    line = Line(port)
    ((status, _),) = line.send(b"POST /ImageSynapse HTTP/1.1\r\ncontent-length: 1000\r\n\r\n", and_wait=PATIENCE / 5)
    assert (status, line.wire.closed) == (401, False)
    line.send(b"a", and_wait=3 * PATIENCE)
    assert (line.wire.closed, line.dropped) == (True, ["slow"])


def test_after_a_refusal_what_still_comes_is_thrown_away_for_a_moment(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket closed on unread bytes resets the connection, and the caller may never read why."""
    monkeypatch.setattr("miner.http.protocol.LINGER_SECONDS", PATIENCE)
    line = Line(port)
    assert line.send(b"POST /ImageSynapse HTTP/1.1\r\ncontent-length: 30000\r\n\r\n")[0][0] == 401
    assert line.send(b"a" * 1000) == [(401, "the header bt_header_dendrite_nonce is missing")]
    assert (line.wire.ended, line.wire.closed) == (True, False)
    line.send(b"", and_wait=3 * PATIENCE)
    assert line.wire.closed
    line.hang_up()


def test_nobody_sends_for_ever_after_a_refusal(port: Port) -> None:
    line = Line(port)
    line.send(b"GARBAGE\r\n\r\n")
    assert (line.wire.ended, line.wire.closed) == (True, False)
    for _ in range(LINGER_BYTES // 2**20 + 1):
        line.send(b"a" * 2**20)
    assert line.wire.closed
    line.hang_up()


def test_between_two_requests_there_is_time(port: Port) -> None:
    line = Line(port)
    assert line.send(b"GET / HTTP/1.1\r\n\r\n", and_wait=3 * PATIENCE)[0][0] == 404
    assert not line.wire.closed
    assert line.protocol.is_idle
    assert len(line.send(b"GET / HTTP/1.1\r\n\r\n")) == 2
    line.hang_up()


def test_a_caller_who_leaves_its_answer_lying_is_hung_up_on(port: Port) -> None:
    line = Line(port, Guard(write_seconds=10.0))
    line.wire.unsent = 500
    for now, closed in ((100.0, False), (109.0, False), (110.5, True)):
        line.connections.look(now)
        assert line.wire.closed == closed
    assert line.dropped == ["slow"]


def test_a_caller_who_takes_its_answers_stays(port: Port) -> None:
    line = Line(port, Guard(write_seconds=10.0))
    for now, unsent in ((100.0, 500), (105.0, 0), (111.0, 500), (120.0, 500)):
        line.wire.unsent = unsent
        line.connections.look(now)
    assert not line.wire.closed
    line.hang_up()


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
def test_only_a_caller_who_may_ask_is_proven(port: Port, wire: str) -> None:
    body = b'{"image": "aGk="}'
    line = Line(port, Guard())
    assert line.send(port.request(wire, body))[0][0] == 200
    assert line.protocol.is_proven
    line.hang_up()
    stranger = Line(port, Guard())
    assert stranger.send(b"POST /ImageSynapse HTTP/1.1\r\ncontent-length: 0\r\n\r\n")[0][0] == 401
    assert not stranger.protocol.is_proven
    stranger.hang_up()


def test_one_too_many_is_told_so(port: Port) -> None:
    """It may have sent its request already: then it is listened to for a moment, as are a few others."""
    connections = Connections(Guard(connections=1, outside=1))
    first = Line(port, connections=connections)
    first.protocol.is_proven = True
    first.send(b"POST /ImageSynapse HTTP/1.1\r\n")  # not idle any more
    second, third = (Line(port, connections=connections) for _ in range(2))
    for line, closed in ((second, False), (third, True)):
        assert line.send(b"GET / HTTP/1.1\r\n\r\n") == [(503, "too many connections")]
        assert (line.wire.ended, line.wire.closed) == (True, closed)
        line.hang_up()
    fourth = Line(port, connections=connections)
    assert not fourth.wire.closed
    fourth.hang_up()
    first.hang_up()
    assert len(connections) == 0


def test_at_the_end_of_the_server_nobody_who_owes_bytes_is_waited_for(port: Port) -> None:
    half = b"POST /ImageSynapse HTTP/1.1\r\ncontent-length: 30000\r\n\r\n"
    refused, lingering, idle = Line(port, Guard()), Line(port, Guard()), Line(port, Guard())
    refused.send(half)
    lingering.send(half)
    lingering.send(b"GARBAGE\r\n\r\n" * 3000)
    for line in (refused, lingering, idle):
        line.protocol.shutdown()
        assert line.wire.closed
        line.hang_up()


def test_a_body_on_its_way_at_the_end_of_the_server_is_told_so(port: Port) -> None:
    line = Line(port, Guard())
    headers = port.request("btauth", b"{" * 1000)[:-1000]
    assert line.send(headers) == []  # nothing is proven before the body is there
    line.protocol.shutdown()
    assert line.send(b"") == [(503, MESSAGES["draining"])]
    assert line.wire.closed
    line.hang_up()
