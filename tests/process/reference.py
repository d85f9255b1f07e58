"""`python -m tests.process.reference PORT`: serves as the reference miner does, with the model on the event loop.

Its SDK's axon is an ASGI application behind a middleware; every request awaits here and there, so that of many at once
each has its picture worked on before the first is answered.
"""

import asyncio
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SECONDS = 0.3  # that a picture takes


class Checks(BaseHTTPMiddleware):
    """Where the axon checks signature, blacklist and priority."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        await asyncio.sleep(0)
        return await call_next(request)


async def forward(request: Request) -> JSONResponse:
    await request.body()
    time.sleep(SECONDS)  # noqa: ASYNC251 - the inference
    return JSONResponse({"prediction": 0.5})


async def health(request: Request) -> JSONResponse:
    return JSONResponse({})


if __name__ == "__main__":
    routes = [Route("/ImageSynapse", forward, methods=["POST"]), Route("/healthz", health)]
    app = Starlette(routes=routes, middleware=[Middleware(Checks)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
