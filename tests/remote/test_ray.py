"""A miner whose graph runs on Ray Serve: a replica dies under load, the whole engine goes and comes back."""

import json
import threading
import time
from pathlib import Path

import httpx
import pytest

from miner.errors import MESSAGES
from tests.models import photo
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.remote.ray_serve import RayServe

pytestmark = pytest.mark.timeout(900)
PICTURES = [photo(224, 224), photo(1280, 720), photo(360, 640, seed=4), photo(640, 480, mode="L")]
LOAD_SECONDS = 12.0
CALLERS = 3


def remote(engine: RayServe, name: str, yolo: Path, **more: object) -> dict[str, object]:
    """Return the settings of a miner that asks the engine for one of its models."""
    detector = {"IMAGE_DETECTOR": "YOLOClassifier", "IMAGE_DETECTOR_CONFIG": yolo} if name == "yolo" else {}
    places = ["yolo"] if name == "yolo" else ["starter-a", "starter-b"]
    endpoints = ",".join(f"{engine.address}/{place}" for place in places)
    return {
        "IMAGE_DETECTOR_BACKEND": "remote", "REMOTE_ENDPOINTS": endpoints, "INFERENCE_SLOTS": 4,
        **detector, **more,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["starter", "yolo"])
def test_answers_equal_the_local_ones(ray_serve: RayServe, start_daemon: StartDaemon, yolo: Path, name: str) -> None:
    settings = remote(ray_serve, name, yolo)
    elsewhere = start_daemon(**settings).ready()
    here = start_daemon(**settings | {"IMAGE_DETECTOR_BACKEND": "onnx", "INFERENCE_SLOTS": 1}).ready()
    answers = [probability_of(elsewhere.ask(picture)) for picture in PICTURES]
    assert answers == [pytest.approx(probability_of(here.ask(picture)), abs=1e-5) for picture in PICTURES]
    assert max(answers) - min(answers) > 0.01
    assert elsewhere.metric("remote_answers_total") >= len(PICTURES)


class Load:
    """Callers that ask one after the other, for a while, and wait for as long as a busy machine may take."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.answers: list[httpx.Response] = []
        self._end = time.monotonic() + LOAD_SECONDS
        self._threads = [threading.Thread(target=self._ask) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while time.monotonic() < self._end:
            self.answers.append(self.daemon.ask_patiently(PICTURES[0]))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)


def failures(daemon: Daemon, endpoint: str) -> float:
    return daemon.metric("remote_failures_total", endpoint=endpoint)


def is_asked_again(daemon: Daemon, answered: float) -> bool:
    """Ask for a picture, and return whether the first endpoint has answered more of them than these."""
    probability_of(daemon.ask(PICTURES[0]))
    return daemon.metric("remote_answers_total", endpoint="0") > answered


@pytest.mark.parametrize("name", ["starter", "yolo"])
def test_a_replica_killed_under_load_loses_no_answer(
    ray_serve: RayServe, start_daemon: StartDaemon, yolo: Path, name: str
) -> None:
    """Asserted on counters: Ray may have brought the replica back before anybody looks at a gauge."""
    place = "yolo" if name == "yolo" else "starter-a"
    daemon = start_daemon(**remote(ray_serve, name, yolo, DEADLINE_CAP_SECONDS=PATIENCE)).ready()
    load = Load(daemon)
    eventually(lambda: len(load.answers) > 10)
    (killed, *_) = ray_serve.replicas(place)
    killed.kill()
    if name == "starter":  # each replica has an address of its own, so the metrics show which is gone
        eventually(lambda: ray_serve.kill_all(place) or failures(daemon, "0"))
    load.join()
    assert [answer.text for answer in load.answers if answer.status_code != 200] == []
    assert daemon.outcomes() == {"ok": len(load.answers)}
    eventually(ray_serve.is_complete)  # Ray has started another
    assert killed.pid not in {replica.pid for replica in ray_serve.replicas(place)}
    answered = daemon.metric("remote_answers_total", endpoint="0")
    eventually(lambda: is_asked_again(daemon, answered))
    assert name == "yolo" or failures(daemon, "1") == 0
    slowest = max(answer.elapsed.total_seconds() for answer in load.answers)
    failed = daemon.metric("remote_failures_total")
    print(json.dumps({"answers": len(load.answers), "failures": failed, "slowest": round(slowest, 2)}))


def test_the_engine_goes_and_comes_back(ray_serve: RayServe, start_daemon: StartDaemon, yolo: Path) -> None:
    refusing = start_daemon(**remote(ray_serve, "starter", yolo)).ready()
    standing_in = start_daemon(**remote(ray_serve, "starter", yolo, REMOTE_FALLBACK="onnx")).ready()
    expected = pytest.approx(probability_of(refusing.ask(PICTURES[1])), abs=1e-5)
    ray_serve.stop()
    eventually(lambda: refusing.status("/readyz") == 503)
    assert "no remote endpoint" in refusing.page("/readyz").json()["reason"]
    assert message_of(refusing.ask(PICTURES[1]), 503) == MESSAGES["no_endpoint"]
    assert refusing.metric("refusals_total", reason="no_endpoint") >= 1
    assert probability_of(standing_in.ask(PICTURES[1])) == expected
    assert standing_in.metric("remote_served_locally_total") >= 1
    assert standing_in.page("/status").json()["model"]["backend"].endswith(" onnx")
    ray_serve.start()
    refusing.ready()
    eventually(lambda: standing_in.metric("remote_up") >= 1)
    for daemon in (refusing, standing_in):
        answered = daemon.metric("remote_answers_total")
        assert probability_of(daemon.ask(PICTURES[1])) == expected
        assert daemon.metric("remote_answers_total") > answered


def test_what_the_protocol_says_of_the_model(ray_serve: RayServe) -> None:
    base = f"{ray_serve.address}/yolo/v2/models/best"
    metadata = httpx.get(base, trust_env=False).json()
    assert metadata["outputs"][0]["parameters"]["labels"] == ["no_roadwork", "roadwork"]
    assert httpx.post(f"{base}/infer", json={"inputs": []}, trust_env=False).status_code == 400
    assert httpx.get(f"{ray_serve.address}/yolo/v2/models/other/ready", trust_env=False).status_code == 404
