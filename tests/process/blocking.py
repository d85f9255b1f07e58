"""A stand-in for the reference miner: it runs the model on its event loop, behind a middleware, as that one does.

python -m tests.process.blocking PORT SECONDS  # that each picture takes; the starter scores it
"""

import sys
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from detectors.base import RunOptions
from detectors.load import load_detector
from detectors.models.config import read_config
from miner.axon import BTAUTH_PATH
from miner.axon.body import picture_of


def blocking_app(seconds: float) -> Starlette:
    """Return the application; everyone may ask, since who may is not what is compared."""
    detector = load_detector("ViT", read_config("starter.yaml"), Path("unused"), "onnx", RunOptions(1, 1))

    async def answer(request: Request) -> Response:
        picture = picture_of(bytearray(await request.body()))
        time.sleep(seconds)  # noqa: ASYNC251 - the point
        return JSONResponse({"prediction": detector.predict(picture).probability})

    async def verify(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    routes = [Route(path, answer, methods=["POST"]) for path in ("/ImageSynapse", BTAUTH_PATH)]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=verify)])


if __name__ == "__main__":
    uvicorn.run(blocking_app(float(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
