"""What an open port has to stand: floods, drips and bombs, while a validator asks once a second and is answered."""

import contextlib
import gzip
import io
import json
import selectors
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from PIL import Image

from miner.axon.client import another
from miner.chain import standalone
from tests.process.conftest import Settings, StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import inspect_answer, message_of, probability_of
from tests.process.wire import CHUNK, DOORS, Door, RawRequest, Signed

GROWTH = 20  # MiB
HEADER_SECONDS = 4.0
DRIPS = 200
DEAF = 5

both_wires = pytest.mark.parametrize("door", [Door(), Door("btauth", "/predict")], ids=["dendrite", "btauth"])


@pytest.fixture(scope="module")
def harassed(keep_daemon: StartDaemon, street: bytes) -> Daemon:
    """A miner that many connections from one address don't bother, after its first requests."""
    daemon = keep_daemon(HEADER_SECONDS=HEADER_SECONDS, MAX_CONNECTIONS_PER_ADDRESS=400).ready()
    for _ in range(40):
        probability_of(daemon.ask(street))
    return daemon


@contextmanager
def asked_meanwhile(daemon: Daemon, picture: bytes) -> Iterator[None]:
    """Have a validator ask once a second, on a connection for each; every request must be answered."""
    over, statuses = threading.Event(), list[int]()
    daemon.settled(picture).forget_peak()
    probability_of(daemon.ask(picture))
    before = daemon.peak()  # what the validator's own pictures take is in it
    daemon.forget_peak()

    def ask() -> None:
        while True:
            with httpx.Client(base_url=daemon.address, timeout=PATIENCE, trust_env=False) as http:
                signed = daemon.validator.sign(picture, Door())
                statuses.append(http.post(signed.path, content=signed.body, headers=signed.headers).status_code)
            if over.wait(1.0):
                return

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            over.set()
            asking.result()
    assert set(statuses) == {200}
    eventually(lambda: daemon.load() == (0, 0))
    assert daemon.peak() - before < GROWTH


def send(port: int, data: bytes) -> int:
    """Send bytes on a connection of their own; return the status of what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    json.loads(body)
    return int(head.split()[1])


def test_a_flood_of_two_thousand_does_not_touch_a_validator(harassed: Daemon, street: bytes) -> None:
    stranger = harassed.signer(standalone.own_wallet(harassed.state, "stranger"))
    replayed = harassed.validator.sign(street, Door())
    probability_of(harassed.post(replayed))
    garbage = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" * 20,
        b"GARBAGE\r\n\r\n",
        b"POST /ImageSynapse HTTP/9.9\r\n\r\n",
    ]
    counts: Counter[int] = Counter()

    def flood(number: int) -> list[int]:
        found = []
        with httpx.Client(base_url=harassed.address, timeout=PATIENCE, trust_env=False,
                          event_hooks={"response": [inspect_answer]}) as http:  # fmt: skip
            for round_ in range(125):
                for signed in (
                    Signed("/ImageSynapse", {}, street),
                    stranger.sign(street, Door(("dendrite", "btauth")[round_ % 2], "/ImageSynapse")),
                    replayed,
                ):
                    answer = http.post(signed.path, content=signed.body, headers=signed.headers)
                    found.append(answer.status_code)
                found.append(send(harassed.port, garbage[round_ % 3]))
        return found

    with asked_meanwhile(harassed, street), ThreadPoolExecutor(4) as pool:
        for found in pool.map(flood, range(4)):
            counts.update(found)
    assert counts == {401: 1000, 403: 500, 400: 500}
    shown = harassed.page("/status").json()["recent"]
    assert sum(entry["uid"] is None for entry in shown) <= 5  # the page still shows the validator's
    assert harassed.log.count("\n") < 40


def test_two_hundred_drips_are_given_up_and_hurt_nobody(harassed: Daemon, street: bytes) -> None:
    """Half of them a byte of headers a second, half a byte of a body that claims to be a validator's."""
    claim = harassed.validator.sign(street, Door("btauth", "/predict"), timeout="5.0")
    endings: Counter[str] = Counter()
    with asked_meanwhile(harassed, street), ExitStack() as stack, selectors.DefaultSelector() as answers:
        for number in range(DRIPS):
            raw = stack.enter_context(harassed.raw(claim))
            if number % 2:
                raw.send_head(length=len(claim.body))
            else:
                raw.socket.sendall(b"POST /ImageSynapse HTTP/1.1\r\nx: ")
            answers.register(raw.socket, selectors.EVENT_READ, raw)
        until = time.monotonic() + PATIENCE
        while answers.get_map():
            assert time.monotonic() < until
            for key, _ in answers.select(1.0):
                answers.unregister(key.fileobj)
                response = key.data.answer()
                endings[f"{response.status_code} {response.json()['message']}"] += 1
            time.sleep(0.9)
            for key in answers.get_map().values():
                with contextlib.suppress(OSError):
                    key.data.socket.send(b"a")
    assert sum(endings[one] for one in endings if one.startswith("408 the headers")) == DRIPS / 2
    assert sum(endings[one] for one in endings if one.startswith("408 the body")) == DRIPS / 2


@both_wires
def test_endless_chunks_are_cut_off(harassed: Daemon, street: bytes, door: Door) -> None:
    with asked_meanwhile(harassed, street), harassed.raw(harassed.validator.sign(b"", door)) as raw:
        raw.send_head()
        with contextlib.suppress(ConnectionError):
            while not raw.has_answer():
                raw.send_chunk(b" " * CHUNK)
        message_of(raw.answer(), 413)


@both_wires
def test_two_hundred_megabytes_are_refused_unread(harassed: Daemon, street: bytes, door: Door) -> None:
    with asked_meanwhile(harassed, street), harassed.raw(harassed.validator.sign(b"", door)) as raw:
        raw.send_head(length=200 * 2**20)
        for _ in range(3200):
            if not raw.takes_more():
                break
        message_of(raw.answer(), 413)


@both_wires
def test_a_caller_who_sends_it_all_before_it_listens_reads_the_refusal(harassed: Daemon, door: Door) -> None:
    length = 17 * 2**20
    for _ in range(5):
        with harassed.raw(harassed.validator.sign(b"", door)) as raw:
            raw.send_head(length=length)
            raw.socket.sendall(b" " * length)
            message_of(raw.answer(), 413)


@both_wires
def test_a_compressed_body_is_refused_unread(harassed: Daemon, street: bytes, door: Door) -> None:
    bomb = gzip.compress(b"\0" * 50 * 2**20)
    with asked_meanwhile(harassed, street):
        for name in ("content-encoding", "transfer-encoding"):
            signed = harassed.validator.sign(b"", door, body=bomb)
            coded = Signed(
                signed.path, {**signed.headers, name: "gzip, chunked" if "transfer" in name else "gzip"}, bomb
            )
            with harassed.raw(coded) as raw:
                raw.send_head(length=None if "transfer" in name else len(bomb))
                assert raw.answer().status_code in (400, 413)


def test_callers_who_never_read_their_answers_are_hung_up_on(start_daemon: StartDaemon, street: bytes) -> None:
    """One answer fits the kernel's buffers, so each asks on until nothing is answered any more. What it left lying
    is not kept by the kernel either: the connection is reset.

    Their packets are as small as a network's, since for loopback's the kernel would buffer megabytes.
    """
    daemon = start_daemon(HEADER_SECONDS=2, LOG_LEVEL="DEBUG").ready()
    for _ in range(20):
        probability_of(daemon.ask(street))
    request = b"POST /ImageSynapse HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
    with asked_meanwhile(daemon, street), ExitStack() as stack:
        deaf = []
        for _ in range(DEAF):
            deaf.append(stack.enter_context(socket.socket()))
            deaf[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel makes it its least
            deaf[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            deaf[-1].connect(("127.0.0.1", daemon.port))
            deaf[-1].sendall(request)
        asked = DEAF

        def answered() -> bool:
            return daemon.log.count(" unauthorised in ") == asked

        with contextlib.suppress(ConnectionError):
            while eventually(answered):  # else they would ask twice at once, which is refused
                for caller in deaf:
                    caller.sendall(request)
                asked += DEAF
        assert asked > 20 * DEAF
        eventually(lambda: daemon.metric("connections_dropped_total", reason="slow") == DEAF)
    assert daemon.metric("connections_dropped_total") == DEAF
    eventually(lambda: daemon.metric("connections") == 1)  # of this test's own client


def black_png(side: int) -> bytes:
    """Return a PNG of black pixels, a bit each, that is as large as it says."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(9), b"\0" * (1 + (side + 7) // 8)
    lines = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def large_webp() -> bytes:
    """Return a WebP of one pixel that says it has 16,383 × 16,383."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "WEBP", lossless=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = struct.pack("<I", 16382 | 16382 << 14 | data[at + 3] >> 4 << 28)
    return bytes(data)


def progressive_jpeg(side: int, scans: int) -> bytes:
    """Return a JPEG that has so many scans, of some bytes each, over all its pixels."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


def test_pictures_that_take_minutes_or_a_lot_of_memory_are_refused(harassed: Daemon, street: bytes) -> None:
    """The first would take over a minute, the second 70 MB."""
    slow, large = progressive_jpeg(5000, 5000), street[:2] + b"\xff\xe0\0\x02" * 500_000 + street[2:]
    assert len(slow) < 400_000
    with asked_meanwhile(harassed, street):
        assert "scans; at most" in message_of(harassed.ask(slow), 422)
        assert "too many parts" in message_of(harassed.ask(large), 422)


def test_a_body_of_millions_of_parts_is_refused_unparsed(harassed: Daemon, street: bytes) -> None:
    body = b'{"image": "aGk=", "x": [' + b"[[[[]]]]," * 300_000 + b"0]}"
    with asked_meanwhile(harassed, street):
        assert "over 1000 parts" in message_of(harassed.ask(b"", body=body), 400)


@both_wires
def test_pixel_bombs_are_refused_undecoded(harassed: Daemon, street: bytes, door: Door) -> None:
    png, webp = black_png(30_000), large_webp()
    assert len(png) < 200_000
    with asked_meanwhile(harassed, street):
        for bomb in (png, webp):
            assert "too large" in message_of(harassed.ask(bomb, door), 422)


def test_strangers_who_hold_all_connections_keep_no_validator_out(start_daemon: StartDaemon, street: bytes) -> None:
    daemon = start_daemon(MAX_CONNECTIONS=8, MAX_CONNECTIONS_PER_ADDRESS=8, HEADER_SECONDS=3600).ready()
    silent = Signed("/", {}, b"")
    with ExitStack() as stack:
        strangers = [stack.enter_context(daemon.raw(silent)) for _ in range(30)]
        eventually(lambda: daemon.metric("connections") == 8)
        for _ in range(3):
            probability_of(daemon.ask(street))  # on one connection, which is proven from then on
        strangers += [stack.enter_context(daemon.raw(silent)) for _ in range(30)]
        eventually(lambda: daemon.metric("connections_dropped_total", reason="crowded") >= 52)
        probability_of(daemon.ask(street))
        assert daemon.metric("connections") == 8
        assert daemon.metric("connections_dropped_total", reason="crowded") == 53


def test_no_room_is_said_in_json(start_daemon: StartDaemon, moods: Settings, white: bytes, street: bytes) -> None:
    """All connections are validators' whose pictures are worked on or wait."""
    limits = {"MAX_CONNECTIONS": 8, "MAX_CONNECTIONS_PER_ADDRESS": 8, "DEADLINE_CAP_SECONDS": PATIENCE}
    daemon = start_daemon(**moods, **limits).ready()
    with daemon.held():
        with ExitStack() as stack:
            for number in range(8):
                signed = daemon.validator.sign(another(white, number), Door(), timeout=str(PATIENCE))
                raw = stack.enter_context(daemon.raw(signed))
                raw.send_all()
                eventually(lambda number=number: sum(daemon.load()) == number + 1)
            with RawRequest("127.0.0.1", daemon.port, Signed("/", {}, b"")) as one_more:
                assert message_of(one_more.answer(), 503) == "too many connections"
            for door in DOORS:  # who has sent its request before it listens reads it too
                with daemon.raw(daemon.validator.sign(street, door)) as one_more:
                    assert message_of(one_more.send_all().answer(), 503) == "too many connections"
        eventually(lambda: daemon.outcomes() == {"cancelled": 8})


def test_the_largest_picture_is_a_setting(start_daemon: StartDaemon, street: bytes) -> None:
    daemon = start_daemon(MAX_IMAGE_PIXELS=230_399).ready()  # the street has 640 × 360
    assert "at most 0.230399 million" in message_of(daemon.ask(street), 422)
