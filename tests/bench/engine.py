"""The configured model's graph behind a bare HTTP server, by the Open Inference Protocol v2.

    python -m tests.bench.engine FD

No more than the protocol and the graph, for measuring what the way there costs. The socket is inherited and listens
already; settings come from the environment.
"""

import asyncio
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from detectors.base import Detector, RunOptions
from detectors.errors import DetectorConfigError
from detectors.load import load_detector
from detectors.machine import allowed_cores
from detectors.models.config import read_config
from detectors.network import Network
from detectors.remote.endpoints import EngineOptions
from detectors.remote.server import HEADER, OpenInference
from miner.cli.common import errors_told
from miner.cli.preparation import start_errors
from miner.settings.settings import Settings


def load(settings: Settings, backend: str, engine: EngineOptions | None = None) -> Detector:
    """Return the configured model in fp32, which has answered the known picture.

    Raises:
        ConfigurationError: it is an ensemble, or the configuration names no model.
        CouldNotStart: the model can't be loaded, or no endpoint is fit to be asked.
    """
    with start_errors(settings):
        config = read_config(settings.detector_config)
        if config.branches is not None:
            raise DetectorConfigError("an ensemble runs its branches on this machine: give one of them")
        options = RunOptions(threads=settings.inference_threads or allowed_cores(), engine=engine)
        detector = load_detector(settings.image_detector, config, settings.models_dir, backend, options)
        detector.verify()
        return detector


def application(detector: Network) -> Starlette:
    """Return the server of a detector's graph."""
    oip = OpenInference(detector)

    async def respond(request: Request) -> Response:
        path = request.url.path
        if request.method == "POST":
            body = await request.body()
            answer = await asyncio.to_thread(oip.infer, path, request.headers.get(HEADER), body)
        else:
            answer = oip.describe(path)
        return Response(answer.body, answer.status, dict(answer.headers))

    return Starlette(routes=[Route("/{path:path}", respond, methods=["GET", "POST"])])


def main() -> None:
    """Serve until SIGTERM."""
    with errors_told():
        detector = load(Settings.load(), "onnx")
    assert isinstance(detector, Network)
    server = uvicorn.Server(uvicorn.Config(application(detector), log_config=None, lifespan="off", ws="none"))
    server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
