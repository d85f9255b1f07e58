"""By which names the operator's port is asked, on a real socket."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from miner.errors import ConfigurationError
from miner.http.server import listening
from miner.settings.addresses import own_names, strange_name
from miner.settings.settings import Settings
from miner.status.app import status_app
from miner.status.archive import CheckupView
from miner.status.overview import MemoryUse, Overview
from tests.overviews import overview
from tests.process.daemon import free_port

PATHS = {"/": 200, "/status": 200, "/metrics": 200, "/healthz": 200, "/readyz": 200, "/else": 404}
NAMES = own_names("127.0.0.1", "metrics.lan,miner-1")


OURS = [
    "localhost", "localhost:9464", "LocalHost:9464", "localhost.:9464", "127.0.0.1", "127.0.0.1:9464", "[::1]",
    "[::1]:9464", "192.168.1.20:9464", "8.8.8.8", "[2600::1]:9464", "[fe80::1%25eth0]:9464", "metrics.lan:9464",
    "MINER-1", "miner-1.", socket.gethostname(), f"{socket.gethostname()}:9464",
]  # fmt: skip
STRANGE = [
    "evil.example", "evil.example:9464", "127.0.0.1.evil.example:9464", "localhost.evil.example", "evil-localhost",
    "user@localhost", "localhost@evil.example", "localhost:80:80", "localhost:port", "2130706433", "0x7f.1", "127.1",
    "[::1].evil.example", "[evil.example]", "metrics.lan.evil.example", "lan", "*", "localhost, evil.example",
]  # fmt: skip


@pytest.mark.parametrize("header", OURS)
def test_addresses_and_our_own_names_are_ours(header: str) -> None:
    assert strange_name([header], NAMES) is None


@pytest.mark.parametrize("header", STRANGE)
def test_any_other_name_is_strange(header: str) -> None:
    assert strange_name([header], NAMES) is not None
    assert strange_name(["localhost", header], NAMES) is not None, "one of two is enough"


def test_who_gives_no_name_is_no_browser() -> None:
    for headers in ([], [""], [" "]):
        assert strange_name(headers, NAMES) is None


def test_the_name_that_is_listened_on_is_ours() -> None:
    assert strange_name(["box:9464"], own_names("Box", "")) is None
    assert strange_name(["box:9464"], own_names("127.0.0.1", "")) == "box"


@pytest.mark.parametrize("value", ["http://x", "x:9464", "x y", "*", "*.lan", ".lan", "x/", "ü.lan"])
def test_what_is_no_name_is_a_fault(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(status_allowed_hosts=f"fine.lan,{value}")
    assert str(caught.value).startswith(f"STATUS_ALLOWED_HOSTS=fine.lan,{value}: names of hosts ")
    assert caught.value.exit_code == 2


def test_names_are_read_in_small_letters() -> None:
    assert Settings.load(status_allowed_hosts=" Metrics.LAN, miner-1,").status_allowed_hosts == "metrics.lan,miner-1"


def answers(requests: list[bytes]) -> list[tuple[int, str]]:
    """Return status and body of each, from an operator's port that is asked by the requests as they are."""

    def shown(_: MemoryUse, checkup: CheckupView | None) -> Overview:
        return overview()

    keys: Mapping[str, str | None] = {}

    async def ask() -> list[tuple[int, str]]:
        app = status_app(CollectorRegistry(), lambda: None, shown, lambda: keys, dict, NAMES, Path())
        port, found = free_port(), []
        async with listening(app, "STATUS_PORT", "127.0.0.1", port):
            for request in requests:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
                found.append((int(head.split()[1]), body))
                writer.close()
        return found

    return asyncio.run(ask())


def get(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def test_a_page_of_somebody_else_reads_nothing_on_any_path(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "miner"):
        for status, body in answers([get(path, "evil.example:9464") for path in PATHS]):
            assert status == 421
            assert body.startswith('{"message":')
            assert "STATUS_ALLOWED_HOSTS" in body
    levels = [record.levelname for record in caplog.records if "evil.example" in record.getMessage()]
    assert levels == ["WARNING"] + ["DEBUG"] * (len(PATHS) - 1)


@pytest.mark.parametrize("host", ["localhost:9464", "127.0.0.1:9464", "[::1]:9464", "metrics.lan"])
def test_we_do(host: str) -> None:
    found = answers([get(path, host) for path in PATHS])
    assert [status for status, _ in found] == list(PATHS.values())


def test_a_health_check_of_http_1_0_gives_no_name() -> None:
    assert answers([f"GET {path} HTTP/1.0\r\n\r\n".encode() for path in ("/healthz", "/readyz")])[0][0] == 200


@pytest.mark.parametrize(("host", "noted"), [("127.0.0.1", 0), ("::1", 0), ("localhost", 0), ("0.0.0.0", 1), ("::", 1)])
def test_an_operators_port_that_others_reach_is_said(host: str, noted: int) -> None:
    notes = Settings.load(status_host=host).notes()
    assert [note.startswith(f"STATUS_HOST={host} ") for note in notes] == [True] * noted


@pytest.mark.parametrize(("value", "noted"), [("true", 0), ("False", 1)])
def test_answering_without_a_permit_is_said(value: str, noted: int) -> None:
    notes = Settings.load(blacklist_force_validator_permit=value).notes()
    assert [note.startswith("BLACKLIST_FORCE_VALIDATOR_PERMIT=false ") for note in notes] == [True] * noted
