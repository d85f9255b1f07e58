"""A miner whose graph runs elsewhere, and what validators notice when that place goes away."""

import base64
import gzip
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from miner.axon.client import another
from miner.errors import MESSAGES
from tests.expressions import REMOTE, panel_expressions, selectors
from tests.oip_server import OipServer
from tests.process.conftest import MODEL, StartDaemon, daemons
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS, Door

OF_THE_REMOTE_BACKEND = {"tritonclient", "gevent", "geventhttpclient"}
ELSEWHERE = OF_THE_REMOTE_BACKEND | {"ray", "mlserver"}


@pytest.fixture
def engines() -> Iterator[list[OipServer]]:
    """Two servers of the starter's graph."""
    local = load_detector("ViT", read_config(MODEL), Path("unused"), "onnx", RunOptions())
    servers = [OipServer(local).start() for _ in range(2)]
    yield servers
    for server in servers:
        server.stop()


def remote(servers: list[OipServer], **more: object) -> dict[str, object]:
    endpoints = ",".join(server.address for server in servers)
    return {
        "IMAGE_DETECTOR_BACKEND": "remote", "REMOTE_ENDPOINTS": endpoints, "INFERENCE_SLOTS": 0, **more
    }  # fmt: skip


def imported(daemon: Daemon) -> set[str]:
    """Return the packages a process started with `-X importtime` has imported."""
    return {match[1] for match in re.finditer(r"^import time:.*\| +(\w+)", daemon.log, re.M)}


@pytest.fixture
def start_watched(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartDaemon]:
    """Start daemons that log what they import."""
    monkeypatch.setattr(Daemon, "command", (sys.executable, "-X", "importtime", "-m", "miner"))
    with daemons(tmp_path_factory, MODEL) as start:
        yield start


def test_what_was_not_chosen_is_not_imported(
    start_watched: StartDaemon, engines: list[OipServer], street: bytes
) -> None:
    here = start_watched(IMAGE_DETECTOR_BACKEND="onnx").ready()
    elsewhere = start_watched(**remote(engines)).ready()
    assert probability_of(elsewhere.ask(street)) == pytest.approx(probability_of(here.ask(street)), abs=1e-5)
    assert not imported(here) & ELSEWHERE
    assert imported(here) > {"onnxruntime"}
    assert imported(elsewhere) >= OF_THE_REMOTE_BACKEND
    assert not imported(elsewhere) & {"onnxruntime", "ray"}


def test_an_engine_that_goes_and_comes_back(start_daemon: StartDaemon, engines: list[OipServer], street: bytes) -> None:
    daemon = start_daemon(**remote(engines)).ready()
    assert daemon.metric("slots") == 4
    for door in DOORS:
        probability_of(daemon.ask(street, door))
    assert [daemon.metric("remote_answers_total", endpoint=str(index)) for index in (0, 1)] >= [1, 1]
    shown = {selector.metric for one in panel_expressions(REMOTE) for selector in selectors(one.text)}
    assert shown <= {f"roadwork_miner_{name}" for name, _, _ in daemon.samples()}
    engines[0].stop()
    for _ in range(3):
        probability_of(daemon.ask(street))
    eventually(lambda: daemon.metric("remote_up", endpoint="0") == 0)
    assert daemon.metric("remote_failures_total", endpoint="0") >= 1
    changes = [daemon.metric("remote_state_changes_total", endpoint=one, state="down") for one in ("0", "1")]
    assert changes == [1, 0]
    engines[1].stop()
    eventually(lambda: daemon.status("/readyz") == 503)
    assert "endpoint 0 (http://127.0.0.1:" in daemon.page("/readyz").json()["reason"]
    with daemon.raw(daemon.validator.sign(street, Door())) as request:
        refusal = request.send_head(length=len(street) * 2).answer()  # said before the body is sent
    assert message_of(refusal, 503) == MESSAGES["no_endpoint"]
    assert daemon.metric("refusals_total", reason="no_endpoint") >= 1
    engines[1].start()
    daemon.ready()
    probability_of(daemon.ask(street))


def test_a_picture_on_its_way_to_an_engine_that_hangs_is_refused_in_time(
    start_daemon: StartDaemon, engines: list[OipServer], street: bytes
) -> None:
    daemon = start_daemon(**remote(engines, DEADLINE_MARGIN_SECONDS=5)).ready()
    for server in engines:
        server.mood = "hangs"
    assert message_of(daemon.ask(street, timeout="6.5"), 503) == MESSAGES["late"]
    assert daemon.outcomes() == {"refused": 1}  # not "expired": its caller was still there


def test_this_machine_stands_in_where_it_may_and_says_so(
    start_daemon: StartDaemon, engines: list[OipServer], street: bytes, miner: Daemon
) -> None:
    expected = pytest.approx(probability_of(miner.ask(street)), abs=1e-5)
    daemon = start_daemon(**remote(engines, REMOTE_FALLBACK="onnx")).ready()
    assert probability_of(daemon.ask(street)) == expected
    for server in engines:
        server.stop()
    answers: list[float] = []

    def ask(number: int) -> None:
        answers.append(probability_of(daemon.ask(another(street, number))))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 8
    assert daemon.status("/readyz") == 200
    assert daemon.metric("remote_served_locally_total") == 8
    assert daemon.page("/status").json()["model"]["backend"].startswith("remote: 0 of 2 endpoints, ")
    engines[0].start()
    eventually(lambda: daemon.metric("remote_up", endpoint="0") == 1)
    assert probability_of(daemon.ask(street)) == expected
    assert daemon.metric("remote_served_locally_total") == 8


def test_a_reload_changes_to_a_new_connection_and_keeps_the_counts(
    start_daemon: StartDaemon, engines: list[OipServer], street: bytes
) -> None:
    daemon = start_daemon(**remote(engines)).ready()
    probability_of(daemon.ask(street))
    counted = sum(daemon.metric("remote_answers_total", endpoint=str(index)) for index in (0, 1))
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.metric("model_reloads_total", result="ok") == 1)
    probability_of(daemon.ask(street))
    assert sum(daemon.metric("remote_answers_total", endpoint=str(index)) for index in (0, 1)) > counted
    assert daemon.metric("remote_up") == 2


def pages(daemon: Daemon) -> list[str]:
    return [daemon.page(path).text for path in ("/", "/status", "/readyz", "/metrics")]


def commands(daemon: Daemon) -> list[str]:
    """Return what an operator asks for when something is wrong, and what others are sent then."""
    archive = daemon.folder / "report.tar.gz"
    said = []
    for command in (["doctor"], ["top", "--once"], ["report", "--out", str(archive), "--log", str(daemon.log_file)]):
        done = subprocess.run(
            [*daemon.command, *command], capture_output=True, text=True, timeout=PATIENCE, env=daemon.environment
        )
        assert done.stdout, done.stderr
        said += [done.stdout, done.stderr]
    return [*said, gzip.decompress(archive.read_bytes()).decode(errors="replace")]


def test_a_gateways_password_and_key_are_used_and_told_to_nobody(
    start_daemon: StartDaemon, engines: list[OipServer], street: bytes
) -> None:
    secrets = (password, key) = "hunter2pw", "APIKEY123"
    engine = engines[0]
    engine.prefix, engine.authorization = f"/{key}", "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()
    address = engine.address.replace("://", f"://alice:{password}@") + engine.prefix
    settings = remote(engines) | {"REMOTE_ENDPOINTS": address, "LOG_LEVEL": "DEBUG"}
    daemon = start_daemon(**settings).ready()
    probability_of(daemon.ask(street))
    assert daemon.metric("remote_endpoint_info", endpoint="0", address=engine.address) == 1
    said = pages(daemon)
    engine.mood = "hangs"
    message_of(daemon.ask(street, timeout="1.5"), 503)
    engine.stop()
    eventually(lambda: daemon.status("/readyz") == 503)
    message_of(daemon.ask(street), 503)
    said += pages(daemon) + commands(daemon)
    second = start_daemon(**settings)
    assert second.wait() == 3
    said += [daemon.log, second.log]
    assert f"endpoint 0 ({engine.address}) is used" in daemon.log
    eventually(lambda: f"endpoint 0 ({engine.address}) is out of use" in daemon.log)
    assert f"endpoint 0 ({engine.address}): no connection" in second.log
    assert not [secret for secret in secrets if secret in "\n".join(said)]


def test_a_start_without_an_engine_says_why(start_daemon: StartDaemon, engines: list[OipServer]) -> None:
    engines[0].stop()
    daemon = start_daemon(**remote(engines, REMOTE_MODEL="other"))
    assert daemon.wait() == 3
    assert "endpoint 1 (" in daemon.log
    assert "'other' is not ready" in daemon.log
