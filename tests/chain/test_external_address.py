"""Our address as the world sees it, from services that answer, lie, stall and are not there."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from miner.chain.publication import AddressUnknown, find_external_ip

STALL = "stall"


@pytest.fixture
def service() -> Iterator[Callable[..., str]]:
    """Start a service that answers with a text, and return its URL."""
    released = threading.Event()

    class Server(ThreadingHTTPServer):
        text = ""
        status = 200

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Server)
            if self.server.text == STALL:
                released.wait()
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(self.server.text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ExitStack() as stack:

        def start(text: str, status: int = 200) -> str:
            server = stack.enter_context(Server(("127.0.0.1", 0), Handler))
            server.text, server.status = text, status
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        stack.callback(released.set)
        yield start
        released.set()


async def test_two_that_agree_win(service) -> None:
    services = [service("9.9.9.9"), service("8.8.8.8\n"), service(STALL), service(" 8.8.8.8 ")]
    assert await find_external_ip(services, seconds=60.0) == "8.8.8.8"


async def test_one_that_answers_is_enough(service) -> None:
    services = [service("8.8.8.8"), service("10.0.0.1"), service("<html>" * 100), service("oops", 500)]
    assert await find_external_ip([*services, "http://127.0.0.1:1"]) == "8.8.8.8"


@pytest.mark.parametrize("answer", ["8.8.8.8", "9.9.9.9"])
async def test_one_alone_changes_nothing_that_is_known(service, answer) -> None:
    services = [service(answer), service(""), service("oops", 500)]
    if answer == "8.8.8.8":
        assert await find_external_ip(services, known="8.8.8.8") == "8.8.8.8"
    else:
        with pytest.raises(AddressUnknown, match=r"^one service .* 9\.9\.9\.9 .* 8\.8\.8\.8"):
            await find_external_ip(services, known="8.8.8.8")
        assert await find_external_ip([*services, service(answer)], known="8.8.8.8") == "9.9.9.9"


async def test_a_stalling_service_has_a_time_limit(service) -> None:
    assert await find_external_ip([service(STALL), service("8.8.8.8")], seconds=3.0) == "8.8.8.8"


async def test_no_answer_says_what_to_set(service) -> None:
    with pytest.raises(AddressUnknown, match=r"none of 2 services .* set AXON_EXTERNAL_IP"):
        await find_external_ip([service("oops"), service("")])


async def test_a_disagreement_is_not_decided(service) -> None:
    with pytest.raises(AddressUnknown, match=r"disagree .*: 8\.8\.8\.8, 9\.9\.9\.9"):
        await find_external_ip([service("9.9.9.9"), service("8.8.8.8")])


@pytest.mark.parametrize("text", ["10.0.0.1", "192.168.1.5", "127.0.0.1", "100.64.0.1", "224.0.0.251", "::1"])
async def test_an_address_that_the_world_can_not_reach_is_said_and_not_taken(service, text) -> None:
    with pytest.raises(AddressUnknown, match=f"see us at {re.escape(text)}, .* set AXON_EXTERNAL_IP"):
        await find_external_ip([service(text), service(text), service("")])
