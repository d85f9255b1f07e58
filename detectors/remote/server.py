"""The server's side of the Open Inference Protocol v2 for a detector's graph, free of any web framework.

https://github.com/open-inference/open-inference-protocol (`specification/protocol/inference_rest.md`); arrays travel as
JSON or, by the binary tensor data extension, as they lie in memory. `deploy/remote/ray` puts it on Ray Serve.
"""

import json
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.errors import ModelError
from detectors.network import Network
from detectors.remote.channel import TYPE

HEADER = "inference-header-content-length"  # bytes of JSON before the first array
INPUT, OUTPUT = "pixel_values", "scores"


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """A status, a body, and what the headers must say of it."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class BadInferenceRequest(Exception):
    """The request is not what the protocol says, or not for this model."""


class OpenInference:
    """Answers for one verified detector, from any number of threads: the graph runs for as many as it has slots."""

    def __init__(self, detector: Network, name: str = "") -> None:
        if detector.head is not None:
            raise ModelError(
                f"{detector.manifest.name} gives features of {detector.manifest.head}, and no scores that another "
                "machine could read: serve it where the pictures come in"
            )
        self.detector = detector
        self._slots = threading.Semaphore(detector.options.slots)
        self._answered = -math.inf  # when a picture last got its scores
        self.name = name or detector.manifest.name
        self.shape = detector.preprocessing.shape

    def describe(self, path: str) -> ServerAnswer:
        """Answer a GET: health, readiness, or what there is to know of the server or the model."""
        known: dict[str, Any] = {
            "/v2": {"name": "roadwork-miner", "version": "2", "extensions": ["binary_tensor_data"]},
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            f"/v2/models/{self.name}": self._metadata(),
            f"/v2/models/{self.name}/ready": {"name": self.name, "ready": True},
        }
        return _json(200, known[path]) if path in known else _json(404, {"error": f"there is no {path}"})

    def infer(self, path: str, header_length: str | None, body: bytes) -> ServerAnswer:
        """Answer a POST: run the graph on the one picture it holds."""
        if path != f"/v2/models/{self.name}/infer":
            return _json(404, {"error": f"there is no {path}"})
        try:
            request, array = read_request(header_length, body, self.shape)
        except BadInferenceRequest as error:
            return _json(400, {"error": str(error)})
        with self._slots:
            scores = self.detector.backend.run(array)
        self._answered = time.monotonic()
        return write_answer(self.name, request, scores)

    def prove(self, lately: float) -> None:
        """Answer the known picture, which a picture answered in the last `lately` seconds makes needless.

        Raises:
            ModelError: the answer is not the one in the manifest.
        """
        if time.monotonic() - self._answered > lately:
            with self._slots:
                self.detector.verify()

    def _metadata(self) -> dict[str, Any]:
        manifest = self.detector.manifest
        labels = manifest.output.labels
        return {
            "name": self.name,
            "versions": [manifest.revision],
            "platform": self.detector.backend_name,
            "inputs": [{"name": INPUT, "datatype": TYPE, "shape": list(self.shape)}],
            "outputs": [
                {"name": OUTPUT, "datatype": TYPE, "shape": [1, len(labels)], "parameters": {"labels": labels}}
            ],
        }


def read_request(
    header_length: str | None, body: bytes, shape: tuple[int, ...]
) -> tuple[Mapping[str, Any], NDArray[np.float32]]:
    """Return the request's JSON and its one array.

    Raises:
        BadInferenceRequest: not the protocol's, or another shape or type.
    """
    try:
        split = len(body) if header_length is None else int(header_length)
        request = json.loads(body[:split])
        (tensor,) = request["inputs"]
        if tensor["datatype"] != TYPE or tuple(tensor["shape"]) != shape:
            raise BadInferenceRequest(f"one {TYPE} array of shape {list(shape)} is needed")
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.asarray(tensor["data"], dtype=np.float32)
        else:
            array = np.frombuffer(body[split : split + int(size)], dtype="<f4")
        return request, array.reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInferenceRequest(f"not a request of the protocol: {error}") from error


def write_answer(name: str, request: Mapping[str, Any], scores: NDArray[np.float32]) -> ServerAnswer:
    """Encode the scores as the request wants them: binary or JSON."""
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": TYPE, "shape": list(scores.shape)}
    answer = {"model_name": name, "outputs": [tensor]} | ({"id": request["id"]} if "id" in request else {})
    if not _wants_binary(request):
        tensor["data"] = scores.ravel().tolist()
        return _json(200, answer)
    raw = np.ascontiguousarray(scores, dtype="<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(answer).encode()
    return ServerAnswer(200, head + raw, {HEADER: str(len(head)), "content-type": "application/octet-stream"})


def _wants_binary(request: Mapping[str, Any]) -> bool:
    """Of the whole answer, or of the one output asked for by name."""
    wanted = [request.get("parameters", {}).get("binary_data_output", False)]
    wanted += [output.get("parameters", {}).get("binary_data", wanted[0]) for output in request.get("outputs", [])]
    return bool(wanted[-1])


def _json(status: int, content: Any) -> ServerAnswer:
    return ServerAnswer(status, json.dumps(content).encode(), {"content-type": "application/json"})
