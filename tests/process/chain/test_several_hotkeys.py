"""Several hotkeys in one process with one model: each with its own port, place on the chain and validators."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import bittensor
import httpx
import pytest

from miner.errors import MESSAGES
from miner.recorder import FOLDER
from miner.recorder.records import read_records
from tests.process.chain.live_node import OWN_UID, PEER_UID, SUBMIT, VALIDATOR_UID, LiveNode
from tests.process.chain.scene import START, syncs_again
from tests.process.daemon import Daemon, eventually, free_port
from tests.process.inspection import inspect_answer, message_of, probability_of
from tests.process.wire import DOORS, Door, Signer

NAMES = ("miner", "second", "third")


@dataclass(frozen=True)
class Key:
    """One of our hotkeys, and a caller's way to it."""

    name: str
    wallet: bittensor.Wallet
    port: int
    http: httpx.Client

    @property
    def hotkey(self) -> str:
        return str(self.wallet.hotkey.ss58_address)

    def ask(self, caller: bittensor.Wallet, picture: bytes, door: Door | None = None) -> httpx.Response:
        signed = Signer(caller, self.hotkey).sign(picture, door or Door())
        return self.http.post(signed.path, content=signed.body, headers=signed.headers)


@dataclass(frozen=True)
class Several:
    """A daemon that serves three hotkeys, registered with uids from `OWN_UID + 10` on."""

    daemon: Daemon
    keys: list[Key]

    @property
    def validator(self) -> bittensor.Wallet:
        return self.daemon.keys.validator

    def states(self) -> dict[str, str | None]:
        """Return why each is not served, as /readyz says it."""
        answer = self.daemon.page("/readyz").json()["hotkeys"]
        assert isinstance(answer, dict)
        return answer

    def answers(self, *keys: Key, picture: bytes) -> None:
        for key in keys:
            for door in DOORS:
                assert probability_of(key.ask(self.validator, picture, door)) >= 0


@contextmanager
def asked_meanwhile(several: Several, *keys: Key, picture: bytes) -> Iterator[list[int]]:
    """Have each of these hotkeys asked all the time, one request after the other; yields the statuses so far."""
    statuses: list[int] = []
    end = threading.Event()

    def ask(key: Key) -> None:
        while not end.is_set():
            statuses.append(key.ask(several.validator, picture).status_code)

    with ThreadPoolExecutor(len(keys)) as pool:
        jobs = [pool.submit(ask, key) for key in keys]
        try:
            yield statuses
        finally:
            end.set()
        for job in jobs:
            job.result()


@pytest.fixture
def several(node: LiveNode, start: START) -> Iterator[Several]:
    daemon = start()
    ports = (daemon.port, free_port(), free_port())
    daemon.settings |= {
        "AXON_EXTERNAL_PORT": "",
        "RECORDER": "meta",
        "WALLET_HOTKEYS": ", ".join(f"{name}:{port}" for name, port in zip(NAMES, ports, strict=True)),
    }
    known = daemon.keys
    node.register(VALIDATOR_UID, known.validator.hotkey.ss58_address, permit=True, last_update=node.block)
    node.register(PEER_UID, known.peer.hotkey.ss58_address)
    with ExitStack() as stack:
        keys = []
        for number, (name, port) in enumerate(zip(NAMES, ports, strict=True)):
            wallet = bittensor.Wallet("standalone", name, str(daemon.state / "wallets"))
            if not wallet.hotkey_file.exists_on_device():
                wallet.create_new_hotkey(use_password=False, suppress=True)
            node.register(OWN_UID + 10 + number, wallet.hotkey.ss58_address)
            http = httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False,
                event_hooks={"response": [inspect_answer]},
            )  # fmt: skip
            keys.append(Key(name, wallet, port, stack.enter_context(http)))
        yield Several(daemon, keys)


def test_all_are_published_and_answered_and_one_that_is_deregistered_leaves_the_others(
    node: LiveNode, several: Several, street: bytes
) -> None:
    daemon, (first, second, third) = several.daemon, several.keys
    daemon.start().ready()
    eventually(lambda: daemon.metric("chain_published") == 3)
    records = {key.name: node.axons[key.hotkey]["port"] for key in several.keys}
    assert records == {key.name: key.port for key in several.keys}
    assert node.requests[SUBMIT] == 3
    assert several.states() == dict.fromkeys(NAMES)
    assert [daemon.metric("chain_uid", hotkey=key.hotkey) for key in several.keys] == [17, 18, 19]

    several.answers(first, second, third, picture=street)
    eventually(lambda: daemon.metric("recorder_records_total") == 3 * len(DOORS))
    recorded = [record.hotkey for record in read_records(daemon.state / FOLDER)]
    assert recorded == [key.hotkey for key in several.keys for _ in DOORS]
    status = daemon.page("/status").json()
    asked = {one["hotkey"]: one["asked"] for one in status["day"]["hotkeys"]}
    assert asked == dict.fromkeys((key.hotkey for key in several.keys), len(DOORS))
    assert [one["hotkey"] for one in reversed(status["recent"])] == recorded
    assert [(key["uid"], key["is_published"]) for key in status["keys"]] == [(17, True), (18, True), (19, True)]
    (caller,) = (one for one in status["hour"]["callers"] if one["asked"])
    assert (caller["uid"], caller["asked"]) == (VALIDATOR_UID, 3 * len(DOORS))
    for_the_first = Signer(several.validator, first.hotkey).sign(street, Door())
    other = second.http.post(for_the_first.path, content=for_the_first.body, headers=for_the_first.headers)
    assert "signature" in message_of(other, 401), "a request for one of our keys is not one for another"
    assert "no validator permit" in message_of(third.ask(daemon.keys.peer, street), 403)

    with asked_meanwhile(several, first, third, picture=street) as statuses:
        eventually(lambda: len(statuses) > 5)
        node.deregister(OWN_UID + 11)
        syncs_again(node, daemon)
        assert "is not registered" in str(several.states()["second"])
        assert daemon.status("/readyz") == 200
        assert message_of(second.ask(several.validator, street), 503) == MESSAGES["not_ready"]
        several.answers(first, third, picture=street)
        seen = len(statuses)
        eventually(lambda: len(statuses) > seen + 5)
    assert set(statuses) == {200}, "nobody noticed"
    assert [daemon.metric("chain_registered", hotkey=key.hotkey) for key in several.keys] == [1, 0, 1]
    assert daemon.metric("hotkey_ready", name="second") == 0
    uids = {labels["name"]: labels["uid"] for name, labels, _ in daemon.samples() if name == "hotkey_info"}
    assert uids == {first.name: "17", second.name: "", third.name: "19"}
    answered = [daemon.metric("hotkey_requests_total", hotkey=key.hotkey, outcome="ok") for key in (first, third)]
    assert sum(answered) == 4 * len(DOORS) + len(statuses)

    node.register(OWN_UID + 20, second.hotkey)
    eventually(lambda: several.states() == dict.fromkeys(NAMES))
    several.answers(second, picture=street)


def test_a_broken_key_file_and_a_taken_port_leave_the_others(several: Several, street: bytes) -> None:
    daemon, (first, _, third) = several.daemon, several.keys
    (daemon.state / "wallets" / "standalone" / "hotkeys" / "second").write_text("not a key")
    with socket.create_server(("127.0.0.1", third.port)):
        daemon.start().ready()
        several.answers(first, picture=street)
        states = several.states()
        assert states["miner"] is None
        assert "WALLET_HOTKEY=second" in str(states["second"])
        assert f"MINER_AXON_PORT={third.port}: the port is" in str(states["third"])
        eventually(lambda: daemon.metric("chain_published", hotkey=first.hotkey) == 1)
        assert daemon.metric("chain_published", hotkey=third.hotkey) == 0
        shown = json.loads(daemon.page("/status").text)["keys"]
        assert [(key["name"], key["obstacle"] is None) for key in shown] == [
            ("miner", True), ("second", False), ("third", False),
        ]  # fmt: skip


def test_none_that_can_be_served_is_no_start(several: Several) -> None:
    daemon = several.daemon
    for name in NAMES:
        (daemon.state / "wallets" / "standalone" / "hotkeys" / name).write_text("not a key")
    assert daemon.start().wait() == 2
    for name in NAMES:
        assert f"WALLET_HOTKEY={name}" in daemon.log


def test_a_flood_to_one_of_them_leaves_the_others_their_turn(several: Several, street: bytes) -> None:
    daemon, (first, second, _) = several.daemon, several.keys
    daemon.start().ready()
    with ThreadPoolExecutor(12) as pool:
        flood = [pool.submit(first.ask, several.validator, street) for _ in range(120)]
        answers = [second.ask(several.validator, street) for _ in range(20)]
        counted = {future.result().status_code for future in flood}
    assert [answer.status_code for answer in answers] == [200] * 20, [answer.text for answer in answers]
    assert counted <= {200, 503}, counted


def test_each_earns_for_itself_and_the_subnet_is_read_once(node: LiveNode, several: Several) -> None:
    daemon, (first, second, third) = several.daemon, several.keys
    node.members[OWN_UID + 10].incentive = 4000
    node.members[OWN_UID + 11].incentive = 2000
    daemon.start().ready()
    eventually(lambda: daemon.page("/status").json()["earnings"]["keys"])
    earnings = daemon.page("/status").json()["earnings"]
    told = {key["hotkey"]: key for key in earnings["keys"]}
    assert list(told) == [first.hotkey, second.hotkey, third.hotkey]
    assert [told[key.hotkey]["rank"] for key in (first, second, third)] == [3, 4, None]
    assert told[first.hotkey]["alpha_per_day"] == pytest.approx(2 * told[second.hotkey]["alpha_per_day"])
    page = daemon.page("/metrics").text
    for key, has_rank in ((first, True), (second, True), (third, False)):
        assert f'roadwork_miner_income_alpha_per_day{{hotkey="{key.hotkey}"}}' in page
        assert (f'roadwork_miner_incentive_rank{{hotkey="{key.hotkey}"}}' in page) is has_rank
    assert len([line for line in page.splitlines() if line.startswith("roadwork_miner_registration_cost_tao ")]) == 1
