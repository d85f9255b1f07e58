"""A foreign server of the same protocol: MLServer runs the graph, this miner asks it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from detectors.models import MODEL_FILE
from tests.process.conftest import SHIPPED, StartDaemon
from tests.process.daemon import PATIENCE, Daemon, clean_environment, eventually, free_port
from tests.process.environments import environment
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS

STEPS = (("install", "-q", "mlserver==1.7.1", "onnxruntime==1.32.0"),)
RUNTIME = Path(__file__).with_name("mlserver_runtime.py")
TENSORS = {
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
}


class MLServer:
    """One `mlserver start`."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        ports = {"http_port": self.port, "grpc_port": free_port(), "metrics_port": free_port()}
        self._write("settings.json", {"host": "127.0.0.1", "parallel_workers": 0, **ports})
        uri = str(SHIPPED.with_name(MODEL_FILE))
        model = {"name": "street", "implementation": "mlserver_runtime.OnnxRuntime", "parameters": {"uri": uri}}
        self._write("model-settings.json", model | TENSORS)
        shutil.copy(RUNTIME, folder)
        self._command = [python.with_name("mlserver"), "start", folder]
        self.process: subprocess.Popen[bytes] | None = None

    def _write(self, name: str, content: object) -> None:
        (self.folder / name).write_text(json.dumps(content), encoding="utf-8")

    def start(self) -> "MLServer":
        with (self.folder / "log.txt").open("ab") as log:
            environment = clean_environment(PYTHONPATH=str(self.folder))
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, env=environment
            )
        eventually(self.is_ready)
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log.txt").read_text()
        try:
            return httpx.get(f"{self.address}/v2/models/street/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServer]:
    python = environment("mlserver-1.7.1", sys.executable, *STEPS)
    server = MLServer(tmp_path_factory.mktemp("mlserver"), python).start()
    yield server
    server.stop()


@pytest.mark.timeout(900)
def test_a_foreign_server_of_the_protocol_runs_the_graph(
    mlserver: MLServer, start_daemon: StartDaemon, miner: Daemon, street: bytes
) -> None:
    settings = {"IMAGE_DETECTOR_BACKEND": "remote", "REMOTE_ENDPOINTS": mlserver.address, "INFERENCE_SLOTS": 2}
    daemon = start_daemon(**settings, REMOTE_MODEL="street").ready()
    for door in DOORS:
        assert probability_of(daemon.ask(street, door)) == pytest.approx(probability_of(miner.ask(street)), abs=1e-5)
    assert daemon.metric("remote_answers_total") >= len(DOORS)
    assert daemon.metric("remote_failures_total") == 0
    mlserver.stop()
    eventually(lambda: daemon.status("/readyz") == 503)
    message_of(daemon.ask(street), 503)
    mlserver.start()
    daemon.ready()
    probability_of(daemon.ask(street))


def test_another_models_name_ends_the_start(mlserver: MLServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(IMAGE_DETECTOR_BACKEND="remote", REMOTE_ENDPOINTS=mlserver.address)
    assert daemon.wait() == 3
    assert "'starter' is not ready" in daemon.log
