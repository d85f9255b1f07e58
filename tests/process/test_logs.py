"""What a daemon writes down under hostile traffic, at its most talkative."""

import base64
import json

import pytest

from tests.process.conftest import StartDaemon
from tests.process.daemon import Daemon
from tests.process.inspection import signature_of
from tests.process.wire import DOORS, Door


@pytest.fixture
def talkative(start_daemon: StartDaemon) -> Daemon:
    return start_daemon(LOG_LEVEL="DEBUG", LOG_FORMAT="json").ready()


def secrets_of(daemon: Daemon) -> list[str]:
    """Return the private halves of all keys there are."""
    files = [path for path in (daemon.state / "wallets").rglob("hotkeys/*") if path.suffix != ".txt"]
    assert files
    keys = [json.loads(path.read_text()) for path in files]
    return [str(key[name]) for key in keys for name in ("privateKey", "secretSeed", "secretPhrase") if key.get(name)]


def written_log(daemon: Daemon) -> str:
    """Return the log with the lines of all answered requests: each is written behind its answer."""
    daemon.status("/healthz")  # the same loop: it answers when it is done with the line
    return daemon.log


def test_no_line_holds_a_key_a_signature_or_a_picture(talkative: Daemon, street: bytes) -> None:
    sent = []
    for door in DOORS:
        good = talkative.validator.sign(street, door)
        stranger = talkative.signer(talkative.keys.stranger).sign(street, door)
        rubbish = talkative.validator.sign(b"", door, body=b'{"image": "' + base64.b64encode(street) + b'"')
        for request in (good, good, stranger, rubbish, good.with_body(good.body[:-9])):
            sent.append(request)
            talkative.post(request)
    secrets = {
        "key": secrets_of(talkative),
        "signature": [signature_of(request.headers) for request in sent],  # type: ignore[arg-type]
        "picture": [base64.b64encode(street).decode()[:120]],
    }
    log = written_log(talkative)
    assert log.count('"level": "debug"') >= len(sent)
    for kind, values in secrets.items():
        assert values
        for value in values:
            assert len(value) > 20
            assert value.removeprefix("0x") not in log, kind


def test_each_line_is_a_json_object_with_the_same_names(talkative: Daemon, street: bytes) -> None:
    talkative.ask(street, Door())
    lines = [json.loads(line) for line in written_log(talkative).splitlines()]
    assert {tuple(line) for line in lines} == {("time", "level", "logger", "message")}
    assert any(line["level"] == "info" and line["message"].startswith("ready: ") for line in lines)


def test_at_the_usual_level_a_flood_of_forgeries_is_not_a_flood_of_lines(
    start_daemon: StartDaemon, street: bytes
) -> None:
    daemon = start_daemon().ready()
    lines = len(daemon.log.splitlines())
    forged = daemon.validator.sign(street, Door()).but(bt_header_dendrite_signature="0x" + "00" * 64)
    for _ in range(50):
        assert daemon.post(forged).status_code == 401
    assert daemon.outcomes() == {"unauthorised": 50}
    assert len(daemon.log.splitlines()) - lines <= 1  # the minute may just end
