"""NATIX's server as a client meets it: every answer it gives, and those of what stands in its way."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from bittensor.keyfiles import Keypair
from huggingface_hub import file_download

from miner.natix import server as module
from miner.natix.hub import HubAway, ask_for
from miner.natix.registration import ServerWord, registration_request
from miner.natix.server import MAX_ANSWER_BYTES, NatixFault, NatixServer, wait_for_end
from tests.natix import OLD_SECONDS, Answer, Natix, serving
from tests.process.daemon import free_port

KEY = Keypair.create_from_seed((5).to_bytes(32, "big"), 1)
UID = 7


@contextmanager
def asked(natix: Natix, seconds: float = 30.0) -> Iterator[NatixServer]:
    with serving(natix), NatixServer(natix.url + "/", seconds) as server:
        yield server


def state(*words: str) -> Natix:
    return Natix(states=[Answer({"status": word}) for word in words])


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"status": "pending"}, ("pending", "")),
        ({"status": "queued"}, ("pending", "queued")),
        ({"status": "PROCESSING"}, ("pending", "PROCESSING")),
        ({"status": "succeeded", "error_message": None}, ("succeeded", "")),
        ({"status": "success"}, ("succeeded", "")),
        ({"status": "failed", "error_message": "no\nsuch\x00 model"}, ("failed", "no such model")),
        ({"status": "error", "error_message": ""}, ("failed", "")),
        ({"status": "on hold"}, ("pending", "on hold")),
    ],
)
def test_each_status_is_understood(body: object, word: tuple[str, str]) -> None:
    natix = Natix(states=[Answer(body)])
    with asked(natix) as server:
        said = server.status(UID)
    assert said == ServerWord(progress=word[0], words=word[1])
    assert natix.asked == [f"/participants/registration-status/{UID}"]


def test_a_uid_it_does_not_know() -> None:
    with asked(Natix(states=[Answer({"detail": "Not found"}, 404)])) as server:
        assert server.status(UID) is None


FAULTS = {
    "not JSON": (Answer(None, raw=b"<html>welcome</html>"), "text/html"),
    "no object": (Answer(["succeeded"]), "JSON"),
    "nested without end": (Answer(None, raw=b"[" * 50_000), "JSON"),
    "without a status": (Answer({"detail": "fine"}), "status"),
    "refused": (Answer({"detail": "rate limit"}, 403), "rate limit"),
    "too many": (Answer({"detail": "slow down"}, 429), "429"),
    "broken": (Answer({"detail": "oops"}, 500), "500"),
    "away": (Answer(None, 502, b"bad gateway"), "502"),
    "elsewhere": (Answer(None, 307, b"", location="https://example.invalid/"), "https://example.invalid"),
    "huge": (Answer(None, raw=b" " * (MAX_ANSWER_BYTES + 1)), str(MAX_ANSWER_BYTES)),
    "not http": (Answer(None, raw=b"", is_noise=True), "can't be reached"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_no_answer_is_a_fault_that_says_why(case: str) -> None:
    answer, named = FAULTS[case]
    natix = Natix(states=[answer], reply=answer)
    with asked(natix) as server, pytest.raises(NatixFault) as told:
        server.status(UID)
    assert named in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("case", [case for case in FAULTS if case not in ("refused", "without a status")])
def test_nor_is_it_one_to_a_registration(case: str) -> None:
    natix = Natix(reply=FAULTS[case][0])
    with asked(natix) as server, pytest.raises(NatixFault):
        server.register(registration_request(KEY, UID, "you/roadwork", 0))
    assert len(natix.registered) == 1, "sent once, and on to nobody"


def test_a_server_that_does_not_answer_in_time() -> None:
    with (
        asked(Natix(states=[Answer({"status": "succeeded"}, seconds=1.0)]), 0.05) as server,
        pytest.raises(NatixFault, match=r"0\.05 s"),
    ):
        server.status(UID)


@contextmanager
def trickling() -> Iterator[str]:
    """A server of which each byte comes in time, and the answer never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        over = threading.Event()

        def trickle() -> None:
            with suppress(OSError), listener.accept()[0] as connection:  # whoever asked goes, or never came
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
                while not over.wait(0.01):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def test_a_server_that_trickles() -> None:
    with trickling() as url, NatixServer(url, 0.3) as server, pytest.raises(NatixFault, match=r"0\.3 s"):
        server.status(UID)


def test_a_hub_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    with trickling() as url:
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/{revision}/{filename}")
        with pytest.raises(HubAway, match="too slowly"):
            ask_for("you/roadwork", "model_card.json", 0.3)


def test_nobody_listens() -> None:
    with NatixServer(f"http://127.0.0.1:{free_port()}") as server, pytest.raises(NatixFault):
        server.status(UID)


def test_a_registration_is_verified_and_taken() -> None:
    natix = Natix()
    with asked(natix) as server:
        word = server.register(registration_request(KEY, UID, "you/roadwork", natix.now()))
    assert (word.progress, bool(word.words)) == ("pending", True)
    assert natix.registered[0]["natix_public_key"] == KEY.ss58_address


def test_a_registration_that_is_refused_says_why() -> None:
    natix = Natix()
    request = registration_request(KEY, UID, "you/roadwork", natix.now())
    other = Keypair.create_from_seed((6).to_bytes(32, "big"), 1)
    with asked(natix) as server:
        forged = server.register(request | {"natix_public_key": other.ss58_address})
        stale = server.register(registration_request(KEY, UID, "you/roadwork", natix.now() - OLD_SECONDS - 60))
        lacking = server.register({name: value for name, value in request.items() if name != "model_repo"})
    assert [word.progress for word in (forged, stale, lacking)] == ["failed"] * 3
    assert ("signature" in forged.words, "expired" in stale.words) == (True, True)
    assert "body.model_repo" in lacking.words


@pytest.mark.parametrize("status", [404, 405])
def test_an_address_without_that_path_is_said(status: int) -> None:
    with (
        asked(Natix(reply=Answer({"detail": "Not Found"}, status))) as server,
        pytest.raises(NatixFault, match="NATIX_URL"),
    ):
        server.register(registration_request(KEY, UID, "you/roadwork", 0))


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(server: NatixServer, seconds: float) -> tuple[list[ServerWord], float]:
    clock = Clock()
    return list(wait_for_end(server, UID, seconds, clock=clock, sleep=clock.sleep)), clock.now


def test_it_is_waited_for_until_it_has_ended() -> None:
    with asked(state("pending", "queued", "processing", "succeeded", "failed")) as server:
        words, seconds = waited(server, 180)
    assert [word.words or word.progress for word in words] == ["pending", "queued", "processing", "succeeded"]
    assert seconds == 4 * module.POLL_SECONDS


@pytest.mark.slow
def test_and_no_longer_than_the_time_that_is_given() -> None:
    natix = state("pending")
    with asked(natix) as server:
        words, seconds = waited(server, 180)
    assert {word.progress for word in words} == {"pending"}
    assert (len(natix.asked), seconds) == (60, 180)


def test_without_time_it_is_asked_once() -> None:
    natix = state("processing")
    with asked(natix) as server:
        assert waited(server, 0) == ([ServerWord(progress="pending", words="processing")], 0.0)
    assert len(natix.asked) == 1


def test_a_server_that_is_away_for_a_while_is_asked_again() -> None:
    away, unknown = Answer({}, 503), Answer({"detail": "Not found"}, 404)
    with asked(Natix(states=[unknown, away, away, Answer({"status": "success"})])) as server:
        words, _ = waited(server, 180)
    assert [word.progress for word in words] == ["pending"] * 3 + ["succeeded"]
    assert "503" in words[1].words


def test_one_that_stays_away_is_a_fault() -> None:
    with (
        asked(Natix(states=[Answer({"status": "queued"}), Answer({}, 503)])) as server,
        pytest.raises(NatixFault, match="503"),
    ):
        waited(server, 30)
