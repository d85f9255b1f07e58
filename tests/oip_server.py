"""A server of the Open Inference Protocol v2 with moods, in a thread, for what a real engine can't be made to do."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Literal, Self

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from detectors.base import Detector
from detectors.remote.server import HEADER, OpenInference, ServerAnswer

Mood = Literal[
    "well", "hangs", "fails", "busy", "rubbish", "not ready", "another model", "JSON only",
    "a list", "nested", "compressed", "endless", "drips", "not finite",
]  # fmt: skip
RUBBISH: dict[Mood, bytes] = {"rubbish": b"{", "a list": b"[]", "nested": b"[" * 10_000}


class OipServer:
    """Serves a detector's graph on a port of its own, which it keeps when it is stopped and started again."""

    def __init__(self, detector: Detector, name: str = "") -> None:
        self.oip = OpenInference(detector, name)
        self.mood: Mood = "well"
        self.asked = 0  # pictures
        self.seconds = 0.0  # that it waits before each
        self.prefix = ""  # of its paths, as behind a gateway
        self.authorization: str | None = None  # the header that it demands
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._server: uvicorn.Server | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Listen."""
        app = Starlette(routes=[Route("/{path:path}", self._get), Route("/{path:path}", self._post, methods=["POST"])])
        config = uvicorn.Config(
            app, port=self.port, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """End every connection and listen no more."""
        if self._server is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
            self._server = None

    async def _get(self, request: Request) -> Response:
        if not self._lets_in(request):
            return Response(b'{"error": "who are you?"}', 401)
        if self.mood == "not ready":
            return Response(b"{}", 503)
        return _response(self.oip.describe(self._path(request)))

    async def _post(self, request: Request) -> Response:
        self.asked += 1
        body = await request.body()
        if not self._lets_in(request):
            return Response(b'{"error": "who are you?"}', 401)
        await asyncio.sleep(self.seconds)
        if self.mood == "hangs":
            await asyncio.sleep(60)
        if self.mood in ("fails", "busy"):
            return Response(b'{"error": "no"}', 500 if self.mood == "fails" else 503)
        if self.mood == "JSON only" and HEADER in request.headers:
            return Response(b"Traceback\n of a server that knows no binary arrays", 500)
        if self.mood in RUBBISH:
            return Response(RUBBISH[self.mood], 200)
        if self.mood in ("endless", "drips"):
            return StreamingResponse(_zeros(0.0 if self.mood == "endless" else 0.05))
        answer = await asyncio.to_thread(self.oip.infer, self._path(request), request.headers.get(HEADER), body)
        if self.mood in ("another model", "not finite"):
            raw = np.array([[0.0, 9.0 if self.mood == "another model" else np.nan]], dtype="<f4").tobytes()
            answer = ServerAnswer(answer.status, answer.body[: -len(raw)] + raw, answer.headers)
        if self.mood == "compressed":
            answer = ServerAnswer(
                answer.status, gzip.compress(answer.body), {**answer.headers, "content-encoding": "gzip"}
            )
        return _response(answer)

    def _lets_in(self, request: Request) -> bool:
        said = request.headers.get("authorization")
        return request.url.path.startswith(self.prefix) and self.authorization in (None, said)

    def _path(self, request: Request) -> str:
        return request.url.path.removeprefix(self.prefix)


async def _zeros(pause: float) -> AsyncIterator[bytes]:
    """Yield them for as long as somebody reads: many at once, or one now and then."""
    while True:
        yield bytes(1 if pause else 2**16)
        await asyncio.sleep(pause)


def _response(answer: ServerAnswer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers))
