"""Ray Serve: any model folder behind the Open Inference Protocol v2, on one box or on many.

Each replica verifies and proves its model as the miner does, answers one picture while the next is unpacked, and proves
itself again at each health check without a picture since the last. What is more than the queue holds is answered with
503 at once.
"""

import asyncio
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import DetectorConfig
from detectors.models.manifest import Manifest
from detectors.remote.server import HEADER, OpenInference, ServerAnswer


class Arguments(BaseModel):
    """What `args` of an application may hold."""

    model_folder: Path  # as `roadwork-miner models download` or `export` has made it; on every box at the same path
    name: str = ""  # of the model in the protocol; empty: as in its manifest
    backend: str = "onnx"


PERIOD = 5.0  # seconds between two health checks


@serve.deployment(
    max_ongoing_requests=2, max_queued_requests=32, health_check_period_s=PERIOD, health_check_timeout_s=10
)
class Model:
    """One replica."""

    def __init__(self, arguments: Arguments) -> None:
        config = DetectorConfig(model_folder=arguments.model_folder.expanduser())
        manifest = Manifest.read(arguments.model_folder.expanduser())
        cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
        options = RunOptions(slots=1, threads=max(1, int(cores)))
        detector = load_detector(manifest.detector, config, Path(), arguments.backend, options)
        detector.verify()
        self.oip = OpenInference(detector, arguments.name)

    async def check_health(self) -> None:
        """Answer the known picture, or a picture lately; Ray starts another replica in place of one that does not."""
        await asyncio.to_thread(self.oip.prove, PERIOD)

    async def __call__(self, request: Request) -> Response:
        """Answer one request of the protocol, below the application's route prefix."""
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        if request.method != "POST":
            return _response(self.oip.describe(path))
        body = await request.body()
        return _response(await asyncio.to_thread(self.oip.infer, path, request.headers.get(HEADER), body))


def build(arguments: Arguments) -> Any:
    """Return the application that a configuration file names as `app:build`."""
    return Model.bind(arguments)


def _response(answer: ServerAnswer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers))
