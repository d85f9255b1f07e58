"""The server's side of the protocol, by hand and as Triton's client encodes it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from detectors.base import Backend, Detector, RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from detectors.remote.channel import read_signature
from detectors.remote.server import HEADER, INPUT, OUTPUT, OpenInference

INFER = "/v2/models/starter/infer"
ARRAY = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector("ViT", read_config("starter.yaml"), Path("unused"), "onnx", RunOptions())


@pytest.fixture(scope="module")
def server(detector: Detector) -> OpenInference:
    return OpenInference(detector)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_a_picture_in_either_encoding(
    server: OpenInference, detector: Detector, binary_in: bool, binary_out: bool | None
) -> None:
    picture = InferInput(INPUT, list(ARRAY.shape), "FP32")
    picture.set_data_from_numpy(ARRAY, binary_data=binary_in)
    wanted = None if binary_out is None else [InferRequestedOutput(OUTPUT, binary_data=binary_out)]
    body, length = InferenceServerClient.generate_request_body([picture], outputs=wanted, request_id="7")
    answer = server.infer(INFER, None if length is None else str(length), body)
    assert answer.status == 200
    assert (HEADER in answer.headers) is (binary_out is not False)  # asked for nothing: all of it in binary
    result = InferenceServerClient.parse_response_body(answer.body, header_length=answer.headers.get(HEADER))
    assert result.get_response()["id"] == "7"
    np.testing.assert_allclose(result.as_numpy(OUTPUT), detector.backend.run(ARRAY), atol=1e-6)


def test_what_there_is_to_know(server: OpenInference) -> None:
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/starter/ready"):
        assert server.describe(path).status == 200
    for path in ("/", "/v2/models/other", "/v2/models/other/ready"):
        assert server.describe(path).status == 404
    metadata = json.loads(server.describe("/v2/models/starter").body)
    assert read_signature(metadata, (1, 3, 224, 224), ["None", "Roadwork"]).input == INPUT


def request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": INPUT, "datatype": "FP32", "shape": [1, 3, 224, 224], "data": [0.0] * (3 * 224 * 224)}
    return {"inputs": [tensor | changes]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (request(shape=[1, 3, 112, 448]), "one FP32 array of shape"),
        (request(datatype="FP64"), "one FP32 array of shape"),
        (request(data=[0.0]), "not a request"),
        (request(data="x"), "not a request"),
        (request(parameters={"binary_data_size": 4}), "not a request"),
        ({"inputs": []}, "not a request"),
        ([], "not a request"),
    ],
)
def test_what_is_no_request_is_400(server: OpenInference, content: Any, message: str) -> None:
    answer = server.infer(INFER, None, json.dumps(content).encode())
    assert answer.status == 400
    assert message in json.loads(answer.body)["error"]


def test_rubbish_is_400_and_another_model_404(server: OpenInference) -> None:
    assert server.infer(INFER, "nine", b"{}").status == 400
    assert server.infer(INFER, None, b"\xff").status == 400
    assert server.infer("/v2/models/other/infer", None, b"{}").status == 404


class Watched:
    """A graph that sees how many threads are in it at once."""

    def __init__(self, inner: Backend) -> None:
        self.inner, self.inside, self.most, self.runs = inner, 0, 0, 0

    def run(self, array: Any, deadline: float | None = None) -> Any:
        self.inside += 1
        self.runs += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.1)
        self.inside -= 1
        return self.inner.run(array)


def test_pictures_and_proofs_take_turns_and_a_picture_answered_lately_is_proof_enough() -> None:
    detector = load_detector("ViT", read_config("starter.yaml"), Path("unused"), "onnx", RunOptions(slots=1))
    detector.verify()
    watched = detector.backend = Watched(detector.backend)  # type: ignore[assignment]
    server = OpenInference(detector)
    body = json.dumps({"inputs": [{"name": INPUT, "datatype": "FP32", "shape": list(ARRAY.shape),
                                   "data": ARRAY.ravel().tolist()}]}).encode()  # fmt: skip
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(server.prove, -1.0), *(pool.submit(server.infer, INFER, None, body) for _ in range(2))]
        for job in jobs:
            job.result()
    assert watched.most == 1
    runs = watched.runs
    server.prove(60.0)
    assert watched.runs == runs
    server.prove(-1.0)
    assert watched.runs > runs
