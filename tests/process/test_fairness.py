"""Who gets places, memory and time when many ask: real sockets, real bodies, a real cgroup."""

import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from miner.chain import standalone
from miner.errors import MESSAGES
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually, free_port
from tests.process.graphs import write_model
from tests.process.inspection import message_of, probability_of
from tests.process.limits import memory_group
from tests.process.wire import Door, RawRequest, Signed, Signer

if TYPE_CHECKING:
    from bittensor import Wallet

MEBIBYTE = 2**20
LARGEST = 16 * MEBIBYTE  # MAX_BODY_BYTES
SIGNED_REQUESTS = Door("btauth", "/predict")
POOR, STAKE = "poor", 10**6  # the poor one's stake is 1


@dataclass
class Subnet:
    """A miner, and validators of little and of much stake."""

    daemon: Daemon
    wallets: "Sequence[Wallet]"
    poor: "Wallet"

    def ask(self, pictures: Sequence[bytes], door: Door, port: int | None = None) -> list[httpx.Response]:
        """Have a validator each ask for a picture, all at once; signed for the hotkey of the port."""
        receiver = self.daemon.keys.miner if port is None else standalone.own_wallet(self.daemon.state, "miner-second")
        address = f"http://127.0.0.1:{port or self.daemon.port}"
        gate = threading.Barrier(len(pictures))

        def one(wallet: "Wallet", picture: bytes) -> httpx.Response:
            signer = self.daemon.signer(wallet, receiver)
            with httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False, verify=False) as http:
                gate.wait()
                signed = signer.sign(picture, door, timeout=str(PATIENCE))
                return http.post(signed.path, content=signed.body, headers=signed.headers)

        with ThreadPoolExecutor(len(pictures)) as pool:
            callers = [self.wallets[number % len(self.wallets)] for number in range(len(pictures))]
            return list(pool.map(one, callers, pictures))

    def sign(self, signer: Signer, door: Door) -> Signed:
        """Sign a request whose body is not there yet."""
        return signer.sign(b"", door, timeout="9.0")


@contextmanager
def subnet(start: StartDaemon, count: int, **settings: object) -> Iterator[Subnet]:
    daemon = start(**settings, DEADLINE_CAP_SECONDS=PATIENCE)  # however busy the machine is
    wallets = [standalone.own_wallet(daemon.state, f"validator-{number}") for number in range(count)]
    poor = standalone.own_wallet(daemon.state, POOR)
    entries = [f"  - {{hotkey: {wallet.hotkey.ss58_address}, stake: {STAKE}}}" for wallet in wallets]
    entries.append(f"  - {{hotkey: {poor.hotkey.ss58_address}, stake: 1}}")
    (daemon.state / standalone.CALLERS_FILE).write_text("\n".join(["validators:", *entries, ""]), encoding="utf-8")
    daemon.ready()
    eventually(lambda: daemon.metric("chain_neurons") >= count + 1)
    yield Subnet(daemon, wallets, poor)


def different(count: int, picture: bytes) -> list[bytes]:
    """Return pictures that look alike, and of which no two are equal."""
    return [picture + number.to_bytes(4, "big") for number in range(count)]


def statuses(answers: Sequence[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@pytest.mark.parametrize("callers", [1, 60])
def test_sixty_at_once_are_all_answered(start_daemon: StartDaemon, street: bytes, callers: int) -> None:
    with subnet(start_daemon, callers) as scene:
        assert statuses(scene.ask(different(60, street), Door())) == {200: 60}
        assert scene.daemon.metric("refusals_total") == 0


def test_twelve_large_photos_at_once_are_all_answered(start_daemon: StartDaemon, tmp_path: Path, street: bytes) -> None:
    slow = write_model(tmp_path / "slow", seconds=0.3)
    with subnet(start_daemon, 12, IMAGE_DETECTOR_CONFIG=slow, IMAGE_DETECTOR_BACKEND="sleeping") as scene:
        large = street + bytes(3 * MEBIBYTE - len(street))  # 4 MiB in base64
        assert statuses(scene.ask(different(12, large), Door())) == {200: 12}


class Trickle:
    """Bodies that come a byte at a time, until the miner hangs up or the test ends."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.answers: list[httpx.Response] = []

    def send(self, port: int, signed: Signed, *, length: int = LARGEST, at_once: int = 0, source: str = "") -> None:
        """Begin a body of this length, of which some bytes come at once."""
        connection = socket.create_connection(("127.0.0.1", port), 30, (source or "127.0.0.1", 0))
        raw = RawRequest.on(connection, signed)
        raw.send_head(length=length, and_then=b" " * at_once)
        thread = threading.Thread(target=self._drip, args=(raw,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _drip(self, raw: RawRequest) -> None:
        with raw:
            while not self._over.wait(self._pause):
                if not raw.takes_one_byte():
                    self.answers.append(raw.answer())
                    return

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def trickle() -> Iterator[Trickle]:
    trickle = Trickle(pause=0.5)
    yield trickle
    trickle.end()


@pytest.mark.parametrize("second", [False, True], ids=["of the same hotkey", "of another hotkey"])
def test_a_validator_that_trickles_changes_nothing_for_others(
    start_daemon: StartDaemon, street: bytes, trickle: Trickle, second: bool
) -> None:
    ports = free_port(), free_port()
    keys = f"default:{ports[0]},second:{ports[1]}"
    with subnet(start_daemon, 40, WALLET_HOTKEYS=keys, MINER_AXON_PORT=ports[0]) as scene:
        scene.daemon.port = ports[0]
        poor = scene.daemon.signer(scene.poor)
        for _ in range(2):
            trickle.send(ports[0], scene.sign(poor, Door()))
        eventually(lambda: scene.daemon.metric("queue_depth") == 2)
        answers = scene.ask(different(40, street), Door(), ports[1] if second else None)
        assert statuses(answers) == {200: 40}
        eventually(lambda: len(trickle.answers) == 2)  # a body has to keep a pace
        assert all("too slowly" in message_of(answer, 408) for answer in trickle.answers)


@pytest.mark.parametrize("bodies", [(1, LARGEST, 8 * MEBIBYTE), (32, 2000, 100)], ids=["one large", "many small"])
def test_strangers_who_name_a_validator_change_nothing_for_it(
    start_daemon: StartDaemon, street: bytes, trickle: Trickle, bodies: tuple[int, int, int]
) -> None:
    """The signature covers the body, so nobody knows before it is there that it is not the validator's."""
    count, length, at_once = bodies
    with subnet(start_daemon, 38) as scene:
        named = scene.daemon.signer(scene.wallets[0])
        for number in range(count):
            source = f"127.0.0.{2 + number % 2}"
            trickle.send(
                scene.daemon.port, scene.sign(named, SIGNED_REQUESTS), length=length, at_once=at_once, source=source
            )
        eventually(lambda: scene.daemon.metric("connections") >= count)
        for _ in range(2):  # at first their address has proved nothing either
            assert statuses(scene.ask(different(38, street), SIGNED_REQUESTS)) == {200: 38}
        assert statuses(scene.ask(different(38, street), Door())) == {200: 38}


def test_ten_equal_requests_of_ten_validators_are_one_inference(
    start_daemon: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    slow = write_model(tmp_path / "slow", seconds=1.0)
    with subnet(start_daemon, 10, IMAGE_DETECTOR_CONFIG=slow, IMAGE_DETECTOR_BACKEND="sleeping") as scene:
        answers = scene.ask([street] * 10, Door())
        assert len({probability_of(answer) for answer in answers}) == 1
        daemon = scene.daemon
        assert daemon.metric("stage_duration_seconds_count", stage="infer") == 1
        assert daemon.metric("requests_shared_total") == 9
        assert daemon.outcomes() == {"ok": 10}
        assert daemon.metric("validator_requests_total") == 10
        assert statuses(scene.ask(different(5, street), Door())) == {200: 5}
        assert daemon.metric("requests_shared_total") == 9


def bombs(street: bytes) -> Iterator[bytes]:
    """Yield pictures of few bytes and of millions of pixels or rows, and one that is nearly all metadata."""
    for kind, options in (("WEBP", {"lossless": True, "method": 0}), ("PNG", {}), ("JPEG", {"progressive": True})):
        buffer = io.BytesIO()
        Image.new("RGB", (5000, 5000)).save(buffer, kind, **options)
        yield buffer.getvalue()
    buffer = io.BytesIO()
    Image.new("L", (2, 12_000_000)).save(buffer, "PNG")
    yield buffer.getvalue()
    segment = b"\xff\xe1\xff\xffExif\0\0MM\0*" + bytes(65535 - 2 - 10)
    yield street[:2] + segment * 180 + street[2:]


def test_in_256_mebibytes_more_than_the_model_nothing_gets_the_process_killed(
    start_doomed: StartDaemon, street: bytes
) -> None:
    """Bodies of 16 MB two at a time, and pictures that are small on their way and huge when they are opened."""
    with memory_group(4096 * MEBIBYTE) as group:
        daemon = start_doomed(DEADLINE_CAP_SECONDS=PATIENCE).ready()
        assert daemon.stop() == 0
        daemon.prefix = group.prefix
        with subnet(lambda **_: daemon.start(), 4) as scene:
            probability_of(scene.ask([street], Door())[0])
            group.limit(group.used + 256 * MEBIBYTE)
            time.sleep(1)  # it looks at what is left four times a second
            photos = different(2, street + bytes(LARGEST * 3 // 4 - len(street) - 1000))
            ends: Counter[str] = Counter()
            for round_ in range(3):
                for pictures in (photos, *([bomb + bytes([round_, n]) for n in range(2)] for bomb in bombs(street))):
                    for answer in scene.ask(pictures, Door()):
                        assert not daemon.ended, daemon.log
                        if answer.status_code == 503:
                            assert message_of(answer, 503) == MESSAGES["memory"]
                        ends[str(answer.status_code)] += 1
            assert set(ends) <= {"200", "422", "503"}  # 422: too long for its width
            assert ends["200"] >= 6  # the large bodies, at least
            assert statuses(scene.ask(different(4, street), Door())) == {200: 4}
            assert daemon.stop() == 0


def test_a_flood_of_strangers_who_name_a_validator_gets_nothing_killed(
    start_doomed: StartDaemon, street: bytes
) -> None:
    """Four hundred connections push bodies of no length; what is read of each before anybody asks counts too."""
    with memory_group(4096 * MEBIBYTE) as group, ExitStack() as stack:
        daemon = start_doomed(DEADLINE_CAP_SECONDS=PATIENCE).ready()
        assert daemon.stop() == 0
        daemon.prefix = group.prefix
        with subnet(lambda **_: daemon.start(), 2) as scene:
            assert statuses(scene.ask(different(2, street), Door())) == {200: 2}
            group.limit(group.used + 256 * MEBIBYTE)
            time.sleep(1)
            named = scene.daemon.signer(scene.wallets[0])
            flood = []
            for number in range(400):
                source = (f"127.0.0.{2 + number % 8}", 0)
                connection = socket.create_connection(("127.0.0.1", daemon.port), 30, source)
                raw = stack.enter_context(RawRequest.on(connection, scene.sign(named, SIGNED_REQUESTS)))
                flood.append(raw.send_head())
                connection.sendall(b"7fffffff\r\n")
            until = time.monotonic() + 5
            while flood and time.monotonic() < until:
                flood = [raw for raw in flood if raw.takes_more()]
                assert not daemon.ended, daemon.log
            assert statuses(scene.ask(different(2, street), Door())) == {200: 2}
            assert daemon.stop() == 0
